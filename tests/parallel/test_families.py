"""Every family that transformers has a plan for, on two ranks, against `generate`."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from engine.parallel.plan import check_shardable
from tests import factories
from tests.parallel.conftest import Share

pytestmark = pytest.mark.slow

PLANNED = [family for family in factories.INTERFACE if family not in ("OPT", "GPT2")]


@pytest.mark.parametrize("family", [*PLANNED, "Phi", "Starcoder2", "SmolLM3", "Glm4"])
def test_greedy_tokens_are_those_of_generate(family: str, share: Share) -> None:
    model = factories.tiny_model(family, ranks=2)
    check_shardable(model.config, 2)
    loaded, build = share(model)
    adapter = factories.random_adapter(model)
    engine = factories.engine(loaded, {"bita": adapter}, build=build, max_num_batched_tokens=80)
    prompts = factories.prompts(4)
    tokens = factories.run(engine, factories.requests(prompts), [0, 0, 2, 5])
    assert tokens == {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}


@pytest.mark.parametrize("tied", [True, False])
def test_sizes_that_two_ranks_cannot_halve(tied: bool, share: Share) -> None:
    config = factories.tiny_config("Llama")
    config.vocab_size, config.intermediate_size = 129, 49
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    loaded, build = share(model)
    adapter = factories.random_adapter(model)
    engine = factories.engine(loaded, {"bita": adapter}, build=build)
    prompts = factories.prompts(2)
    tokens = factories.run(engine, factories.requests(prompts))
    assert tokens == {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
