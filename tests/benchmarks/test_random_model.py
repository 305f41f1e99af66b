"""A model of any shape that servers take, ours and others'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import random_model
from engine.model.loader import load_model


def test_what_is_saved_is_loaded_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf")
    from benchmarks.gguf_export import export

    shape = ["--layers", "1", "--hidden", "128"]
    monkeypatch.setattr(sys, "argv", ["random_model", "--out", str(tmp_path), *shape])
    random_model.main()
    assert "M parameters" in capsys.readouterr().out
    loaded = load_model(str(tmp_path), "cpu", "bfloat16")
    assert loaded.facts.vocab_size == 4096
    assert (tmp_path / "tokenizer.json").is_file()
    export(tmp_path, tmp_path / "m.gguf", "bfloat16")
