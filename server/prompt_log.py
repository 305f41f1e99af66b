"""Prompts that were asked, kept for tuning; only where the operator asked for it.

One JSON object a line, in the forms that `bita tune --prompts` reads. Answers, keys and addresses
are not in it, but what people wrote is: the file is its owner's alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.tuning import files
from engine.errors import EngineError

log = logging.getLogger("bita.server")


class PromptLog:
    """file: what is appended to; None keeps nothing.

    Raises EngineError where the file cannot be written.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        if file is not None:
            try:
                file.touch(mode=0o600)
                files.append(file, "")
            except (AdapterError, OSError) as error:
                raise EngineError(f"--log-prompts: {error}") from error

    @property
    def keeps(self) -> bool:
        """Whether anything is written down."""
        return self._file is not None

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one prompt; a request is answered even where that fails."""
        if self._file is None:
            return
        try:
            files.append(self._file, json.dumps(record) + "\n")
        except AdapterError as error:
            log.warning("%s", error)
