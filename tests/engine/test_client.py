"""The engine's asyncio face before an engine that does as the test says.

The other end is a thread on a real socket pair, so that framing and closing are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import engine.process
import engine.supervisor
from engine.client import EngineClient
from engine.config import EngineConfig, ModelInfo
from engine.errors import (
    AdapterRefused,
    ContextLengthExceeded,
    EngineDead,
    EngineError,
    EngineOverloaded,
    NoFreeSlot,
    RequestFailed,
    UnsupportedModel,
)
from engine.messages import (
    HEADER_BYTES,
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
    encode,
)
from engine.request import FinishReason, Request, RequestOutput, SamplingParams, TokenLogprob
from engine.stats import EngineStats
from tests.server.stub import byte_tokenizer

SECONDS = 30.0
INFO = ModelInfo(
    model="m",
    architecture="A",
    max_model_len=64,
    vocab_size=258,
    eos_token_ids=(256,),
    adapters={"first": "there"},
    dtype="float32",
    device="cpu",
    route="interface",
    num_blocks=8,
    block_size=4,
    fingerprint="fp",
)


class FakeEngine:
    """Stands for `engine.process.serve`; once for every start, on the newest connection.

    answers: what is said to each Start, in turn; the last one again and again. None hangs up.
    silent: nothing is said until the other side hangs up.
    received: all other messages, in order.
    """

    def __init__(self) -> None:
        self.answers: list[Message | None] = [Ready(INFO)]
        self.silent = False
        self.starts: list[Start] = []
        self.received: queue.Queue[Message] = queue.Queue()

    def serve(self, connection: socket.socket) -> None:
        self.connection = connection
        with connection, contextlib.suppress(OSError):
            start = engine.process._receive(connection)
            if start is None:
                return  # whoever started it was cancelled
            assert isinstance(start, Start)
            self.starts.append(start)
            if self.silent:
                engine.process._receive(connection)
                return
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                return
            connection.sendall(encode(answer))
            while (message := engine.process._receive(connection)) is not None:
                self.received.put(message)

    def say(self, *outputs: RequestOutput, stats: EngineStats | None = None) -> None:
        self.send(encode(Outputs(list(outputs), stats or EngineStats())))

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def hang_up(self) -> None:
        """As a process that is killed does."""
        self.connection.shutdown(socket.SHUT_RDWR)

    async def hears(self) -> Message:
        return await asyncio.to_thread(self.received.get, timeout=SECONDS)


def output(name: str, text: str = "", *, finish: FinishReason | None = None) -> RequestOutput:
    """New tokens, one a byte; with a reason to stop, the end-of-sequence token as well."""
    tokens = byte_tokenizer().encode(text, add_special_tokens=False).ids
    if finish is FinishReason.STOP:
        tokens.append(256)
    return RequestOutput(name, tokens, finish_reason=finish, num_generated_tokens=len(tokens))


def request(name: str, **sampling: object) -> Request:
    return Request(name, [1, 2, 3], SamplingParams(**sampling))  # type: ignore[arg-type]


async def collect(stream: AsyncIterator[RequestOutput]) -> list[RequestOutput]:
    async with asyncio.timeout(SECONDS):
        return [output async for output in stream]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(engine.process, "serve", fake.serve)
    monkeypatch.setattr(engine.supervisor, "RESTART_DELAYS", (0.0, 0.0, 0.0))
    return fake


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return EngineConfig(str(tmp_path))


@pytest.fixture
async def client(fake: FakeEngine, config: EngineConfig) -> AsyncIterator[EngineClient]:
    client = EngineClient(config, in_process=True)
    await client.start()
    yield client
    await client.stop()


async def test_it_starts_what_the_configuration_says_and_knows_what_it_is(
    client: EngineClient, fake: FakeEngine, config: EngineConfig
) -> None:
    assert fake.starts == [Start(config)]
    assert client.info == INFO
    assert client.is_ready


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Failed("UnsupportedModel", "mamba has recurrent layers"), UnsupportedModel, "recurrent"),
        (Failed("EngineError", "adapter and model differ"), EngineError, "differ"),
        (None, EngineDead, "ended while it was loading"),
        (Abort("r"), EngineDead, "ended while it was loading"),
    ],
)
async def test_an_engine_that_does_not_become_ready_says_why(
    answer: Message | None,
    error: type[EngineError],
    words: str,
    fake: FakeEngine,
    config: EngineConfig,
) -> None:
    fake.answers = [answer]
    client = EngineClient(config, in_process=True)
    with pytest.raises(error, match=words):
        await client.start()
    assert not client.is_ready


async def test_a_model_without_a_tokenizer_is_refused_before_anything_starts(
    fake: FakeEngine, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"tokenizer.json is missing"):
        await EngineClient(EngineConfig(str(tmp_path)), in_process=True).start()
    assert not fake.starts


async def test_each_request_gets_its_own_outputs_with_text(
    client: EngineClient, fake: FakeEngine
) -> None:
    streams = [asyncio.create_task(collect(client.generate(request(name)))) for name in "ab"]
    assert [await fake.hears(), await fake.hears()] == [Add(request("a")), Add(request("b"))]
    fake.say(output("a", "he"), output("b", "wo"), output("stranger", "?"))
    fake.say(output("b", "rld", finish=FinishReason.STOP))
    fake.say(output("a", "llo", finish=FinishReason.LENGTH))
    first, second = [await stream for stream in streams]
    assert [one.text for one in first] == ["he", "llo"]
    assert [one.text for one in second] == ["wo", "rld"]
    assert {one.request_id for one in first} == {"a"}
    assert second[-1].finish_reason == "stop"
    assert second[-1].token_ids[-1] == 256


async def test_special_tokens_that_a_request_keeps_are_part_of_its_text(
    client: EngineClient, fake: FakeEngine
) -> None:
    begin = client.tokenizer.token_to_id("<|begin|>")
    streams = [
        asyncio.create_task(collect(client.generate(Request(name, [1], kept_tokens=kept))))
        for name, kept in (("a", [begin]), ("b", []))
    ]
    assert [await fake.hears(), await fake.hears()]
    for name in "ab":
        said = output(name, "so", finish=FinishReason.STOP)
        said.token_ids.insert(1, begin)
        fake.say(said)
    [kept], [dropped] = [await stream for stream in streams]
    assert (kept.text, dropped.text) == ("s<|begin|>o", "so")


async def test_the_token_that_ended_it_has_no_text(client: EngineClient, fake: FakeEngine) -> None:
    stream = asyncio.create_task(collect(client.generate(request("a"))))
    await fake.hears()
    ended = output("a", "so!")
    ended.finish_reason, ended.stop_reason = FinishReason.STOP, ended.token_ids[-1]
    fake.say(ended)
    [whole] = await stream
    assert (whole.text, len(whole.token_ids)) == ("so", 3)


async def test_a_finished_request_is_not_aborted(client: EngineClient, fake: FakeEngine) -> None:
    stream = asyncio.create_task(collect(client.generate(request("a"))))
    assert isinstance(await fake.hears(), Add)
    fake.say(output("a", "x", finish=FinishReason.LENGTH))
    await stream
    await client.stop()
    assert fake.received.empty()


async def test_who_leaves_early_is_aborted(client: EngineClient, fake: FakeEngine) -> None:
    stream = client.generate(request("a"))
    first = asyncio.create_task(anext(stream))
    await fake.hears()
    fake.say(output("a", "x"))
    assert (await first).text == "x"
    await stream.aclose()
    assert await fake.hears() == Abort("a")
    # What was under way for it reaches nobody, and others are served on.
    fake.say(output("a", "y"))
    other = asyncio.create_task(collect(client.generate(request("b"))))
    await fake.hears()
    fake.say(output("b", "z", finish=FinishReason.LENGTH))
    assert [one.text for one in await other] == ["z"]


async def test_who_is_cancelled_while_it_waits_is_aborted(
    client: EngineClient, fake: FakeEngine
) -> None:
    task = asyncio.create_task(collect(client.generate(request("a"))))
    await fake.hears()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await fake.hears() == Abort("a")


async def test_leaving_an_engine_that_is_just_gone_is_no_error(
    client: EngineClient, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer left by itself; that nobody can be told of it must not surprise it."""
    stream = client.generate(request("a"))
    first = asyncio.create_task(anext(stream))
    await fake.hears()
    fake.say(output("a", "x"))
    await first

    async def broken() -> None:
        raise ConnectionResetError

    monkeypatch.setattr(client._engine._writer, "drain", broken)
    await stream.aclose()


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refused("a", "ContextLengthExceeded", "too long", "messages"), ContextLengthExceeded),
        (Refused("a", "EngineOverloaded", "9 wait", None), EngineOverloaded),
    ],
)
async def test_a_refusal_reaches_the_request_it_is_for(
    refusal: Refused, error: type[EngineError], client: EngineClient, fake: FakeEngine
) -> None:
    streams = [asyncio.create_task(collect(client.generate(request(name)))) for name in "ab"]
    for _ in streams:
        await fake.hears()
    fake.send(encode(refusal))
    with pytest.raises(error, match=refusal.message) as refused:
        await streams[0]
    assert getattr(refused.value, "field", None) == refusal.field
    fake.say(output("b", "fine", finish=FinishReason.LENGTH))
    assert [one.text for one in await streams[1]] == ["fine"]
    await client.stop()
    assert fake.received.empty(), "what was refused needs no abort"


