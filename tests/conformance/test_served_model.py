"""The server as a user starts it, on the embedded model, through the real `openai` client."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from tests.served import served

ADMIN_KEY = "admin"
MODEL = "bita-concierge"
ASK = [{"role": "user", "content": "I want to find a restaurant in San Jose."}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of `bita serve`, ready."""
    options = ("--tree", "comb", "--adapter-dir", str(DEFAULT_MODEL))
    with served(*options, env={"BITA_ADMIN_KEY": ADMIN_KEY}) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **more):  # type: ignore[no-untyped-def]
    settings = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 48, **more}
    return client.chat.completions.create(**settings)


def test_speculation_changes_nothing_but_the_number_of_forwards(client: openai.OpenAI) -> None:
    fast = ask(client)
    plain = ask(client, extra_body={"speculation": {"enabled": False}})
    assert fast.choices[0].message.content == plain.choices[0].message.content
    assert fast.usage.completion_tokens == plain.usage.completion_tokens
    receipt = fast.metrics["speculative_decoding"]
    assert receipt["num_spec_steps"] < plain.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_a_seed_makes_sampling_repeatable_with_and_without_speculation(
    client: openai.OpenAI,
) -> None:
    sampling = {"temperature": 1.0, "seed": 11, "top_p": 0.9}
    answers = {
        ask(client, **sampling, extra_body={"speculation": {"enabled": on}})
        .choices[0]
        .message.content
        for on in (True, False, True)
    }
    assert len(answers) == 1


def test_many_streams_at_once_say_what_each_says_alone(url: str, client: openai.OpenAI) -> None:
    questions = ["Find me a bus to Fresno.", "I want to hear some music.", "Is it warm in Napa?"]
    messages = [[{"role": "user", "content": q}] for q in questions]
    alone = [ask(client, messages=m).choices[0].message.content for m in messages]

    async def together() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as many:
            replies = await asyncio.gather(
                *(
                    many.chat.completions.create(
                        model=MODEL, messages=m, temperature=0, max_tokens=48
                    )
                    for m in messages * 3
                )
            )
        return [reply.choices[0].message.content for reply in replies]

    assert asyncio.run(together()) == alone * 3


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"messages": []}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 5000}, "messages"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"extra_body": {"bad_words": ["a"]}}, "bad_words"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    client: openai.OpenAI, change: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        ask(client, **change)
    assert 400 <= refusal.value.status_code < 500
    assert refusal.value.param == param  # type: ignore[attr-defined]
    assert ask(client).choices[0].message.content


def test_an_abandoned_stream_frees_its_blocks(url: str, client: openai.OpenAI) -> None:
    with ask(client, stream=True, max_tokens=1500, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        metrics = httpx.get(f"{url}/metrics").text
        lines = [x for x in metrics.splitlines() if x.startswith("vllm:num_requests_running{")]
        if lines and lines[0].endswith(" 0.0"):
            return
        time.sleep(0.1)
    pytest.fail("the request is still running")


@pytest.mark.slow  # tests/faults/test_hot_load.py holds the same of the engine
def test_an_adapter_comes_and_goes_under_a_running_stream(url: str, client: openai.OpenAI) -> None:
    with httpx.Client(base_url=f"{url}/v1") as admin:
        assert admin.get("adapters").status_code == 401
        admin.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        new = {"name": "new", "path": DEFAULT_ADAPTER.name}
        settings = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
        whole = ask(client, **settings).choices[0].message.content
        with ask(client, stream=True, **settings) as before:
            text = next(before).choices[0].delta.content or ""
            assert admin.post("adapters", json=new).status_code == 200
            assert "new" in [model.id for model in client.models.list()]
            with ask(client, model="new", stream=True, **settings) as stream:
                next(stream)
                assert admin.delete("adapters/new").json()["deleted"]
                with pytest.raises(openai.NotFoundError, match="does not exist"):
                    ask(client, model="new")
                assert admin.post("adapters", json=new).status_code == 200
                rest = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            assert rest == whole
            text += "".join(chunk.choices[0].delta.content or "" for chunk in before)
        assert text == whole
        assert ask(client, model="new", **settings).choices[0].message.content == whole
        assert admin.delete("adapters/new").status_code == 200


class Booking(pydantic.BaseModel):
    """What an answer is parsed into."""

    model_config = pydantic.ConfigDict(extra="forbid")

    city: str = pydantic.Field(max_length=20)
    party: Literal[1, 2, 3, 4]
    when: Literal["noon", "evening"] | None
    cuisines: list[Literal["thai", "greek", "any"]] = pydantic.Field(max_length=3)


BOOK: Any = {
    "type": "function",
    "function": {"name": "book", "strict": True, "parameters": Booking.model_json_schema()},
}
FORMS: list[tuple[dict[str, Any], Any]] = [
    ({"guided_regex": "(yes|no), [a-z]{2,9}[.]"}, r"(yes|no), [a-z]{2,9}[.]"),
    ({"structured_outputs": {"choice": ["San Jose", "Oakland"]}}, "San Jose|Oakland"),
    ({"guided_grammar": 'root ::= "a" ("b" | "c"){3}'}, "a[bc]{3}"),
    ({"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}}, "[0-9]{3}-[0-9]{4}"),
]


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    for seed in range(4):
        answer = client.chat.completions.parse(
            model=MODEL, messages=ASK, response_format=Booking, temperature=1.0, seed=seed
        )
        assert answer.choices[0].finish_reason == "stop"
        assert isinstance(answer.choices[0].message.parsed, Booking)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: next(iter(form[0])))
def test_an_answer_has_the_form_asked_for(client: openai.OpenAI, form: Any) -> None:
    fields, pattern = form
    for sampling in ({"temperature": 0}, {"temperature": 1.2, "seed": 3, "n": 3}):
        fast = ask(client, extra_body=fields, **sampling)
        plain = ask(client, extra_body={**fields, "speculation": {"enabled": False}}, **sampling)
        for choice, other in zip(fast.choices, plain.choices, strict=True):
            assert choice.message.content == other.message.content
            assert re.fullmatch(pattern, choice.message.content)
            assert choice.finish_reason == "stop"


def test_a_json_object_is_one(client: openai.OpenAI) -> None:
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=60).choices[0]
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
    assert answer.message.content.startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "book"}}])
