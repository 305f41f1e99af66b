"""Every sampling parameter: text, tokens and ends are plain decoding's, whatever is drafted."""

from dataclasses import fields
from typing import Any

import pytest

from engine.request import RequestOutput, SamplingParams
from engine.text.output import add_text
from engine.text.stream import TextStream
from tests import factories
from tests.oracle import OracleEngine
from tests.server.stub import byte_tokenizer

TOKENIZER = byte_tokenizer()
PROMPTS = factories.prompts(3, seed=31)
SEEDED = {"temperature": 1.0, "seed": 4}
# Field -> how a request that uses it samples. The stop texts are found in what is generated.
MATRIX: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7, "seed": 4},
    "top_p": {**SEEDED, "top_p": 0.6},
    "top_k": {**SEEDED, "top_k": 4},
    "min_p": {**SEEDED, "min_p": 0.2},
    "seed": {**SEEDED, "seed": -(2**63)},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "logit_bias": {"logit_bias": {3: 5.0, 9: -100.0}},
    "logprobs": {"logprobs": 3},
    "prompt_logprobs": {"prompt_logprobs": 3},
    "max_tokens": {"max_tokens": 7},
    "min_tokens": {"min_tokens": 15},
    "stop": {"stop": ("STOP",)},
    "stop_token_ids": {"stop_token_ids": (-1,)},
    "include_stop": {"stop": ("STOP",), "include_stop": True},
    "skip_special_tokens": {"skip_special_tokens": False},
    "ignore_eos": {"ignore_eos": True},
}


@pytest.fixture(scope="module")
def model() -> Any:
    return factories.tiny_model("Llama")


@pytest.fixture(scope="module")
def greedy(model: Any) -> list[list[int]]:
    return [factories.generate(model, prompt, 16) for prompt in PROMPTS]


def test_every_parameter_is_in_the_matrix() -> None:
    assert {field.name for field in fields(SamplingParams)} == set(MATRIX)


@pytest.mark.parametrize("name", MATRIX)
def test_drafts_change_nothing(model: Any, greedy: list[list[int]], name: str) -> None:
    sampling = {"max_tokens": 16, **MATRIX[name]}
    if "stop" in sampling:
        sampling["stop"] = (TOKENIZER.decode(greedy[0][9:11]),)
    if "stop_token_ids" in sampling:
        sampling["stop_token_ids"] = (greedy[0][9],)
    loaded = factories.load(model, "Llama", eos=(greedy[1][8],))
    plain = factories.engine(loaded)
    asked = factories.requests(PROMPTS, speculation=False, **sampling)
    outputs = factories.run_outputs(plain, asked)
    tokens = {name: [t for o in outs for t in o.token_ids] for name, outs in outputs.items()}
    expected = worded(outputs, asked)  # which cuts the outputs
    fast = factories.engine(loaded, {"a": factories.random_adapter(model)})
    OracleEngine(tokens, right=0.9).patch(fast)
    asked = factories.requests(PROMPTS, **sampling)
    for one, other in zip(worded(factories.run_outputs(fast, asked), asked), expected, strict=True):
        assert one[:-1] == other[:-1]
        assert one[-1] == pytest.approx(other[-1], abs=1e-4)
    assert fast.stats().speculation.num_accepted_tokens > 0


def worded(
    outputs: dict[str, list[RequestOutput]], requests: list[factories.Request]
) -> list[tuple[Any, ...]]:
    """What a client is told of each request; log-probabilities last, of answer and prompt."""
    told = []
    for request in requests:
        stream = TextStream(TOKENIZER, request.token_ids, request.sampling)
        text, tokens, nats = "", [], []
        last = None
        for output in outputs[request.request_id]:
            add_text(output, stream, request.sampling.include_stop)
            text, last = text + output.text, output
            tokens += output.token_ids
            for entry in (*(output.prompt_logprobs or ()), *(output.logprobs or ())):
                nats += [entry.logprob, *(value for _, value in entry.top)]
            if output.finish_reason is not None:
                break
        assert last is not None
        told.append((text, tokens, last.finish_reason, last.stop_reason, nats))
    return told
