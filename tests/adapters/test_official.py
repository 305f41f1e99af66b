"""Checkpoints of the official code: taken over exactly, or refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.errors import AdapterError, AdapterFormatError, AdapterMismatch
from adapters.format import BitaAdapter
from adapters.official import export_tensors, import_checkpoint
from adapters.profile import HitProfile, prior
from adapters.successor import Successor
from adapters.tuning.layout import Sample, mask_groups
from adapters.tuning.target import TargetModel
from engine.engine import Engine
from engine.speculation.bita import DraftHead
from tests import factories
from tests.adapters import official
from tests.adapters.official import HEADS, MASKS, MASKS_NAME, PREFIX_NAME, PROMPTS

TEXT = [7, 3, 30, 11, 42, 5, 19, 2, 2, 28, 40]


def save(tensors: dict[str, Tensor], folder: Path, **config: Any) -> Path:
    """A checkpoint folder of one safetensors file."""
    folder.mkdir(exist_ok=True)
    copies = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(copies, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def take(folder: Path, kv_heads: int = HEADS) -> BitaAdapter:
    return import_checkpoint(folder, official.shape(kv_heads), HEADS)


def engine_logits(model: Any, adapter: BitaAdapter) -> Tensor:
    """What the engine drafts from behind TEXT."""
    engine: Engine = factories.engine(factories.load(model, "Llama"), {"a": adapter})
    drafted: list[Tensor] = []
    project = engine.runner.project

    def keep(hidden: Tensor) -> Tensor:
        drafted.append(project(hidden).clone())
        return drafted[-1]

    engine.adapters["a"].head = DraftHead(keep)
    factories.run(engine, factories.requests([TEXT], max_tokens=2))
    return torch.cat(drafted[:MASKS])  # a level a call


@torch.no_grad()
def tuning_logits(model: Any, adapter: BitaAdapter) -> Tensor:
    """The same rows as tuning sees them."""
    target = TargetModel(model)
    sample = Sample([*TEXT, 0, 0], [(len(TEXT), len(TEXT) + 2)])
    groups = mask_groups([sample], [[len(TEXT)]], MASKS)
    context = target.context(torch.tensor([sample.token_ids]))
    rows = adapter.mask_embeddings[None]
    hidden = target.masks(context, rows, groups.positions, groups.visible, adapter.prompt_kv)
    return target.project(hidden)[0]


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_mask_logits_are_those_of_the_official_layout(tmp_path: Path, kv_heads: int) -> None:
    model = official.llama(kv_heads)
    tensors = official.checkpoint(model, kv_heads)
    expected = official.mask_logits(model, tensors, TEXT)
    adapter = take(save(tensors, tmp_path), kv_heads)
    without = replace(adapter, prompt_kv=torch.zeros_like(adapter.prompt_kv))
    assert not torch.allclose(tuning_logits(model, without), expected, atol=1e-2)
    assert torch.allclose(tuning_logits(model, adapter), expected, atol=1e-4)
    assert torch.allclose(engine_logits(model, adapter), expected, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_heads_of_a_group_that_differ_are_refused(tmp_path: Path, kv_heads: int) -> None:
    tensors = official.checkpoint(official.llama(kv_heads))
    with pytest.raises(AdapterError, match=r"share a K/V head.* differ .*no exact counterpart"):
        take(save(tensors, tmp_path), kv_heads)


def shards(tensors: dict[str, Tensor], folder: Path, kind: str) -> None:
    """Two files with an index, prefix and masks apart."""
    names = list(tensors)
    half = len(names) // 2
    halves = [[*names[:half], MASKS_NAME], [*names[half:-2], PREFIX_NAME]]
    stem = "model" if kind == "safetensors" else "pytorch_model"
    where = {}
    for i, kept in enumerate(halves, 1):
        file = f"{stem}-{i:05}-of-00002.{kind}"
        part = {name: tensors[name].clone() for name in kept}
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
        where |= dict.fromkeys(kept, file)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": where}))


FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "safetensors": save,
    "bin": lambda t, f: torch.save(t, f / "pytorch_model.bin"),
    "pt": lambda t, f: torch.save(t, f / "model.pt"),
    "legacy bin": lambda t, f: torch.save(
        t, f / "pytorch_model.bin", _use_new_zipfile_serialization=False
    ),
    "safetensors in shards": lambda t, f: shards(t, f, "safetensors"),
    "bin in shards": lambda t, f: shards(t, f, "bin"),
    "trained tensors alone": lambda t, f: save({n: t[n] for n in (PREFIX_NAME, MASKS_NAME)}, f),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_checkpoint_gives_the_same_adapter(tmp_path: Path, form: str) -> None:
    tensors = official.checkpoint(official.llama())
    FORMS[form](tensors, tmp_path)
    # What the Trainer leaves beside the weights is not looked into.
    for name in ("training_args.bin", "optimizer.pt"):
        (tmp_path / name).write_bytes(b"not read")
    adapter = take(tmp_path)
    prefix = tensors[PREFIX_NAME].view(PROMPTS, official.LAYERS, 2, HEADS, official.HEAD_DIM)
    assert torch.equal(adapter.prompt_kv, prefix.permute(1, 2, 3, 0, 4))
    assert torch.equal(adapter.mask_embeddings, tensors[MASKS_NAME])
    assert adapter.config.num_prompts == PROMPTS
    assert adapter.config.num_masks == MASKS
    files = [f for f in tmp_path.iterdir() if f.name.endswith(("model.safetensors", "model.bin"))]
    for file in files:
        assert torch.equal(take(file).prompt_kv, adapter.prompt_kv)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    tensors = {n: t.bfloat16() for n, t in official.trained().items()}
    adapter = take(save(tensors, tmp_path))
    assert adapter.prompt_kv.dtype == adapter.mask_embeddings.dtype == torch.float32
    assert torch.equal(adapter.mask_embeddings, tensors[MASKS_NAME].float())


def test_an_imported_adapter_is_saved_and_loaded_with_a_prior(tmp_path: Path) -> None:
    adapter = take(save(official.trained(), tmp_path / "in"))
    adapter.save(tmp_path / "out")
    loaded = BitaAdapter.load(tmp_path / "out", official.shape())
    assert loaded.config == adapter.config
    assert loaded.config.profile == prior(MASKS)
    assert not loaded.config.profile.measured


def test_the_prior_reaches_any_depth_and_says_that_nobody_counted() -> None:
    for masks in (1, 3, 4, 16):
        profile = prior(masks)
        assert len(profile.rates) == masks
        assert not profile.measured
    assert HitProfile([[0.5]], [1]).measured


def test_the_projected_prefix_is_computed(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    width = 2 * official.LAYERS * official.HIDDEN
    rows, inner, outer = (
        random(PROMPTS, official.HIDDEN),
        random(6, official.HIDDEN),
        random(width, 6),
    )
    biases = random(6), random(width)
    tensors = {
        **official.trained(),
        PREFIX_NAME: rows,
        "model.prefix_encoder.trans.0.weight": inner,
        "model.prefix_encoder.trans.0.bias": biases[0],
        "model.prefix_encoder.trans.2.weight": outer,
        "model.prefix_encoder.trans.2.bias": biases[1],
    }
    net = torch.nn.Sequential(
        torch.nn.Linear(official.HIDDEN, 6), torch.nn.Tanh(), torch.nn.Linear(6, width)
    )
    net.load_state_dict(
        {"0.weight": inner, "0.bias": biases[0], "2.weight": outer, "2.bias": biases[1]}
    )
    plain = {**official.trained(), PREFIX_NAME: net(rows).detach()}
    expected = take(save(plain, tmp_path / "plain")).prompt_kv
    assert torch.allclose(take(save(tensors, tmp_path / "net")).prompt_kv, expected, atol=1e-6)
    del tensors["model.prefix_encoder.trans.2.bias"]
    with pytest.raises(AdapterFormatError, match="trans is not whole"):
        take(save(tensors, tmp_path / "half"))


def test_a_mask_that_all_depths_share_is_repeated(tmp_path: Path) -> None:
    tensors = official.trained()
    tensors[MASKS_NAME] = tensors[MASKS_NAME][:1]
    adapter = take(save(tensors, tmp_path, mask_num=4, mask_diff=False))
    assert torch.equal(adapter.mask_embeddings, tensors[MASKS_NAME].expand(4, -1))
    assert adapter.config.num_masks == 4


def test_what_a_user_should_know_is_noted(tmp_path: Path) -> None:
    folder = save(official.trained(), tmp_path, rope_theta=500000.0)
    assert "rope_theta (500000.0)" in take(folder).config.tuning["notes"][0]
    assert take(save(official.trained(), tmp_path, rope_theta=10000.0)).config.tuning["notes"] == []


def edited(**changes: Tensor | None) -> dict[str, Tensor]:
    """What was trained, with `prefix` or `masks` replaced or left out."""
    tensors: dict[str, Any] = official.trained()
    for name, value in changes.items():
        tensors[{"prefix": PREFIX_NAME, "masks": MASKS_NAME}[name]] = value
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


NAN = torch.full((MASKS, official.HIDDEN), float("nan"))


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        (edited(prefix=None), "holds no prefix_encoder"),
        (edited(masks=None), "holds no mask_tokens"),
        (edited(masks=NAN), r"mask_tokens.*not finite"),
        (edited(masks=torch.zeros(MASKS, official.HIDDEN, dtype=torch.int32)), "no plain tensor"),
        (edited(prefix=torch.zeros(PROMPTS)), r"shape \(5,\)"),
        (edited(masks=torch.zeros(17, official.HIDDEN)), "1 to 16 rows"),
        (edited(prefix=torch.zeros(0, 128)), "1 to 1024 rows"),
        ({**official.trained(), "second." + MASKS_NAME: torch.zeros(1)}, "more than once"),
    ],
)
def test_tensors_that_are_not_of_the_layout_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], match: str
) -> None:
    with pytest.raises(AdapterFormatError, match=match) as error:
        take(save(tensors, tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (edited(prefix=torch.zeros(PROMPTS, 64)), {}),
        (edited(masks=torch.zeros(MASKS, 16)), {}),
        (official.trained(), {"vocab_size": 49}),
        (official.trained(), {"model_type": "falcon"}),
        (official.trained(), {"num_hidden_layers": 3}),
    ],
)
def test_another_base_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, Any]
) -> None:
    with pytest.raises(AdapterMismatch):
        take(save(tensors, tmp_path, **config))


def test_bases_the_official_code_does_not_run_are_refused(tmp_path: Path) -> None:
    folder = save(official.trained(), tmp_path)
    with pytest.raises(AdapterError, match="none of qwen2"):
        import_checkpoint(folder, replace(official.shape(), model_type="qwen2"), HEADS)
    with pytest.raises(AdapterError, match="8 heads of 8 do not make up"):
        import_checkpoint(folder, official.shape(), 8)


class Evil:
    """Pickles into a call."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("called",)


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**official.trained(), "evil": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(AdapterFormatError, match="never run"):
        take(tmp_path)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_truncated_files_are_refused_by_name(tmp_path: Path, name: str, keep: float) -> None:
    tensors = official.checkpoint(official.llama())
    file = tmp_path / name
    save(tensors, tmp_path) if name.endswith("safetensors") else torch.save(tensors, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(AdapterFormatError, match=f"{name} is damaged"):
        take(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "no tensors by name"),
        ({PREFIX_NAME: [1.0], MASKS_NAME: torch.zeros(1, 32)}, "not as tensors"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: Any, match: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(AdapterFormatError, match=match):
        take(tmp_path)


def test_places_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match="no file or folder"):
        take(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AdapterFormatError, match="is none of"):
        take(tmp_path / "notes.txt")
    with pytest.raises(AdapterFormatError, match="holds no weights"):
        take(tmp_path)
    save(official.trained(), tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AdapterFormatError, match=r"config\.json"):
        take(tmp_path)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ("{", "no index"),
        ("[]", "no index"),
        ({PREFIX_NAME: "../model.safetensors"}, "no weights file beside it"),
        ({PREFIX_NAME: "gone.safetensors"}, "is missing"),
        ({MASKS_NAME: "model.safetensors"}, "holds no prefix"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(tmp_path: Path, index: Any, match: str) -> None:
    save({MASKS_NAME: official.trained()[MASKS_NAME]}, tmp_path)
    text = index if isinstance(index, str) else json.dumps({"weight_map": index})
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(AdapterFormatError, match=match):
        take(tmp_path)


@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_export_and_import_give_the_adapter_back(tmp_path: Path, kv_heads: int) -> None:
    adapter = take(save(official.trained(kv_heads), tmp_path), kv_heads)
    file = tmp_path / "official.safetensors"
    save_file(export_tensors(adapter), file)
    assert load_file(file).keys() == {PREFIX_NAME, MASKS_NAME}
    again = take(file, kv_heads)
    assert torch.equal(again.prompt_kv, adapter.prompt_kv)
    assert torch.equal(again.mask_embeddings, adapter.mask_embeddings)


def test_import_and_export_give_the_checkpoint_back(tmp_path: Path) -> None:
    tensors = official.trained()
    exported = export_tensors(take(save(tensors, tmp_path)))
    assert all(torch.equal(exported[name], tensor) for name, tensor in tensors.items())


def test_falcon_has_names_of_its_own(tmp_path: Path) -> None:
    shape = replace(official.shape(), model_type="falcon")
    prefix, masks = official.trained().values()
    names = "transformer.prefix_encoder.embedding.weight", "transformer.mask_embeddings.weight"
    tensors = dict(zip(names, (prefix, masks), strict=True))
    adapter = import_checkpoint(save(tensors, tmp_path), shape, HEADS)
    assert "mask embeddings" in adapter.config.tuning["notes"][0]
    exported = export_tensors(adapter)
    assert exported.keys() == set(names)
    assert torch.equal(exported[names[0]], prefix)


def test_bases_without_an_official_layout_are_not_exported(tmp_path: Path) -> None:
    adapter = take(save(official.trained(), tmp_path))
    for change in ({"model_type": "qwen2"}, {"hidden_size": 36}, {"num_kv_heads": 3}):
        config = replace(adapter.config, **change)
        with pytest.raises(AdapterError, match="official code"):
            export_tensors(replace(adapter, config=config))


def test_the_successor_head_is_not_exported(tmp_path: Path) -> None:
    adapter = take(save(official.trained(), tmp_path))
    shapes = Successor.shapes(8, MASKS, 2).items()
    head = Successor(**{name: torch.zeros(shape) for name, shape in shapes})
    assert export_tensors(replace(adapter, successor=head)).keys() == {PREFIX_NAME, MASKS_NAME}