def test_a_forced_call_is_made_and_its_arguments_fit(client: openai.OpenAI, choice: Any) -> None:
    for sampling in ({"temperature": 0}, {"temperature": 1.0, "seed": 2}):
        answer = ask(
            client,
            tools=[BOOK],
            tool_choice=choice,
            parallel_tool_calls=False,
            max_tokens=120,
            **sampling,
        ).choices[0]
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        [call] = answer.message.tool_calls
        assert call.function.name == "book"
        Booking.model_validate_json(call.function.arguments)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": "a{1000000}"}, "guided_regex"),
        ({"structured_outputs": {"grammar": "root ::= ("}}, "structured_outputs.grammar"),
        ({"guided_json": {"$ref": "file:///etc/passwd"}}, "guided_json"),
        ({"guided_json": {"not": {}}}, "guided_json"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_a_form_that_cannot_be_had_is_refused_and_harms_nobody(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body=fields)
    assert caught.value.param == param
    assert ask(client, max_tokens=2).usage.completion_tokens == 2


def test_an_echo_has_transformers_log_probabilities(client: openai.OpenAI) -> None:
    """As lm-eval asks: token ids, one token more than is looked at."""
    tokenizer = Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))
    long = tokenizer.encode("I want to find a restaurant in San Jose, for two at eight.").ids
    prompts = [long, long[:7]]
    settings = {"model": MODEL, "prompt": prompts, "max_tokens": 1, "temperature": 0}
    answer = client.completions.create(**settings, echo=True, logprobs=1)
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
    for choice, prompt in zip(answer.choices, prompts, strict=True):
        with torch.inference_mode():
            nats = model(torch.tensor([prompt])).logits[0].log_softmax(dim=-1)
        own = nats[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()
        first, *others, _ = choice.logprobs.token_logprobs
        assert first is None
        assert others == pytest.approx(own, abs=1e-3)
        likeliest = [max(top.values()) for top in choice.logprobs.top_logprobs[1:-1]]
        greedy = [lp == top for lp, top in zip(others, likeliest, strict=True)]
        assert greedy == (nats[:-1].argmax(dim=-1) == torch.tensor(prompt[1:])).tolist()


def test_choices_of_one_prompt_share_its_computation(client: openai.OpenAI) -> None:
    prompt = "Something nobody has asked before: " + "a table, a taxi and a film. " * 20
    base = str(client.base_url).removesuffix("v1/")
    before = _counted(base, "bita_rows_total", 'kind="prefill"')
    answer = client.completions.create(
        model=MODEL, prompt=prompt, n=4, max_tokens=4, extra_body={"cache_salt": "alone"}
    )
    computed = _counted(base, "bita_rows_total", 'kind="prefill"') - before
    assert answer.usage.prompt_tokens <= computed + 1 < answer.usage.prompt_tokens + 4 * 16
    assert answer.usage.prompt_tokens > 100


def _counted(base: str, name: str, label: str) -> float:
    time.sleep(0.6)  # idle counters come twice a second
    lines = httpx.get(f"{base}metrics").text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith(name) and label in x)
