"""Every family that is tuned: it learns, and its drafts change no token."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import OPTForCausalLM

from adapters.format import AdapterConfig, BitaAdapter
from adapters.profile import prior
from adapters.tuning.layout import IGNORE, Sample
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import Contexts, Tuner, run_groups
from engine.attention.interface import NAME as SERVING
from engine.load import base_shape
from tests import factories

FAMILIES = [name for name in factories.INTERFACE if name != "Llama4Text"]
ANSWER = 16
RECIPE = TuningRecipe(
    num_prompts=4, num_masks=3, steps=8, conversations=4, groups=6, ranks=5, successor_rank=4
)


def answered(model: Any) -> tuple[list[Sample], Any]:
    """The model's own answers to four prompts, by the engine, and the model as it was loaded."""
    loaded = factories.load(model, type(model).__name__.removesuffix("ForCausalLM"))
    prompts = factories.prompts(4, longest=20)
    engine = factories.engine(loaded)
    answers = factories.run(engine, factories.requests(prompts, max_tokens=ANSWER))
    samples = [
        Sample(p + answers[str(i)], [(len(p), len(p) + ANSWER)]) for i, p in enumerate(prompts)
    ]
    return samples, loaded


@torch.no_grad()
def loss_of(tuner: Tuner) -> float:
    """Cross-entropy at all anchors of all samples, without dropout."""
    logits, labels = run_groups(
        tuner.target,
        tuner.samples,
        [s.anchors() for s in tuner.samples],
        tuner.prompt_kv,
        tuner.mask_embeddings,
        Contexts(tuner.target, 0),
        tuner.successor,
    )
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    return float(loss)


def adapter_of(tuner: Tuner, loaded: Any) -> BitaAdapter:
    config = AdapterConfig(
        **asdict(base_shape(loaded)),
        num_prompts=RECIPE.num_prompts,
        num_masks=RECIPE.num_masks,
        profile=prior(RECIPE.num_masks),
        successor_rank=RECIPE.successor_rank,
    )
    return BitaAdapter(
        config, tuner.prompt_kv.detach(), tuner.mask_embeddings.detach(), tuner.successor
    )


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_few_steps_lower_the_loss_and_the_drafts_change_no_token(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    samples, loaded = answered(model)
    tuner = Tuner(TargetModel(model), base_shape(loaded), RECIPE, samples)
    untrained = loss_of(tuner)
    for _ in range(RECIPE.steps):
        tuner.step()
    assert loss_of(tuner) < untrained - 0.01
    model.set_attn_implementation(SERVING)
    engine = factories.engine(loaded, {"tuned": adapter_of(tuner, loaded)})
    starts = [s.spans[0][0] for s in samples]
    prompts = [s.token_ids[:start] for s, start in zip(samples, starts, strict=True)]
    served = factories.run(engine, factories.requests(prompts, max_tokens=ANSWER))
    for i, (sample, start) in enumerate(zip(samples, starts, strict=True)):
        assert served[str(i)] == sample.token_ids[start:]
    assert engine.stats().speculation.num_draft_tokens > 0


def test_an_embedding_narrower_than_the_layers_is_the_width_of_an_adapter() -> None:
    """The smallest OPT projects its embeddings up, and its final states down again."""
    config = factories.tiny_config("OPT")
    config.word_embed_proj_dim, config.do_layer_norm_before = config.hidden_size // 2, False
    torch.manual_seed(0)
    model = OPTForCausalLM(config).eval().requires_grad_(False)
    samples, loaded = answered(model)
    tuner = Tuner(TargetModel(model), base_shape(loaded), RECIPE, samples)
    tuner.step()
    assert tuner.mask_embeddings.shape[1] == config.hidden_size // 2
    model.set_attn_implementation(SERVING)
    engine = factories.engine(loaded, {"tuned": adapter_of(tuner, loaded)})
    factories.run(engine, factories.requests(factories.prompts(2)))


def test_a_trunk_in_16_bit_learns_with_trainables_in_32() -> None:
    model = factories.tiny_model("Qwen2").bfloat16()
    loaded = replace(factories.load(model, "Qwen2"), dtype=torch.bfloat16)
    samples = [Sample(p, [(1, len(p))]) for p in factories.prompts(6, longest=20)]
    tuner = Tuner(TargetModel(model), base_shape(loaded), RECIPE, samples)
    untrained = loss_of(tuner)
    for _ in range(RECIPE.steps):
        tuner.step()
    assert loss_of(tuner) < untrained - 0.01
    assert {p.dtype for p in tuner.parameters} == {torch.float32}
