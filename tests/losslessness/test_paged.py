"""The engine over the Triton kernels says what `generate` says, whatever is drafted."""

import pytest
import torch

pytest.importorskip("triton")
from engine.attention import paged
from tests import factories
from tests.oracle import OracleEngine


@pytest.mark.skipif(torch.cuda.is_available(), reason="interprets; see benchmarks/gpu for a GPU")
@pytest.mark.parametrize("architecture", ["Gemma2", "Llama"])
def test_greedy_output_is_that_of_generate(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill beside trees, accepted paths committed, in Triton's interpreter: few tokens, slowly.

    Gemma 2 has windows and soft-capping, Llama here two query heads a KV head.
    """
    monkeypatch.setattr(paged, "JOINED", 256)  # the interpreter's time goes by programs
    model = factories.tiny_model(architecture)
    prompts = factories.prompts(2, longest=12)
    expected = [factories.generate(model, prompt, 6) for prompt in prompts]
    adapters = {"bita": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, architecture), adapters)
    engine.runner.backend = paged.PagedStep
    OracleEngine({str(i): tokens for i, tokens in enumerate(expected)}, 0.7).patch(engine)
    got = factories.run(engine, factories.requests(prompts, max_tokens=6), [0, 1])
    assert list(got.values()) == expected
    assert engine.stats().speculation.num_accepted_tokens > 0