async def test_room_is_what_runs_and_what_may_wait(client: EngineClient, fake: FakeEngine) -> None:
    client.config = replace(client.config, max_num_seqs=2, max_waiting=3)
    streams = [asyncio.create_task(collect(client.generate(request(name)))) for name in "ab"]
    for _ in streams:
        await fake.hears()
    client.check_room(3)
    with pytest.raises(EngineOverloaded):
        client.check_room(4)
    for name in "ab":
        fake.say(output(name, "x", finish=FinishReason.LENGTH))
    await asyncio.gather(*streams)
    client.check_room(5)


async def test_what_cannot_be_computed_is_told_and_not_aborted(
    client: EngineClient, fake: FakeEngine
) -> None:
    stream = asyncio.create_task(collect(client.generate(request("a"))))
    await fake.hears()
    fake.say(RequestOutput("a", [], finish_reason=FinishReason.ABORT, error="it is cursed"))
    with pytest.raises(RequestFailed, match="it is cursed"):
        await stream
    await client.stop()
    assert fake.received.empty()


async def test_a_stop_string_ends_the_answer_and_aborts_the_rest(
    client: EngineClient, fake: FakeEngine
) -> None:
    params = {"stop": ("END",), "logprobs": 0}
    stream = asyncio.create_task(collect(client.generate(request("a", **params))))
    await fake.hears()
    for text in ("so E", "ND and more"):
        piece = output("a", text)
        piece.logprobs = [TokenLogprob(token, -1.0, [], 1) for token in piece.token_ids]
        piece.sources = [1] * len(piece.token_ids)
        fake.say(piece)
    whole = await stream
    assert "".join(one.text for one in whole) == "so "
    last = whole[-1]
    assert (last.finish_reason, last.stop_reason) == (FinishReason.STOP, "END")
    assert len(last.token_ids) == len(last.logprobs or []) == last.num_generated_tokens == 2
    assert last.sources == [1, 1]
    assert await fake.hears() == Abort("a")


