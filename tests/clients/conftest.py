"""`bita serve` on the embedded model, as started in an environment without the clients."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.served import served

MODEL = "bita-concierge"
KEY = "secret"

# litellm otherwise asks the net for prices when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    """Its URL, ready to be asked."""
    with served("--api-key", KEY) as server:
        yield server.url


@pytest.fixture(scope="session")
def url(base: str) -> str:
    """What a client is given for a base URL."""
    return f"{base}/v1"
