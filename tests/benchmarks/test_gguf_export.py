"""The file that llama.cpp is given; `benchmarks.serving` compares what it says with it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models import DEFAULT_MODEL

gguf = pytest.importorskip("gguf")


def test_pairs_of_rows_that_turn_together_become_neighbours() -> None:
    from benchmarks.gguf_export import interleaved

    rows = torch.arange(16.0)[:, None]  # two heads of eight
    expected = [h + i + half for h in (0, 8) for i in range(4) for half in (0, 4)]
    assert interleaved(rows, 8)[:, 0].tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_and_token_is_in_the_file(tmp_path: Path, dtype: str) -> None:
    from benchmarks.gguf_export import export

    model = Path(DEFAULT_MODEL)
    export(model, tmp_path / "m.gguf", dtype)
    read = gguf.GGUFReader(tmp_path / "m.gguf")
    weights = load_file(model / "model.safetensors")
    assert len(read.tensors) == len(weights)
    embedding = next(t for t in read.tensors if t.name == "token_embd.weight")
    want = weights["model.embed_tokens.weight"]
    if dtype == "float32":
        assert torch.equal(torch.tensor(embedding.data), want.float())
    else:
        assert bytes(embedding.data) == bytes(want.view(torch.uint8).numpy())
    assert len(read.fields["tokenizer.ggml.tokens"].data) == want.shape[0]
