"""Where this machine's measurements and compiled kernels are kept from one start to the next."""

from __future__ import annotations

import os
from pathlib import Path


def kept_folder(name: str) -> Path:
    """A folder below XDG_CACHE_HOME, or the user's `.cache`; it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bita" / name
