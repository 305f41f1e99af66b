"""Whole engine steps of a random model: plain decoding against the paper's 52 rows."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from transformers import AutoModelForCausalLM, LlamaConfig

from adapters.format import AdapterConfig, BitaAdapter
from adapters.profile import HitProfile
from benchmarks.gpu.timing import copy_bandwidth, wait
from engine.attention.interface import NAME
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.build import build_runner
from engine.model.facts import model_facts
from engine.model.loaded import LoadedModel
from engine.model.runner import ModelRunner, Route
from engine.request import Request, SamplingParams

PROMPTS, MASKS = 16, 3


def random_llama(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """A Llama nobody trained; `LlamaConfig()` is Llama-2-7B."""
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME)
    model.requires_grad_(False).eval()
    facts = model_facts(config)
    return LoadedModel(model, facts, Route.INTERFACE, "LlamaForCausalLM", (), dtype, device)


def random_adapter(loaded: LoadedModel) -> BitaAdapter:
    """Its drafts are noise, so that every step has the same rows and emits one token."""
    facts = loaded.facts
    config = AdapterConfig(
        model_type="llama",
        hidden_size=facts.hidden_size,
        num_layers=facts.num_layers,
        num_kv_heads=facts.num_kv_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
        num_prompts=PROMPTS,
        num_masks=MASKS,
        profile=HitProfile(rates=[[0.1]] * MASKS, counts=[100] * MASKS),
        successor_rank=0,
    )
    shape = (facts.num_layers, 2, facts.num_kv_heads, PROMPTS, facts.head_dim)
    return BitaAdapter(config, torch.randn(shape), torch.randn(MASKS, facts.hidden_size))


def measure(loaded: LoadedModel, prompt: int, steps: int, copied: int) -> dict[str, Any]:
    """Milliseconds a step at batch 1 behind `prompt` tokens, and what the bars compare them with.

    copied: bytes the copy that gives the bandwidth moves one way. The bars are for the runner that
    is served.
    """
    config = EngineConfig(
        model="random",
        tree="comb",
        max_num_seqs=1,
        kv_cache_memory=1 << 31,
        max_model_len=2048,
        attention="triton" if loaded.device.type == "cuda" else "sdpa",
    )
    adapters = {"noise": random_adapter(loaded)}
    runs: dict[str, dict[str, Any]] = {}
    for name, kind in runners(loaded.device).items():
        engine = Engine(config, loaded, adapters, partial(build_runner, kind=kind))
        runs[name] = {"plain": _run(engine, prompt, steps, False)}
        runs[name]["comb"] = _run(engine, prompt, steps, True)
        runs[name]["recordings"] = getattr(engine.runner, "num_recordings", 0)
    served = list(runs.values())[-1]
    plain, comb = served["plain"], served["comb"]
    embedding = loaded.model.get_input_embeddings().weight
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    if loaded.model.get_output_embeddings().weight is not embedding:
        weights -= embedding.numel() * embedding.element_size()  # a row of it is read
    bandwidth = copy_bandwidth(loaded.device, copied)
    return {
        **runs,
        "weights_bytes": weights,
        "copy_bytes_per_second": bandwidth,
        "plain_over_weights": plain["step_ms"] / (1e3 * weights / bandwidth),
        "comb_over_plain": comb["step_ms"] / plain["step_ms"],
    }


def runners(device: torch.device) -> dict[str, type[ModelRunner]]:
    """What is compared, the one that is served last."""
    kinds = {"eager": ModelRunner}
    if device.type == "cuda":
        from engine.model.graphs import GraphedRunner

        kinds["graphs"] = GraphedRunner
    return kinds


def _run(engine: Engine, prompt: int, steps: int, speculation: bool) -> dict[str, Any]:
    """Decode one sequence twice, first to compile; then a few steps under the profiler."""
    _decode(engine, prompt, 4, speculation)
    before = dict(engine.stats().step_seconds)
    times = _decode(engine, prompt, steps, speculation)
    phases = {
        phase: round(1e3 * (total - before[phase]) / len(times), 3)
        for phase, total in engine.stats().step_seconds.items()
    }
    result: dict[str, Any] = {"step_ms": 1e3 * statistics.median(times[2:]), "phase_ms": phases}
    # The forward's phase is its launches, verification's the wait for them.
    waits = ("forward", "verify")
    result["host_ms"] = round(sum(ms for name, ms in phases.items() if name not in waits), 3)
    if engine.loaded.device.type == "cuda":
        result["device_ms"] = _device_ms(engine, prompt, speculation)
    return result


def _decode(engine: Engine, prompt: int, tokens: int, speculation: bool) -> list[float]:
    """Seconds of every step of a fresh prompt, its prefill the first."""
    ids = torch.randint(engine.loaded.facts.vocab_size, (prompt,)).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    engine.add(Request("random", ids, params, speculation=speculation))
    times = []
    while engine.has_work:
        started = time.perf_counter()
        engine.step()
        wait(engine.loaded.device)
        times.append(time.perf_counter() - started)
    return times


def _device_ms(engine: Engine, prompt: int, speculation: bool) -> float:
    """What the kernels of a decoding step take, launches and gaps left out."""
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    ids = torch.randint(engine.loaded.facts.vocab_size, (prompt,)).tolist()
    engine.add(Request("random", ids, params, speculation=speculation))
    engine.step()
    steps = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        while engine.has_work:
            engine.step()
            steps += 1
        wait(engine.loaded.device)
    kernels = [e for e in profile.key_averages() if e.device_type == DeviceType.CUDA]
    return round(sum(e.self_device_time_total for e in kernels) / 1e3 / steps, 3)
