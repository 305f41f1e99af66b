"""What is loaded, by which route, and the sentence with which everything else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from engine import load
from engine.attention.interface import NAME
from engine.config import EngineConfig
from engine.errors import EngineError, UnsupportedModel
from engine.model import loader, selftest
from engine.model.facts import UNBOUNDED, model_facts
from engine.model.loader import fingerprint, load_model, pick_device, pick_dtype
from engine.model.runner import Route
from engine.model.selftest import pick_route
from tests import factories

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as it lies on a disk."""
    folder = tmp_path_factory.mktemp("llama")
    factories.tiny_model("Llama").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    return shutil.copytree(saved, tmp_path / "model")


def configured(folder: Path, model_type: str, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    return folder


@pytest.mark.parametrize("model_type", ["mamba", "mamba2", "rwkv", "recurrent_gemma"])
def test_recurrent_models_are_refused(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=f"{model_type} has recurrent or hybrid layers"):
        load_model(configured(tmp_path, model_type))


@pytest.mark.parametrize("model_type", ["jamba", "qwen3_next", "bamba", "falcon_h1", "zamba"])
def test_models_with_some_recurrent_layers_are_refused(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="a draft tree would need a copy of it a branch"):
        load_model(configured(tmp_path, model_type))


def test_one_convolution_among_attention_layers_is_enough(tmp_path: Path) -> None:
    layers = {"num_hidden_layers": 2, "layer_types": ["full_attention", "conv"]}
    with pytest.raises(UnsupportedModel, match=r"lfm2 has recurrent or hybrid layers \(conv\)"):
        load_model(configured(tmp_path, "lfm2", **layers))


@pytest.mark.parametrize(
    ("model_type", "config"), [("bloom", {}), ("mpt", {}), ("falcon", {"alibi": True})]
)
def test_attention_biased_by_the_column_is_refused(
    model_type: str, config: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=f"{model_type} biases attention .* \\(alibi\\)"):
        load_model(configured(tmp_path, model_type, **config))


def test_attention_masked_by_the_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="gpt_neo masks by column index"):
        load_model(configured(tmp_path, "gpt_neo"))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_type(folder: Path) -> None:
    configured(folder, "nonsense")


def no_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def wrong_size(folder: Path) -> None:
    configured(folder, "llama", hidden_size="wide")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lost_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def misshapen_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (no_config, "has no config.json: not a Hugging Face model folder"),
        (broken_config, "cannot be loaded: .*not a valid JSON file"),
        (unknown_type, "cannot be loaded: .*model type `nonsense`"),
        (no_type, "cannot be loaded: .*model_type"),
        (wrong_size, "cannot be loaded: .*hidden_size"),
        (no_weights, "cannot be loaded: .*model.safetensors"),
        (cut_weights, "cannot be loaded: .*incomplete"),
        (lost_weight, "lacks 1 weights, the first model.layers.1.mlp.up_proj.weight"),
        (misshapen_weight, "cannot be loaded: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_folder_is_named_with_what_is_wrong_in_one_line(
    damage: Callable[[Path], None], sentence: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(UnsupportedModel, match=sentence) as refused:
        load_model(folder, "cpu", "float32")
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"nowhere has no config\.json"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["int8", "fp16", "", "torch.float32"])
def test_a_wrong_dtype_is_refused_with_the_right_ones(name: str, saved: Path) -> None:
    with pytest.raises(UnsupportedModel, match="dtype must be auto or one of float32, bfloat16"):
        load_model(saved, dtype=name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "meta", "cpu:0"])
