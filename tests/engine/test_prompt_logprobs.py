"""Log-probabilities of the prompt's own tokens: transformers', however the prompt is computed."""

import dataclasses
from typing import Any

import pytest
import torch

from engine.request import RequestOutput, TokenLogprob
from tests import factories

PROMPT = factories.prompts(1, seed=21, longest=40)[0] * 3


def expected(model: Any, prompt: list[int]) -> torch.Tensor:
    """float32 `[prompt - 1, vocab]`: row i is the law of token i + 1."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, :-1]
    model.set_attn_implementation(before)
    return logits.float().log_softmax(dim=-1)


def agree(report: list[TokenLogprob], nats: torch.Tensor, prompt: list[int]) -> None:
    assert [entry.token_id for entry in report] == prompt[1:]
    own = nats.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert torch.allclose(torch.tensor([e.logprob for e in report]), own, atol=1e-4)
    for entry, row in zip(report, nats, strict=True):
        best = row.topk(2)
        assert torch.allclose(torch.tensor([v for _, v in entry.top]), best.values, atol=1e-4)
        above, at_least = (int((row > row[entry.token_id] + d).sum()) for d in (1e-4, -1e-4))
        assert above < entry.rank <= at_least


def asked(prompts: list[list[int]], **sampling: Any) -> list[factories.Request]:
    return factories.requests(prompts, **{"max_tokens": 3, "prompt_logprobs": 2, **sampling})


def reports(outputs: dict[str, list[RequestOutput]]) -> list[list[TokenLogprob]]:
    """Each request's; only its first output has one."""
    assert all(o.prompt_logprobs is None for outs in outputs.values() for o in outs[1:])
    return [outs[0].prompt_logprobs or [] for outs in outputs.values()]


@pytest.mark.parametrize("architecture", ["Llama", "Gemma2", "Granite", "GPTJ"])
def test_they_are_transformers_own(architecture: str) -> None:
    model = factories.tiny_model(architecture)
    nats = expected(model, PROMPT)
    engine = factories.engine(
        factories.load(model, architecture), {"a": factories.random_adapter(model)}
    )
    agree(reports(factories.run_outputs(engine, asked([PROMPT])))[0], nats, PROMPT)


@pytest.fixture(scope="module")
def model() -> Any:
    return factories.tiny_model("Llama")


@pytest.mark.parametrize("rows", [9, 40])
def test_chunks_and_what_is_cached_change_nothing(model: Any, rows: int, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("engine.engine._LOGITS_AT_ONCE", 7 * factories.VOCAB)
    nats = expected(model, PROMPT)
    engine = factories.engine(factories.load(model, "Llama"), max_num_batched_tokens=rows)
    for _ in range(2):
        outputs = factories.run_outputs(engine, asked([PROMPT]))
        agree(reports(outputs)[0], nats, PROMPT)
        assert outputs["0"][0].num_cached_tokens == 0
    [plain] = factories.run_outputs(engine, factories.requests([PROMPT], max_tokens=1)).values()
    assert plain[0].num_cached_tokens > 0
    assert plain[0].prompt_logprobs is None


def test_who_was_preempted_reports_once_and_whole(model: Any) -> None:
    prompts = [p * 2 for p in factories.prompts(5, seed=22)]
    engine = factories.engine(
        factories.load(model, "Llama"),
        max_num_batched_tokens=24,
        kv_cache_memory=1 << 16,
    )
    outputs = factories.run_outputs(engine, asked(prompts, max_tokens=12))
    assert engine.stats().num_preemptions > 0
    for prompt, report in zip(prompts, reports(outputs), strict=True):
        agree(report, expected(model, prompt), prompt)


def test_no_token_asked_for_computes_the_prompt_alone(model: Any) -> None:
    engine = factories.engine(
        factories.load(model, "Llama"), {"a": factories.random_adapter(model)}
    )
    outputs = factories.run_outputs(engine, asked([PROMPT, [5]], max_tokens=0))
    long, short = outputs["0"], outputs["1"]
    agree(reports({"0": long})[0], expected(model, PROMPT), PROMPT)
    assert [(len(o), o[0].token_ids, o[0].finish_reason) for o in (long, short)] == [
        (1, [], "length"),
        (1, [], "length"),
    ]
    assert short[0].prompt_logprobs == []
    assert not engine.has_work


def test_choices_of_one_prompt_compute_it_once(model: Any) -> None:
    engine = factories.engine(factories.load(model, "Llama"))
    requests = factories.requests([PROMPT] * 4, max_tokens=4, temperature=1.0, seed=1)
    factories.run(engine, requests)
    shared = (len(PROMPT) - 1) // 4 * 4
    assert engine.stats().prefix_cache_hits == 3 * shared
    assert engine.stats().rows["prefill"] < len(PROMPT) + 4 * 4
    salted = [dataclasses.replace(requests[0], request_id="s", cache_salt="s")]
    [outputs] = factories.run_outputs(engine, salted).values()
    assert outputs[0].num_cached_tokens == 0
