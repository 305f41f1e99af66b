"""What crosses between the processes arrives as it was sent, or is an error that says why."""

from __future__ import annotations

import queue
import socket
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import errors
from engine.config import EngineConfig, ModelInfo
from engine.errors import EngineDead
from engine.messages import (
    HEADER_BYTES,
    KINDS,
    MAX_BYTES,
    Abort,
    AdaptersChanged,
    Add,
    Failed,
    LoadAdapter,
    Message,
    Outputs,
    Ready,
    Refused,
    Start,
    UnloadAdapter,
    decode,
    encode,
    length,
    raised,
)
from engine.process import _read, _receive
from engine.request import (
    FinishReason,
    Grammar,
    Request,
    RequestOutput,
    SamplingParams,
    SpecReceipt,
    Timing,
    TokenLogprob,
)
from engine.stats import AdapterStats, EngineStats, SpecDecodingStats

SAMPLING = SamplingParams(
    temperature=0.7,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    seed=-(2**63),
    presence_penalty=-2.0,
    frequency_penalty=0.5,
    repetition_penalty=1.1,
    logit_bias={0: -100.0, 4095: 1.5},
    logprobs=3,
    max_tokens=7,
    min_tokens=2,
    stop=("\n\n", "é🙂"),
    stop_token_ids=(5, 6),
    prompt_logprobs=3,
    include_stop=True,
    skip_special_tokens=False,
    ignore_eos=True,
)
INFO = ModelInfo(
    model="a/folder",
    architecture="LlamaForCausalLM",
    max_model_len=2048,
    vocab_size=4096,
    eos_token_ids=(2, 3),
    adapters={"bita": "an/adapter", "other": "another"},
    dtype="float32",
    device="cpu",
    route="interface",
    num_blocks=64,
    block_size=16,
    fingerprint="fp_0123456789abcdef",
)
OUTPUT = RequestOutput(
    request_id="r",
    token_ids=[1, 2],
    logprobs=[
        TokenLogprob(1, -0.5, [(1, -0.5), (7, -float("inf"))], 1),
        TokenLogprob(2, 0.0, [], 2),
    ],
    sources=[1, 0],
    prompt_logprobs=[TokenLogprob(3, -1.5, [(1, -0.5)], 9)],
    finish_reason=FinishReason.STOP,
    stop_reason=5,
    num_prompt_tokens=9,
    num_cached_tokens=4,
    num_generated_tokens=2,
    speculation=SpecReceipt(3, 12, 4, [1, 0, 2]),
    timing=Timing(0.5, 0.25),
)
STATS = EngineStats(
    num_running=1,
    num_waiting=2,
    kv_cache_usage=0.25,
    num_preemptions=3,
    prefix_cache_queries=40,
    prefix_cache_hits=16,
    num_forwards=5,
    step_seconds={"forward": 0.125, "draft": 0.5},
    rows={"prefill": 9, "root": 1, "node": 4, "mask": 12},
    speculation=SpecDecodingStats(2, 8, 3, [2, 1], [1, 0, 1], {"bita": 8}, {"bita": 3}),
    adapters={"": AdapterStats(), "bita": AdapterStats(3, 2, 1, [4, 0, 1])},
)
MESSAGES = [
    Start(EngineConfig("a/folder", adapters={"bita": "an/adapter"}, prefix_caching=False)),
    Add(Request("r", [1, 2, 3], SAMPLING, adapter="bita", speculation=False, priority=-2)),
    Add(Request("r", [1], drafters={"ngram": False}, prediction=[7, 8], trace=True)),
    Add(Request("r", [1], grammar=Grammar("regex", "a+", "guided_regex"))),
    Add(Request("r", [1], cache_salt="é", kept_tokens=[7])),
    Abort("r"),
    LoadAdapter("r", "bita", "an/adapter"),
    UnloadAdapter("r", "bita"),
    AdaptersChanged("r", {"bita": "an/adapter", "other": "another"}),
    Ready(INFO),
    Failed("UnsupportedModel", "mamba has recurrent layers"),
    Refused("r", "RequestError", "top_p must be above 0", "top_p"),
    Refused("r", "EngineOverloaded", "9 requests are waiting already", None),
    Outputs([OUTPUT, RequestOutput("s", [])], STATS),
    Outputs([], None),
    Outputs([], EngineStats()),
]


def body(message: Message) -> bytes:
    return encode(message)[HEADER_BYTES:]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    data = encode(message)
    assert length(data[:HEADER_BYTES]) == len(data) - HEADER_BYTES
    arrived = decode(data[HEADER_BYTES:])
    assert arrived == message
    # Not only equal: enumerations and tuples are themselves again.
    assert repr(arrived) == repr(message)


