"""bita batch: lines in, records out, and what an interruption leaves to be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from engine.errors import EngineDead
from server import cli
from server.commands.batch import lines, records, target, work
from server.commands.batch.errors import BatchError
from server.commands.batch.lines import Broken, Item
from tests.server.stub import StubClient, model_folder
from tests.server.wire import CHAT, COMPLETIONS, chat, completion

Batch: TypeAlias = Callable[..., int]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(work, "_told_to_wait", lambda response: 0.0)


@pytest.fixture
def batch(client: StubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Runs the command on in.jsonl and out.jsonl, with the stub for its engine."""
    monkeypatch.setattr("engine.client.EngineClient", lambda config: client)
    model = model_folder(tmp_path)
    files = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]

    def run(*more: str) -> int:
        return cli.main(["batch", *files, "--model", str(model), *more])

    return run


def line(custom_id: str, url: str = CHAT, **fields: Any) -> str:
    body = chat() if url == CHAT else completion()
    item = {"custom_id": custom_id, "method": "POST", "url": url, "body": {**body, **fields}}
    return json.dumps(item) + "\n"


def written(folder: Path) -> dict[str, dict[str, Any]]:
    """The records, by custom_id."""
    found = [json.loads(text) for text in (folder / "out.jsonl").read_text().splitlines()]
    assert all(list(record) == ["id", "custom_id", "response", "error"] for record in found)
    return {record["custom_id"]: record for record in found}


