"""What ranks cannot share is refused by name, before a weight is read or a process started."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from engine import EngineClient, EngineConfig
from engine.errors import EngineError, UnsupportedModel
from engine.load import load_engine
from engine.parallel import leader
from engine.parallel.plan import check_shardable, kv_heads_of, pick_devices
from tests.factories import tiny_config


def config(**changes: Any) -> EngineConfig:
    return EngineConfig(**{"model": "", "tensor_parallel_size": 2, **changes})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize("family", ["OPT", "GPT2", "Falcon", "GPTJ"])
def test_families_without_a_plan(family: str) -> None:
    kind = tiny_config(family).model_type
    with pytest.raises(UnsupportedModel, match=f"{kind} .* no tensor parallel plan"):
        check_shardable(tiny_config(family), 2)


def test_kv_heads_that_cannot_be_shared_evenly() -> None:
    llama = tiny_config("Llama")
    check_shardable(llama, 2)
    with pytest.raises(UnsupportedModel, match="2 KV heads cannot be shared evenly by 4 ranks"):
        check_shardable(llama, 4)


def test_quantised_weights() -> None:
    llama = tiny_config("Llama")
    llama.quantization_config = {"quant_method": "awq"}
    with pytest.raises(UnsupportedModel, match="quantised"):
        check_shardable(llama, 2)


def test_ranks_have_a_range_of_heads_each_or_all_where_the_plan_gathers_them() -> None:
    llama = transformers.LlamaConfig(num_attention_heads=16, num_key_value_heads=8)
    assert [kv_heads_of(llama, rank, 4) for rank in range(4)] == [
        range(0, 2),
        range(2, 4),
        range(4, 6),
        range(6, 8),
    ]
    olmo = tiny_config("Olmo2")
    assert kv_heads_of(olmo, 1, 2) == range(olmo.num_key_value_heads)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "engine.parallel.plan.find_spec", lambda name: None if name == "accelerate" else real(name)
    )
    with pytest.raises(EngineError, match=r"accelerate: pip install 'bita-serve\[parallel\]'"):
        check_shardable(tiny_config("Llama"), 2)


def test_a_transformers_without_plans_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "transformers.distributed.tensor_parallel"
    monkeypatch.setitem(__import__("sys").modules, name, ModuleType(name))
    with pytest.raises(EngineError, match=r"newer transformers: pip .*\[parallel\]"):
        check_shardable(tiny_config("Llama"), 2)


def test_a_model_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        pytest.fail("a worker was started")

    monkeypatch.setattr(leader, "Workers", start)
    tiny_config("GPT2").save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="no tensor parallel plan"):
        load_engine(config(model=str(tmp_path), device="cpu"))


@pytest.mark.usefixtures("gpus")
def test_every_rank_has_a_gpu_of_its_own() -> None:
    assert [str(d) for d in pick_devices(config(device="auto"))] == ["cuda:0", "cuda:1"]
    with pytest.raises(EngineError, match="4 ranks take a GPU each, and torch sees 3"):
        pick_devices(config(tensor_parallel_size=4))
    with pytest.raises(EngineError, match="cuda:1 is one device"):
        pick_devices(config(device="cuda:1"))
    with pytest.raises(EngineError, match="CUDA_VISIBLE_DEVICES=''"):
        pick_devices(config(device="cpu"))


def test_settings_that_ranks_cannot_share() -> None:
    with pytest.raises(EngineError, match="cannot be compiled"):
        config(compile=True)
    with pytest.raises(EngineError, match="cannot be deterministic"):
        config(deterministic=True)
    with pytest.raises(EngineError, match="tensor_parallel_size must be at least 1"):
        config(tensor_parallel_size=0)
    with pytest.raises(EngineError, match="process of its own"):
        EngineClient(config(), in_process=True)
