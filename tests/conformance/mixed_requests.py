"""Requests that mix features, drawn from a seed, for the embedded model."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

from tests.conformance import constraints
from tests.server.wire import CHAT, COMPLETIONS, MESSAGES, RESPONSES

MODEL = "bita-concierge"
VOCAB_SIZE = 4096

Body: TypeAlias = dict[str, Any]
Asked: TypeAlias = tuple[str, Body]
"""A path and what is posted to it."""

SENTENCES = [
    "I want to find a restaurant in San Jose.",
    "Book a table for two at eight, please.",
    "Is there a bus to Fresno on Friday? I would like two tickets.",
    "I want to hear some music by an artist I have not heard before.",
    "What is the weather like in Napa today? What is the weather like tomorrow?",
    "Find me a hotel with three stars, and then find me a taxi to the hotel.",
    "Café, naïve, 東京, 🙂!",
    "One two three four one two three four one two three",
]
ANSWERS = ["Sure, which city are you in?", "There is a nice restaurant in San Jose called"]
STOPS = ["a", " the", "?", ".", "you", "en", "\n", " in San", "nothing like it"]


def mixed_requests(count: int, seed: int) -> list[Asked]:
    """So many requests; the same for the same seed."""
    rng = random.Random(seed)
    makers = [_chat, _completion, _chat, _completion, _response, _message]
    return [makers[number % len(makers)](rng) for number in range(count)]


def _some(rng: random.Random, share: float, **fields: Callable[[], Any]) -> Body:
    """Each of the fields with this probability."""
    return {name: value() for name, value in fields.items() if rng.random() < share}


def _temperature(rng: random.Random) -> float:
    return rng.choice([0.0, 0.0, 0.7, 1.0, 1.3])


def _stops(rng: random.Random) -> list[str]:
    return rng.sample(STOPS, rng.randint(1, 3))


def _bias(rng: random.Random) -> dict[str, float]:
    return {str(rng.randrange(VOCAB_SIZE)): rng.choice([-100, -3, 2.5, 6]) for _ in range(4)}


def _generation(rng: random.Random) -> Body:
    """What chat and text completions have in common."""
    most = rng.randint(4, 20)
    return {
        "model": MODEL,
        "max_tokens": most,
        "temperature": _temperature(rng),
        "seed": rng.randrange(1000),
        **_some(
            rng,
            0.2,
            top_p=lambda: rng.choice([0.5, 0.9]),
            top_k=lambda: rng.choice([1, 5, 40]),
            min_p=lambda: rng.choice([0.02, 0.2]),
            presence_penalty=lambda: rng.choice([-1.0, 0.8]),
            frequency_penalty=lambda: rng.choice([-0.5, 1.2]),
            repetition_penalty=lambda: rng.choice([0.9, 1.3]),
            logit_bias=lambda: _bias(rng),
            n=lambda: rng.randint(2, 3),
            stop=lambda: _stops(rng),
            stop_token_ids=lambda: rng.sample(range(VOCAB_SIZE), 64),
            include_stop_str_in_output=lambda: True,
            skip_special_tokens=lambda: False,
            min_tokens=lambda: rng.randint(1, most),
            ignore_eos=lambda: True,
            return_token_ids=lambda: True,
        ),
        **_ending(rng),
    }


def _ending(rng: random.Random) -> Body:
    """A stream, or what there is without."""
    if rng.random() < 0.6:
        return _some(rng, 0.15, prompt_logprobs=lambda: rng.randint(0, 3))
    return {
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": rng.random() < 0.5},
    }


def _turns(rng: random.Random) -> list[Body]:
    turns = [{"role": "user", "content": rng.choice(SENTENCES)}]
    if rng.random() < 0.4:
        turns.append({"role": "assistant", "content": rng.choice(ANSWERS)})
        turns.append({"role": "user", "content": rng.choice(SENTENCES)})
    return turns


def _called(rng: random.Random) -> list[Body]:
    """A call that was made, and what came of it."""
    function = {"name": "find_restaurants", "arguments": '{"city": "San Jose"}'}
    return [
        {"role": "user", "content": SENTENCES[0]},
        {
            "role": "assistant",
            "content": rng.choice([None, "One moment."]),
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '[{"name": "71 Saint Peter"}]'},
    ]


def _chat(rng: random.Random) -> Asked:
    body: Body = {**_generation(rng), "messages": _turns(rng)}
    if rng.random() < 0.2:
        body["messages"].insert(0, {"role": "system", "content": "Answer in few words."})
    if rng.random() < 0.35:
        body |= {"logprobs": True, "top_logprobs": rng.randint(0, 4)}
    ending = rng.random()
    if ending < 0.15:
        body["messages"].append({"role": "assistant", "content": rng.choice(ANSWERS)})
        body |= {"continue_final_message": True}
    elif ending < 0.25:
        body["add_generation_prompt"] = False
    elif ending < 0.6:
        body |= constraints.tools(rng)
        if rng.random() < 0.3:
            body["messages"] = _called(rng)
    elif ending < 0.85:
        body |= constraints.constraint(rng)
    if rng.random() < 0.25:
        body["prediction"] = {"type": "content", "content": rng.choice(ANSWERS + SENTENCES)}
    return CHAT, body


def _ids(rng: random.Random) -> list[int]:
    return [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 24))]


def _completion(rng: random.Random) -> Asked:
    prompts: list[Callable[[], Any]] = [
        lambda: rng.choice(SENTENCES),
        lambda: rng.sample(SENTENCES, 2),
        lambda: _ids(rng),
        lambda: [_ids(rng), _ids(rng)],
    ]
    body = {**_generation(rng), "prompt": rng.choice(prompts)()}
    body |= _some(rng, 0.35, logprobs=lambda: rng.randint(0, 4), echo=lambda: True)
    if rng.random() < 0.25:
        body |= constraints.constraint(rng)
    if not body.get("stream") and rng.random() < 0.15:
        body["best_of"] = body.get("n", 1) + 1
    if body.get("echo") and rng.random() < 0.2:
        body |= {"max_tokens": 0, "min_tokens": 0}
    return COMPLETIONS, body


def _response(rng: random.Random) -> Asked:
    body = {
        "model": MODEL,
        "input": rng.choice([rng.choice(SENTENCES), _turns(rng)]),
        "max_output_tokens": rng.randint(4, 20),
        "temperature": _temperature(rng),
        "seed": rng.randrange(1000),
        "stream": rng.random() < 0.5,
        **_some(
            rng,
            0.25,
            instructions=lambda: "Answer in few words.",
            top_p=lambda: 0.8,
            min_p=lambda: 0.05,
            stop=lambda: _stops(rng),
            frequency_penalty=lambda: 1.0,
            logit_bias=lambda: _bias(rng),
            ignore_eos=lambda: True,
        ),
    }
    if rng.random() < 0.3:
        body |= {"include": ["message.output_text.logprobs"], "top_logprobs": rng.randint(0, 3)}
    if rng.random() < 0.4:
        body |= constraints.response_tools(rng)
    elif rng.random() < 0.3:
        body |= constraints.response_text(rng)
    return RESPONSES, body


def _message(rng: random.Random) -> Asked:
    body = {
        "model": MODEL,
        "messages": _turns(rng),
        "max_tokens": rng.randint(4, 20),
        "temperature": _temperature(rng),
        "seed": rng.randrange(1000),
        "stream": rng.random() < 0.5,
        **_some(
            rng,
            0.25,
            system=lambda: "Answer in few words.",
            top_p=lambda: 0.8,
            top_k=lambda: 20,
            min_p=lambda: 0.05,
            stop_sequences=lambda: _stops(rng),
        ),
    }
    if rng.random() < 0.4:
        body |= constraints.message_tools(rng)
    elif rng.random() < 0.3:
        body |= constraints.message_output(rng)
    return MESSAGES, body