def test_every_request_gets_the_answer_http_would_give(
    batch: Batch, client: StubClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.pieces = ["Grüße"]
    (tmp_path / "in.jsonl").write_text(line("a", seed=3) + "\n" + line("b", COMPLETIONS))
    assert batch() == 0
    found = written(tmp_path)
    assert found["a"]["id"].startswith("batch_req_")
    assert found["a"]["error"] is None
    response = found["a"]["response"]
    assert response["status_code"] == 200
    assert response["request_id"]
    assert response["body"]["object"] == "chat.completion"
    assert response["body"]["choices"][0]["message"]["content"] == "Grüße"
    assert found["b"]["response"]["body"]["object"] == "text_completion"
    assert {request.sampling.seed for request in client.requests} == {3, None}
    assert not client.started
    out = capsys.readouterr().out
    assert "2 answered, 0 failed" in out
    assert "14 tokens in" in out
    assert "7.00 tokens a forward" in out


def test_a_run_taken_up_again_asks_only_what_has_no_answer(
    batch: Batch, client: StubClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "in.jsonl").write_text(line("a") + line("b") + line("c"))
    assert batch() == 0
    whole = out.read_bytes()
    before = dict(sorted(written(tmp_path).items()))
    out.write_bytes(whole[:-20])  # the last record was being written
    client.requests.clear()
    assert batch() == 0
    assert len(client.requests) == 1
    assert dict(sorted(written(tmp_path).items())).keys() == before.keys()
    assert out.read_bytes().startswith(b"".join(whole.splitlines(keepends=True)[:2]))
    client.requests.clear()
    assert batch() == 0
    assert not client.requests
    assert "nothing was left to ask: 3" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_record_cut_anywhere_is_dropped(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "out.jsonl"
    records.append(file, records.answered("a", 200, "r", {}))
    kept = file.read_bytes()
    file.write_bytes(kept + kept[:cut])
    assert records.resume(file) == {"a"}
    assert file.read_bytes() == kept


def test_refused_requests_are_told_and_asked_again(
    batch: Batch, client: StubClient, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(line("a") + line("b", temperature=9))
    assert batch() == 1
    refusal = written(tmp_path)["b"]["response"]
    assert refusal["status_code"] == 400
    assert refusal["body"]["error"]["param"] == "temperature"
    (tmp_path / "in.jsonl").write_text(line("a") + line("b", temperature=1))
    assert batch() == 0
    assert len(client.requests) == 2
    assert written(tmp_path)["b"]["response"]["status_code"] == 200


BROKEN = {
    "{": "is not JSON",
    "\udcff": "is not JSON",
    "[" * 100_000: "is not JSON",
    "[]": "a text as its 'custom_id'",
    '{"custom_id": 3}': "a text as its 'custom_id'",
    '{"custom_id": "x"}': "'method'",
    line("x", stream=True): "cannot stream",
    line("x").replace(CHAT, "/v1/adapters"): "'url' must be one of /v1/chat/completions",
    line("x").replace('"POST"', '"DELETE"'): "'method' must be",
    '{"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": 1}': "'body'",
    line("x").replace('"url"', '"priority": 1, "url"'): "unknown key 'priority'",
    line("a"): "line 1 has the same 'custom_id'",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(f"{line('a')}\n{text.strip()}\n{line('b')}".encode(errors="surrogateescape"))
    first, broken, last = lines.read(file)
    assert isinstance(first, Item)
    assert isinstance(last, Item)
    assert isinstance(broken, Broken)
    assert broken.number == 3
    assert BROKEN[text] in broken.message


def test_broken_lines_stop_nothing(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("nonsense\n" + line("a"))
    assert batch() == 1
    found = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    (error,) = [record["error"] for record in found if record["error"]]
    assert (error["code"], error["line"]) == ("invalid_line", 1)
    assert error["message"].startswith("line 1: it is not JSON")
    assert len(found) == 2


def test_an_engine_that_goes_away_leaves_the_request_open(
    batch: Batch, client: StubClient, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(line("a"))
    client.pieces, client.error = [], EngineDead("gone")
    assert batch() == 1
    assert len(client.requests) == work.ATTEMPTS
    assert written(tmp_path)["a"]["response"]["status_code"] == 503
    client.pieces, client.error = ["Hi"], None
    assert batch() == 0


def test_files_of_others_are_left_alone(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text(line("a"))
    for content in ("my diary\n", "my diary", '{"id": "batch_req_1"}\n'):
        (tmp_path / "out.jsonl").write_text(content)
        assert batch() == 1
        assert (tmp_path / "out.jsonl").read_text() == content
        assert "line 1 was not written by bita batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-i", "./none"], "there is no file none"),
        (["-o", "in.jsonl"], "must be another file"),
        (["-o", "none/out.jsonl"], "cannot be written"),
        (["--concurrency", "0"], "at least 1"),
        (["--url", "http://127.0.0.1:1"], "--model has no effect on the server at --url"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    batch: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text(line("a"))
    assert batch(*given) == 1
    assert said in capsys.readouterr().err


async def test_no_more_are_under_way_than_asked(client: StubClient, tmp_path: Path) -> None:
    under_way = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await work.asyncio.sleep(0)
        under_way -= 1
        return httpx.Response(200, json={}, headers={"x-request-id": "r"})

    items = [Item(str(number), CHAT, b"{}") for number in range(20)]
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="http://server"
    ) as http:
        found = [record async for record in work.ask_all(http, items, 3)]
    assert {record["custom_id"] for record in found} == {item.custom_id for item in items}
    assert most == 3


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([httpx.Response(429), httpx.Response(503), httpx.Response(200, json={})], None),
        ([httpx.Response(502, text="<html>")], "invalid_response"),
        ([httpx.ConnectError("refused")] * work.ATTEMPTS, "no_connection"),
    ],
    ids=["busy", "no JSON", "no connection"],
)
async def test_a_busy_server_is_asked_again(
    answers: list[httpx.Response | Exception], code: str | None
) -> None:
    left = iter(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        given = next(left)
        if isinstance(given, Exception):
            raise given
        return given

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        (record,) = [r async for r in work.ask_all(http, [Item("a", CHAT, b"{}")], 1)]
    assert next(left, None) is None
    assert (record["error"] and record["error"]["code"]) == code
    assert records.is_finished(record) == (code is None)


async def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(BatchError, match="--url http"):
        async with target.remote("http://127.0.0.1:1/v1", None, 1):
            pass