async def test_counters_and_heartbeat_come_with_every_message(
    client: EngineClient, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1e6]
    monkeypatch.setattr(engine.supervisor, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    fake.say(stats=EngineStats(num_running=3))
    await until(lambda: client.stats.num_running == 3)
    clock[0] += 7.0
    assert client.heartbeat_age == 7.0


def nonsense(fake: FakeEngine) -> None:
    fake.send((1).to_bytes(HEADER_BYTES, "big") + b"\xc1")


def oversized(fake: FakeEngine) -> None:
    fake.send((MAX_BYTES + 1).to_bytes(HEADER_BYTES, "big"))


@pytest.mark.parametrize("death", [FakeEngine.hang_up, nonsense, oversized])
async def test_an_engine_that_dies_fails_its_requests_and_is_started_afresh(
    death: Callable[[FakeEngine], None], client: EngineClient, fake: FakeEngine
) -> None:
    streams = [asyncio.create_task(collect(client.generate(request(name)))) for name in "ab"]
    for _ in streams:
        await fake.hears()
    death(fake)
    for stream in streams:
        with pytest.raises(EngineDead, match="may be sent again"):
            await stream
    await until(lambda: client.is_ready and len(fake.starts) == 2)
    assert client.num_restarts == 1
    stream = asyncio.create_task(collect(client.generate(request("c"))))
    # The dead ones are not aborted on the fresh engine.
    assert await fake.hears() == Add(request("c"))
    fake.say(output("c", "again", finish=FinishReason.LENGTH))
    assert [one.text for one in await stream] == ["again"]


async def test_an_engine_that_does_not_come_back_is_started_until_it_does(
    client: EngineClient, fake: FakeEngine
) -> None:
    fake.answers = [None, Failed("EngineError", "no memory"), Ready(INFO)]
    fake.hang_up()
    await until(lambda: client.is_ready and client.num_restarts == 3)


async def test_adapters_are_known_as_the_engine_has_them(
    client: EngineClient, fake: FakeEngine
) -> None:
    loading = asyncio.create_task(client.load_adapter("new", "here"))
    asked = await fake.hears()
    assert isinstance(asked, LoadAdapter)
    assert (asked.name, asked.folder) == ("new", "here")
    assert client.info.adapters == {"first": "there"}
    fake.send(encode(AdaptersChanged(asked.request_id, {"first": "there", "new": "here"})))
    await loading
    assert list(client.info.adapters.items()) == [("first", "there"), ("new", "here")]

    unloading = asyncio.create_task(client.unload_adapter("first"))
    dropped = await fake.hears()
    assert isinstance(dropped, UnloadAdapter)
    assert dropped.request_id != asked.request_id
    fake.send(encode(AdaptersChanged(dropped.request_id, {"new": "here"})))
    await unloading
    assert client.info == replace(INFO, adapters={"new": "here"})


@pytest.mark.parametrize(
    ("kind", "error", "field"),
    [("AdapterRefused", AdapterRefused, "path"), ("NoFreeSlot", NoFreeSlot, None)],
)
async def test_a_refused_adapter_is_told_to_who_asked(
    client: EngineClient, fake: FakeEngine, kind: str, error: type[EngineError], field: str | None
) -> None:
    loading = asyncio.create_task(client.load_adapter("new", "here"))
    asked = await fake.hears()
    assert isinstance(asked, LoadAdapter)
    fake.send(encode(Refused(asked.request_id, kind, "why", field)))
    with pytest.raises(error, match="why") as refused:
        await loading
    assert getattr(refused.value, "field", None) == field
    assert client.info == INFO


async def test_a_change_is_noted_where_nobody_waits_for_it_any_more(
    client: EngineClient, fake: FakeEngine
) -> None:
    loading = asyncio.create_task(client.load_adapter("new", "here"))
    asked = await fake.hears()
    assert isinstance(asked, LoadAdapter)
    loading.cancel()
    fake.send(encode(AdaptersChanged(asked.request_id, {"new": "here"})))
    await until(lambda: client.info.adapters == {"new": "here"})


async def test_a_fresh_engine_is_given_the_adapters_of_the_last(
    client: EngineClient, fake: FakeEngine, config: EngineConfig
) -> None:
    fake.send(encode(AdaptersChanged("-", {"first": "there", "new": "here"})))
    await until(lambda: "new" in client.info.adapters)
    loading = asyncio.create_task(client.load_adapter("late", "here"))
    await fake.hears()
    fake.answers = [None, Ready(replace(INFO, adapters={"new": "here"}))]
    fake.hang_up()
    with pytest.raises(EngineDead, match="may be sent again"):
        await loading
    await until(lambda: client.is_ready and len(fake.starts) == 3)
    had = replace(config, adapters={"first": "there", "new": "here"})
    # As often as it takes, and always without those it cannot load.
    assert fake.starts[1:] == [Start(had, skip_bad_adapters=True)] * 2
    assert client.info.adapters == {"new": "here"}


async def test_while_there_is_no_engine_requests_fail_at_once(
    client: EngineClient, fake: FakeEngine
) -> None:
    fake.answers = [None]
    fake.hang_up()
    await until(lambda: not client.is_ready)
    with pytest.raises(EngineDead, match="not ready"):
        await collect(client.generate(request("a")))
    with pytest.raises(EngineDead, match="not ready"):
        await client.unload_adapter("first")


async def test_an_engine_that_dies_again_and_again_is_given_up(
    client: EngineClient, fake: FakeEngine
) -> None:
    running = asyncio.create_task(collect(client.generate(request("a"))))
    await fake.hears()
    fake.answers = [Ready(INFO), None, Failed("EngineError", "no memory")]
    fake.hang_up()
    await until(lambda: client.is_ready and client.num_restarts == 1)
    fake.hang_up()
    async with asyncio.timeout(SECONDS):
        await client.failed.wait()
    assert (client.num_restarts, len(fake.starts), client.is_ready) == (3, 4, False)
    with pytest.raises(EngineDead, match="may be sent again"):
        await running
    with pytest.raises(EngineDead, match="not ready"):
        await collect(client.generate(request("b")))


async def test_old_restarts_do_not_count(
    client: EngineClient, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.supervisor, "RESTART_WINDOW", -1.0)
    for number in range(1, 6):
        fake.hang_up()
        await until(lambda number=number: client.is_ready and client.num_restarts == number)
    assert not client.failed.is_set()


async def test_a_fresh_engine_that_never_becomes_ready_is_tried_again(
    client: EngineClient, fake: FakeEngine
) -> None:
    client.watchdog_timeout, client._load_seconds = 0.05, 0.0
    fake.silent = True
    fake.hang_up()
    await until(lambda: len(fake.starts) == 2)
    fake.silent = False
    await until(lambda: client.is_ready)
    assert client.num_restarts == len(fake.starts) - 1 >= 2


async def test_a_silent_engine_is_killed(
    client: EngineClient, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = asyncio.Event()
    monkeypatch.setattr(engine.supervisor, "WATCH_SECONDS", 0.01)
    watch = asyncio.create_task(client._watch())
    monkeypatch.setattr(client._engine, "kill", killed.set)
    # As after a pause of both processes: nothing was heard, but it had no time to say anything.
    client._last_beat -= 10 * client.watchdog_timeout
    await asyncio.sleep(0.05)
    fake.say(stats=EngineStats(num_running=1))
    await until(lambda: client.stats.num_running == 1)
    assert not killed.is_set()
    client.watchdog_timeout = 0.05
    async with asyncio.timeout(SECONDS):
        await killed.wait()
    watch.cancel()


async def test_stopping_fails_what_still_runs(client: EngineClient, fake: FakeEngine) -> None:
    stream = asyncio.create_task(collect(client.generate(request("a"))))
    await fake.hears()
    await client.stop()
    with pytest.raises(EngineDead, match="was stopped"):
        await stream
    assert not client.is_ready
