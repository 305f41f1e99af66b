"""A model's memory, told from its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import UnsupportedModel
from engine.model.memory import free_memory, weight_bytes


def test_floats_count_in_the_dtype_asked_for_and_packed_weights_as_they_are(tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(10, 2), "q": torch.zeros(8, dtype=torch.uint8)},
        tmp_path / "1.safetensors",
    )
    save_file({"b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "2.safetensors")
    assert weight_bytes(tmp_path, torch.float32) == 4 * 25 + 8
    assert weight_bytes(tmp_path, torch.bfloat16) == 2 * 25 + 8


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_a_folder_without_whole_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UnsupportedModel, match="safetensors"):
        weight_bytes(tmp_path, torch.float32)


def test_free_memory_is_some() -> None:
    assert free_memory(torch.device("cpu")) > 0
