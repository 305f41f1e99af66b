"""A model of any shape that servers take, ours and others'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import random_model
from engine.model.loader import load_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shape = ["--layers", "1", "--hidden", "128"]
    monkeypatch.setattr(sys, "argv", ["random_model", "--out", str(tmp_path), *shape])
    random_model.main()
    return tmp_path


def test_what_is_saved_is_loaded_with_the_default_models_tokenizer(folder: Path) -> None:
    assert load_model(str(folder), "cpu", "bfloat16").facts.vocab_size == 4096
    assert (folder / "tokenizer.json").is_file()


def test_it_is_exported_for_llama_cpp(folder: Path) -> None:
    pytest.importorskip("gguf")
    from benchmarks.gguf_export import export

    export(folder, folder / "m.gguf", "bfloat16")
    assert (folder / "m.gguf").stat().st_size > 1e6