def test_a_wrong_device_is_refused_with_the_right_ones(name: str, saved: Path) -> None:
    with pytest.raises(EngineError, match="device must be auto, cpu, cuda or cuda:N"):
        load_model(saved, device=name)


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_device_that_is_not_there_is_refused(
    gpus: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(EngineError, match=f"device {name} is not there: torch sees {gpus} GPUs"):
        pick_device(name)


def test_devices_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == CPU


@pytest.mark.parametrize("native", [True, False])
def test_the_dtype_is_what_the_device_multiplies_fastest(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instructions in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, instructions, lambda: native)
    assert pick_dtype("auto", CPU) is (torch.bfloat16 if native else torch.float32)
    assert pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert pick_dtype("float16", CPU) is torch.float16


@pytest.mark.parametrize(
    ("architecture", "route"),
    [("Llama", Route.INTERFACE), ("GPT2", Route.INTERFACE), ("Falcon", Route.MASK)],
)
def test_the_self_test_finds_the_route(architecture: str, route: Route) -> None:
    assert pick_route(factories.tiny_config(architecture)) is route


def test_the_first_exact_route_is_taken_and_no_other_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Route] = []

    def exact(tiny: Any, route: Route) -> bool:
        tried.append(route)
        return route is Route.MASK

    monkeypatch.setattr(selftest, "serves_exactly", exact)
    assert pick_route(factories.tiny_config("Llama")) is Route.MASK
    assert tried == [Route.INTERFACE, Route.MASK]
    monkeypatch.setattr(selftest, "serves_exactly", lambda tiny, route: not tried.append(route))
    assert pick_route(factories.tiny_config("Llama")) is Route.INTERFACE
    assert tried[2:] == [Route.INTERFACE]


def test_a_model_that_no_route_serves_exactly_is_refused_with_what_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(tiny: Any, route: Route) -> bool:
        if route is Route.MASK:
            raise TypeError("no such argument")
        return False

    monkeypatch.setattr(selftest, "serves_exactly", fails)
    with pytest.raises(UnsupportedModel) as refused:
        pick_route(factories.tiny_config("Llama"))
    assert str(refused.value) == (
        "llama cannot be served exactly by this engine (interface: other tokens than generate; "
        "mask: TypeError: no such argument)"
    )


def test_the_self_test_notices_attention_that_is_not_ours_to_replace() -> None:
    """An encoder sees what comes after a token as well."""
    with pytest.raises(UnsupportedModel, match="interface: other tokens than generate"):
        pick_route(BertConfig(is_decoder=False))


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": 5}, 7, (5,)),
        ({"eos_token_id": [5, 6]}, 7, (5, 6)),
        ({"bos_token_id": 1}, 7, (7,)),
        (None, 7, (7,)),
        (None, [7, 8], (7, 8)),
        (None, None, ()),
    ],
)
def test_the_end_is_what_the_generation_configuration_says_or_else_the_models(
    generation: dict[str, Any] | None,
    config: int | list[int] | None,
    expected: tuple[int, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "pick_route", lambda _: Route.INTERFACE)
    model = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**model, "eos_token_id": config}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert load_model(folder, "cpu", "float32").eos_token_ids == expected


def test_a_loaded_model_is_frozen_and_runs_our_attention(saved: Path) -> None:
    loaded = load_model(saved, "cpu", "float32")
    assert (loaded.route, loaded.architecture) == (Route.INTERFACE, "LlamaForCausalLM")
    assert (loaded.dtype, loaded.device) == (torch.float32, CPU)
    assert loaded.model.config._attn_implementation == NAME
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_model_that_is_not_packed_keeps_its_weights(saved: Path) -> None:
    loaded = load_model(saved, "cpu", "float32", trained=True)
    original = load_file(saved / "model.safetensors")
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, original[name]), "the layout changes no value"


def test_the_facts_are_those_of_the_cache() -> None:
    facts = model_facts(factories.tiny_config("Llama"))
    assert (facts.num_layers, facts.num_kv_heads, facts.head_dim) == (2, 2, 16)
    assert (facts.hidden_size, facts.vocab_size, facts.max_positions) == (64, 128, 256)
    bare = {"model_type": "x", "num_hidden_layers": 3, "num_attention_heads": 4}
    facts = model_facts(SimpleNamespace(**bare, hidden_size=32, vocab_size=9))
    assert (facts.num_kv_heads, facts.head_dim, facts.max_positions) == (4, 8, UNBOUNDED)


def test_a_fingerprint_changes_with_the_weights_and_with_nothing_else(folder: Path) -> None:
    before = fingerprint(folder, "float32", "1.0")
    (folder / "README.md").write_text("a note")
    assert fingerprint(folder, "float32", "1.0") == before
    assert fingerprint(folder, "bfloat16", "1.0") != before
    lost_weight(folder)
    assert fingerprint(folder, "float32", "1.0") != before


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_that_will_be_compiled_is_loaded_for_it(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", lambda *_, compiled, native: compiled)
    loaded, _ = load._load_model(EngineConfig(model="any", compile=compiled))
    assert loaded is compiled  # type: ignore[comparison-overlap]
