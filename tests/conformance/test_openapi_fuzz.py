"""Requests made from our own OpenAPI document, valid and not, against the stub of an engine.

No answer is a 5xx, and every answer is of a status, a content type and a schema that the document
has.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from server.app import create_app
from tests.server.stub import MODEL, StubClient, model_folder, server_config

KEY = "secret"
HELD = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Everything the document says can be asked."""
    folder = tmp_path_factory.mktemp("fuzz")
    config = server_config(model_folder(folder), admin_key=KEY, adapter_dir=folder)
    app = create_app(config, StubClient())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    return [operation.ok() for operation in schema.get_all_operations()]


def hold(operation: Any, mode: GenerationMode, count: int) -> None:
    """So many requests to one operation."""

    @seed(5)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = MODEL
        case.call_and_validate(headers={"authorization": f"Bearer {KEY}"}, checks=HELD)

    ask()


def test_valid_requests_get_documented_answers(operations: list[Any]) -> None:
    for operation in operations:
        hold(operation, GenerationMode.POSITIVE, 4)


@pytest.mark.slow
def test_many_requests_valid_and_not_get_documented_answers(operations: list[Any]) -> None:
    for operation in operations:
        hold(operation, GenerationMode.POSITIVE, 60)
        if operation.method == "post":  # elsewhere nothing can be wrong
            hold(operation, GenerationMode.NEGATIVE, 60)