def test_every_kind_of_message_is_tested() -> None:
    assert {type(message).__name__ for message in MESSAGES} == set(KINDS)


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2**31), max_size=5),
    stops=st.lists(st.text(), max_size=3).map(tuple),
    bias=st.dictionaries(st.integers(0, 2**31), st.floats(-100, 100), max_size=3),
    name=st.text(),
)
def test_any_request_arrives_as_it_was_sent(
    tokens: list[int], stops: tuple[str, ...], bias: dict[int, float], name: str
) -> None:
    message = Add(Request(name, tokens, SamplingParams(stop=stops, logit_bias=bias), adapter=name))
    assert decode(body(message)) == message


def test_messages_follow_each_other_on_a_stream() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"".join(map(encode, MESSAGES)))
        assert [_receive(theirs) for _ in MESSAGES] == MESSAGES
        assert _receive(theirs) is None


@pytest.mark.parametrize("cut", [1, HEADER_BYTES, HEADER_BYTES + 1, -1])
def test_a_stream_that_ends_within_a_message_has_ended(cut: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(encode(MESSAGES[0])[:cut])
        assert _receive(theirs) is None


@pytest.mark.parametrize("kind", ["Explode", "", "__class__", 7, None])
def test_an_unknown_message_is_named(kind: Any) -> None:
    with pytest.raises(EngineDead, match="unknown message") as error:
        decode(msgpack.packb([kind, {}]))
    assert repr(kind) in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        body(MESSAGES[0])[:-1],
        body(MESSAGES[0]) + b"\x00",
        msgpack.packb("Abort"),
        msgpack.packb(["Abort"]),
        msgpack.packb(["Abort", {"request_id": "r"}, 3]),
        msgpack.packb([["Abort"], {}]),
        msgpack.packb(["Abort", None]),
        msgpack.packb(["Abort", {}]),
        msgpack.packb(["Abort", {"request_id": "r", "more": 1}]),
        msgpack.packb(["Add", {}]),
        msgpack.packb(["Add", {"request": {"sampling": 3}}]),
        body(Add(Request("r", [1]))).replace(
            b"\xabtemperature\xcb?\xf0", b"\xabtemperature\xcb\xbf\xf0"
        ),
        msgpack.packb(["Outputs", {"outputs": [1], "stats": {}}]),
        b"\x92\xa5Abort\x81\xaarequest_id\xa1\xff",
    ],
    ids=[
        *("nothing", "no msgpack", "cut short", "something behind", "no pair", "no fields"),
        *(
            "three parts",
            "kind is a list",
            "fields are nil",
            "field missing",
            "unknown field",
            "no request",
        ),
        *("no sampling", "temperature below 0", "no output", "no text"),
    ],
)
def test_a_malformed_message_means_that_the_other_process_is_broken(data: bytes) -> None:
    with pytest.raises(EngineDead, match="malformed message"):
        decode(data)


def test_an_engine_that_is_told_nonsense_ends_as_if_its_server_were_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = socket.socketpair()
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    with ours, theirs:
        ours.sendall(encode(Abort("r")) + (1).to_bytes(HEADER_BYTES, "big") + b"\xc1")
        _read(theirs, inbox)
    assert [inbox.get_nowait(), inbox.get_nowait()] == [Abort("r"), None]
    assert "malformed message" in capsys.readouterr().err


def test_a_message_longer_than_any_is_refused_before_it_is_read() -> None:
    assert length(MAX_BYTES.to_bytes(HEADER_BYTES, "big")) == MAX_BYTES
    with pytest.raises(EngineDead, match=f"a message of {MAX_BYTES + 1} bytes"):
        length((MAX_BYTES + 1).to_bytes(HEADER_BYTES, "big"))


def test_errors_keep_their_kind_their_words_and_the_field() -> None:
    error = raised("UnknownAdapter", "no adapter named 'x' is loaded", "model")
    assert type(error) is errors.UnknownAdapter
    assert (str(error), error.field) == ("no adapter named 'x' is loaded", "model")
    overloaded = raised("EngineOverloaded", "9 requests are waiting already")
    assert isinstance(overloaded, errors.EngineOverloaded)
    assert overloaded.retry_after > 0
    assert type(raised("UnsupportedModel", "why")) is errors.UnsupportedModel


@pytest.mark.parametrize("kind", ["MemoryError", "Nonsense", ""])
def test_an_error_of_unknown_kind_is_still_an_engine_error(kind: str) -> None:
    error = raised(kind, "why")
    assert type(error) is errors.EngineError
    assert str(error) == "why"
