"""Sampling under the tree: the same tokens as seeded plain decoding, the same law."""

import dataclasses
from collections import Counter

import pytest
import torch

from engine.request import SamplingParams
from tests import factories
from tests.oracle import OracleEngine

PARAMS = {
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 1.0, "top_p": 0.7},
    "top_k": {"temperature": 1.2, "top_k": 5},
    "min_p": {"temperature": 1.0, "min_p": 0.1},
    "penalties": {
        "temperature": 0.9,
        "presence_penalty": 0.7,
        "frequency_penalty": 0.4,
        "repetition_penalty": 1.2,
    },
    "bias": {"temperature": 0.7, "logit_bias": {3: 4.0, 7: -100.0}},
    "greedy with penalties": {"temperature": 0.0, "frequency_penalty": 1.0},
}


@pytest.fixture(scope="module")
def model() -> object:
    return factories.tiny_model("Llama")


@pytest.mark.parametrize("name", PARAMS)
def test_a_seed_gives_the_tokens_of_plain_decoding(model, name) -> None:  # type: ignore[no-untyped-def]
    loaded = factories.load(model, "Llama")
    prompts = factories.prompts(6, seed=3)
    sampling = {"seed": 5, "logprobs": 2, **PARAMS[name]}
    plain = factories.run_outputs(
        factories.engine(loaded), factories.requests(prompts, speculation=False, **sampling)
    )
    expected = {n: [t for o in outs for t in o.token_ids] for n, outs in plain.items()}
    fast = factories.engine(loaded, {"a": factories.random_adapter(model)})
    OracleEngine(expected, right=0.7).patch(fast)
    drafted = factories.run_outputs(fast, factories.requests(prompts, **sampling))
    assert {n: [t for o in outs for t in o.token_ids] for n, outs in drafted.items()} == expected
    assert fast.stats().speculation.num_accepted_tokens > 12
    for request in plain:
        one, other = ([p for o in outs[request] for p in o.logprobs] for outs in (plain, drafted))
        assert [p.token_id for p in one] == [p.token_id for p in other]
        assert torch.allclose(
            torch.tensor([p.logprob for p in one]),
            torch.tensor([p.logprob for p in other]),
            atol=1e-4,
        )


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
def test_drafts_know_the_noise_that_will_choose(temperature) -> None:  # type: ignore[no-untyped-def]
    """All tokens are equally likely, so that noise alone decides, and every draft is right."""
    model = factories.tiny_model("Llama")
    model.model.norm.weight.zero_()
    adapter = factories.random_adapter(model, rank=0)
    prompts = factories.prompts(3, seed=3)
    requests = factories.requests(prompts, max_tokens=17, temperature=temperature, seed=5)
    loaded = factories.load(model, "Llama")
    plain = factories.run(factories.engine(loaded), requests)
    assert len({tuple(tokens) for tokens in plain.values()}) == len(prompts)
    engine = factories.engine(loaded, {"a": adapter}, tree="chain")
    assert factories.run(engine, requests) == plain
    # The prompt's forward gives one token, all others four: three drafts and the bonus token.
    assert engine.stats().speculation.mean_acceptance_length == 4.0


def test_the_emitted_law_is_the_models_own(model) -> None:  # type: ignore[no-untyped-def]
    """Chi-square of the first two tokens over many seeds; the second is verified in a tree."""
    loaded = factories.load(model, "Llama")
    prompt = factories.prompts(1, seed=8)[0]
    count, top = 1200, 4
    params = SamplingParams(temperature=1.0, top_k=top, max_tokens=3)
    engine = factories.engine(
        loaded, {"a": factories.random_adapter(model)}, max_num_seqs=64, max_waiting=2000
    )
    draft = engine.drafting.draft

    def always_the_likeliest(scheduled, batch, output, accepted):  # type: ignore[no-untyped-def]
        """Drafts that are often right: the model's own two likeliest tokens after any first."""
        draft(scheduled, batch, output, accepted)
        for item in scheduled:
            if item.sequence.draft is not None:
                tokens = [[*second, *(t for t in range(9) if t not in second)][:5]] * 3
                topology = item.sequence.draft.topology
                item.sequence.draft = topology.fill(item.sequence.token_ids[-1], tokens)

    def logits(ids: list[int]) -> torch.Tensor:
        model.set_attn_implementation("eager")
        row = model(torch.tensor([ids])).logits[0, -1]
        model.set_attn_implementation("bita")
        return row

    first_law = logits(prompt).topk(top)
    second = logits([*prompt, int(first_law.indices[0])]).topk(2).indices.tolist()
    engine.drafting.draft = always_the_likeliest  # type: ignore[method-assign]
    requests = [
        dataclasses.replace(
            factories.requests([prompt])[0],
            request_id=str(seed),
            sampling=dataclasses.replace(params, seed=seed),
        )
        for seed in range(count)
    ]
    answers = factories.run(engine, requests)
    assert engine.stats().speculation.num_accepted_tokens > count / 10
    _fits(Counter(a[0] for a in answers.values()), first_law, count)
    likeliest = int(first_law.indices[0])
    after = [a[1] for a in answers.values() if a[0] == likeliest]
    _fits(Counter(after), logits([*prompt, likeliest]).topk(top), len(after))


def _fits(counts: Counter[int], law: torch.return_types.topk, total: int) -> None:  # type: ignore[name-defined]
    """Chi-square with 3 degrees of freedom below its 99.9 % point."""
    probabilities = law.values.softmax(dim=0).tolist()
    tokens = law.indices.tolist()
    assert set(counts) <= set(tokens)
    statistic = sum(
        (counts[t] - total * p) ** 2 / (total * p)
        for t, p in zip(tokens, probabilities, strict=True)
    )
    assert statistic < 16.27


def test_ends_are_exact_inside_an_accepted_block(model) -> None:  # type: ignore[no-untyped-def]
    prompts = factories.prompts(4, seed=4)
    expected = {str(i): factories.generate(model, p) for i, p in enumerate(prompts)}
    for limit in (1, 2, 3, 4, 5):
        engine = factories.engine(
            factories.load(model, "Llama"), {"a": factories.random_adapter(model)}
        )
        OracleEngine(expected, right=1.0).patch(engine)
        outputs = factories.run(engine, factories.requests(prompts, max_tokens=limit))
        assert outputs == {n: tokens[:limit] for n, tokens in expected.items()}
    stop = expected["0"][6]
    end = expected["0"].index(stop) + 1
    engine = factories.engine(
        factories.load(model, "Llama", eos=(stop,)), {"a": factories.random_adapter(model)}
    )
    OracleEngine(expected, right=1.0).patch(engine)
    last = factories.run_outputs(engine, factories.requests(prompts[:1]))["0"][-1]
    assert last.num_generated_tokens == end
    assert last.finish_reason == "stop"
