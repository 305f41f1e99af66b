"""Prompts are kept where the operator asks for it, in a form that tuning reads."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from adapters.tuning import files, prompts
from adapters.tuning.prompts import Conversation
from engine.errors import EngineError
from server.prompt_log import PromptLog
from tests.server.conftest import MakeHttp
from tests.server.stub import MODEL

TOOL = {"type": "function", "function": {"name": "book"}}
HELLO = {"role": "user", "content": "Hello <|end|> ü"}


async def chat(http: httpx.AsyncClient, **more: object) -> None:
    body = {"model": MODEL, "messages": [HELLO], "max_tokens": 2, **more}
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_a_logged_conversation_is_one_that_tuning_reads(
    make_http: MakeHttp, tmp_path: Path
) -> None:
    file = tmp_path / "asked.jsonl"
    http = make_http(prompt_log=file)
    await chat(http)
    await chat(http, tools=[TOOL])
    completion = {"model": MODEL, "prompt": "raw text", "max_tokens": 2}
    assert (await http.post("/v1/completions", json=completion)).status_code == 200
    assert prompts.load(file) == [Conversation([HELLO]), Conversation([HELLO], [TOOL])]
    assert file.stat().st_mode & 0o077 == 0


async def test_nothing_is_kept_by_default(http: httpx.AsyncClient, tmp_path: Path) -> None:
    before = below(tmp_path)
    await chat(http)
    assert below(tmp_path) == before


async def test_a_model_without_a_template_logs_its_plain_prompts(
    make_http: MakeHttp, tmp_path: Path
) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (tmp_path / MODEL / name).unlink(missing_ok=True)
    http = make_http(prompt_log=tmp_path / "asked.jsonl")
    completion = {"model": MODEL, "prompt": ["one", "two"], "max_tokens": 2}
    assert (await http.post("/v1/completions", json=completion)).status_code == 200
    said = [c.messages[0]["content"] for c in prompts.load(tmp_path / "asked.jsonl")]
    assert said == ["one", "two"]


async def test_a_full_disk_does_not_keep_a_request_from_its_answer(
    make_http: MakeHttp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    http = make_http(prompt_log=tmp_path / "asked.jsonl")

    def full(file: Path, _: str) -> None:
        with files.writing(file):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "append", full)
    await chat(http)
    assert "asked.jsonl cannot be written: No space left on device" in caplog.text


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--log-prompts"):
        PromptLog(tmp_path / "none" / "asked.jsonl")
