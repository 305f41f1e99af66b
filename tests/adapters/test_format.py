"""An adapter's folder: what goes in comes out, and everything else is refused by name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import format as adapter_format
from adapters.errors import AdapterError, AdapterFormatError, AdapterMismatch
from adapters.format import CONFIG, MAX_CONFIG_BYTES, WEIGHTS, AdapterConfig, BitaAdapter
from adapters.profile import HitProfile
from tests.adapters.tiny import HEAD_DIM, HIDDEN, KV_HEADS, LAYERS, SHAPE

PROMPTS, MASKS = 4, 3


@pytest.fixture
def adapter() -> BitaAdapter:
    torch.manual_seed(0)
    config = AdapterConfig(
        **asdict(SHAPE),
        num_prompts=PROMPTS,
        num_masks=MASKS,
        profile=HitProfile([[0.4, 0.1], [0.3, 0.1], [0.2, 0.1]], [9, 5, 2]),
        tuning={"steps": 3},
    )
    return BitaAdapter(
        config,
        torch.randn(LAYERS, 2, KV_HEADS, PROMPTS, HEAD_DIM),
        torch.randn(MASKS, HIDDEN),
    )


@pytest.fixture
def folder(adapter: BitaAdapter, tmp_path: Path) -> Path:
    adapter.save(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((folder / CONFIG).read_text())
    change(record)
    (folder / CONFIG).write_text(json.dumps(record))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS)


def test_round_trip(adapter: BitaAdapter, folder: Path) -> None:
    loaded = BitaAdapter.load(folder, SHAPE)
    assert loaded.config == adapter.config
    assert torch.equal(loaded.prompt_kv, adapter.prompt_kv)
    assert torch.equal(loaded.mask_embeddings, adapter.mask_embeddings)
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_a_draft_vocabulary_comes_back(adapter: BitaAdapter, tmp_path: Path) -> None:
    config = replace(adapter.config, num_draft_tokens=36)
    tokens = torch.arange(4, 40)
    replace(adapter, config=config, draft_tokens=tokens).save(tmp_path)
    loaded = BitaAdapter.load(tmp_path, SHAPE)
    assert loaded.draft_tokens is not None
    assert torch.equal(loaded.draft_tokens, tokens)
    assert loaded.config.draft_share == 36 / SHAPE.vocab_size
    assert adapter.config.draft_share == 1.0


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        ([*range(1, 36), 35], "ascending"),
        ([1, 0, *range(2, 36)], "ascending"),
        ([-1, *range(35)], "ascending"),
        ([*range(35), 48], "below 48"),
        (list(range(35)), "shape"),
        ([float(token) for token in range(36)], "dtype F32"),
    ],
)
def test_a_draft_vocabulary_that_is_none_is_refused(
    adapter: BitaAdapter, tmp_path: Path, tokens: list[float], match: str
) -> None:
    config = replace(adapter.config, num_draft_tokens=36)
    replace(adapter, config=config, draft_tokens=torch.arange(36)).save(tmp_path)
    wrong = torch.tensor(tokens)
    wrong = wrong if wrong.is_floating_point() else wrong.int()
    edit_weights(tmp_path, lambda t: t.update(draft_tokens=wrong))
    with pytest.raises(AdapterFormatError, match=match):
        BitaAdapter.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(folder: Path, dtype: torch.dtype) -> None:
    edit_weights(folder, lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    assert BitaAdapter.load(folder).prompt_kv.dtype == torch.float32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "qwen2"),
        ("hidden_size", 64),
        ("num_layers", 3),
        ("num_kv_heads", 4),
        ("head_dim", 16),
        ("vocab_size", 49),
    ],
)
def test_another_base_is_refused_before_the_weights_are_opened(
    folder: Path, field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the weights were opened")

    monkeypatch.setattr(adapter_format, "safe_open", opened)
    with pytest.raises(AdapterMismatch, match=field):
        BitaAdapter.load(folder, replace(SHAPE, **{field: value}))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterFormatError, match=name):
        BitaAdapter.load(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.update(surprise=1), "surprise"),
        (lambda r: r.pop("num_masks"), "num_masks"),
        (lambda r: r.pop("profile"), "profile"),
        (lambda r: r.pop("format"), "format"),
        (lambda r: r.update(format="bita-2"), "format"),
        (lambda r: r.update(num_prompts=0), "num_prompts"),
        (lambda r: r.update(num_prompts=10**9), "num_prompts"),
        (lambda r: r.update(num_prompts="4"), "num_prompts"),
        (lambda r: r.update(num_masks=17), "num_masks"),
        (lambda r: r.update(num_draft_tokens=31), "num_draft_tokens"),
        (lambda r: r.update(num_draft_tokens=-40), "num_draft_tokens"),
        (lambda r: r.update(num_draft_tokens="40"), "num_draft_tokens"),
        (lambda r: r["profile"]["rates"].pop(), "profile"),
        (lambda r: r.update(num_masks=2), "3|depths"),
        (lambda r: r["profile"].update(extra=[]), "extra"),
        (lambda r: r["profile"]["rates"][0].append("much"), CONFIG),
        (lambda r: r["profile"]["rates"][0].append(2.0), "probabilities"),
        (lambda r: r.update(profile=[1]), CONFIG),
    ],
)
def test_a_config_that_is_not_ours_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    edit_config(folder, change)
    with pytest.raises(AdapterFormatError, match=match):
        BitaAdapter.load(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "open", "list", "null", "not-utf8", "deep"],
)
def test_a_config_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(AdapterFormatError):
        BitaAdapter.load(folder)


def test_a_config_too_large_is_refused_unread(folder: Path) -> None:
    (folder / CONFIG).write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(AdapterFormatError, match="larger"):
        BitaAdapter.load(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("prompt_kv"), "prompt_kv"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update(mask_embeddings=torch.zeros(MASKS, HIDDEN + 1)), "mask_embeddings"),
        (lambda t: t.update(prompt_kv=t["prompt_kv"].flatten()), "prompt_kv"),
        (lambda t: t.update(prompt_kv=t["prompt_kv"].to(torch.int32)), "prompt_kv.*I32"),
        (lambda t: t["prompt_kv"].view(-1).__setitem__(0, float("nan")), "prompt_kv.*finite"),
        (lambda t: t["mask_embeddings"].view(-1).__setitem__(0, float("inf")), "mask_emb.*finite"),
        (lambda t: t["prompt_kv"].view(-1).__setitem__(0, -1e5), "prompt_kv.*beyond 32768"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], match: str
) -> None:
    edit_weights(folder, change)
    with pytest.raises(AdapterFormatError, match=match):
        BitaAdapter.load(folder)


def lying(header: dict[str, Any], data: bytes = b"\0" * 64, size: int | None = None) -> bytes:
    """A safetensors file with this header, whose length is said to be `size`."""
    text = json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def span(start: int, end: int, shape: tuple[int, ...] = (4,)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


LIES = [
    lying({"prompt_kv": span(0, 16), "mask_embeddings": span(8, 24)}),  # they overlap
    lying({"prompt_kv": span(0, 1 << 40)}),  # it ends behind the file
    lying({"prompt_kv": span(16, 0)}),
    lying({"prompt_kv": span(-16, 0)}),
    lying({"prompt_kv": span(0, 64, (1 << 40,))}),  # a shape larger than its bytes
    lying({"prompt_kv": span(0, 64, (1 << 62, 1 << 62))}),  # and one whose product overflows
    lying({"prompt_kv": {"dtype": "I128", "shape": [4], "data_offsets": [0, 64]}}),
    lying({}, size=10 << 30),  # a header of 10 GiB
    lying({}, size=(1 << 64) - 1),
    lying({"__metadata__": {"a": 1}}),
    pickle.dumps({"prompt_kv": [0.0]}),
]


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"\xff" * 64, *LIES])
def test_weights_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(AdapterFormatError):
        BitaAdapter.load(folder)


def test_all_refusals_are_adapter_errors() -> None:
    assert issubclass(AdapterFormatError, AdapterError)
    assert issubclass(AdapterMismatch, AdapterError)
