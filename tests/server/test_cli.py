"""The command line: what its options become."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from engine.errors import EngineError
from server import cli
from server.commands import chat, model_options, quantities, serve
from server.commands.base import Command

MIB = 1024**2


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.NAME)
def test_every_command_explains_itself(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command.NAME, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert f"bita {command.NAME}" in text
    assert "example" in text


def test_options_become_the_configuration(tmp_path: Path) -> None:
    given = ["--model", str(tmp_path), "--adapter", "a=x", "--adapter", "b=y", "--threads", "2"]
    given += ["--tensor-parallel-size", "2"]
    given += ["--kv-cache-memory", "512MiB", "--no-prefix-caching", "--api-key", "k"]
    config = serve.config_of(options(*given))
    assert config.engine.model == str(tmp_path)
    assert config.engine.adapters == {"a": "x", "b": "y"}
    assert config.engine.kv_cache_memory == 512 * MIB
    assert config.engine.num_threads == 2
    assert config.engine.tensor_parallel_size == 2
    assert not config.engine.prefix_caching
    assert config.api_keys == ("k",)
    assert config.max_body_bytes == 4 * MIB
    assert config.model_names == (tmp_path.name,)


def test_the_environment_speaks_where_the_command_line_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITA_MODEL", str(tmp_path))
    monkeypatch.setenv("BITA_PORT", "9000")
    monkeypatch.setenv("BITA_API_KEY", "a,b")
    config = serve.config_of(options())
    assert (config.port, config.api_keys) == (9000, ("a", "b"))
    config = serve.config_of(options("--port", "1", "--api-key", "c"))
    assert (config.port, config.api_keys) == (1, ("c",))


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("512MiB", 512 * MIB), ("1.5GiB", 1536 * MIB), ("2 kib", 2048)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert quantities.byte_count(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4GB", "-1"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        quantities.byte_count(text)


@pytest.mark.parametrize(
    ("given", "drafters"),
    [([], ("bita", "ngram", "prediction", "grammar")), (["ngram"], ("ngram",)), ([""], ())],
    ids=["all", "one", "none"],
)
def test_drafters_are_named(tmp_path: Path, given: list[str], drafters: tuple[str, ...]) -> None:
    flag = ["--drafters", *given] if given else []
    config = serve.config_of(options("--model", str(tmp_path), *flag))
    assert config.engine.drafters == drafters


def test_an_unknown_drafter_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no drafter oracle; there are bita"):
        model_options.drafter_names("bita,oracle")


def test_parsers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = serve.config_of(options("--model", str(tmp_path)))
    assert (config.tool_call_parser, config.reasoning_parser) == ("auto", "auto")
    given = ["--tool-call-parser", "llama3", "--reasoning-parser", "none"]
    config = serve.config_of(options("--model", str(tmp_path), *given))
    assert (config.tool_call_parser, config.reasoning_parser) == ("llama3", "none")
    monkeypatch.setenv("BITA_TOOL_CALL_PARSER", "llama9")
    with pytest.raises(SystemExit):
        options("--model", str(tmp_path))


def test_adapters_may_come_and_go_where_somebody_holds_the_admin_key(tmp_path: Path) -> None:
    given = ["--model", str(tmp_path), "--adapter", "a=x"]
    config = serve.config_of(options(*given))
    assert (config.admin_key, config.adapter_dir, config.engine.max_adapters) == (None, None, 0)
    admin = [*given, "--admin-key", "k", "--adapter-dir", str(tmp_path)]
    config = serve.config_of(options(*admin))
    assert (config.admin_key, config.adapter_dir) == ("k", tmp_path)
    assert config.engine.max_adapters == 4
    config = serve.config_of(options(*admin, "--max-adapters", "1"))
    assert config.engine.max_adapters == 1
    five = [word for name in "bcdef" for word in ("--adapter", f"{name}=x")]
    assert serve.config_of(options(*admin, *five)).engine.max_adapters == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--admin-key", "k", "--api-key", "k"], "--admin-key must differ"),
        (["--adapter-dir", "."], "without --admin-key"),
        (["--admin-key", "k", "--adapter-dir", "./none"], "no folder ./none"),
        (["--adapter", "a=x", "--adapter", "b=x", "--max-adapters", "1"], "2 adapters are given"),
        (["--max-adapters", "-1"], "at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, given: list[str], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        serve.config_of(options("--model", str(tmp_path), *given))


def test_an_empty_variable_is_no_admin_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BITA_ADMIN_KEY", "BITA_ADAPTER_DIR"):
        monkeypatch.setenv(name, "")
    config = serve.config_of(options("--model", str(tmp_path)))
    assert (config.admin_key, config.adapter_dir) == (None, None)


@pytest.mark.parametrize("adapter", ["x", "=x", "a b=x", "a=", ".a=x"])
def test_an_adapter_needs_a_name_and_a_folder(tmp_path: Path, adapter: str) -> None:
    with pytest.raises(EngineError, match="NAME=DIR"):
        serve.config_of(options("--model", str(tmp_path), "--adapter", adapter))


def test_a_model_that_is_not_there_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--model", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_chat_reads_a_stream_and_its_receipt() -> None:
    text = {"choices": [{"delta": {"content": "Hi"}}]}
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in (text, text)) + "data: [DONE]\n\n"
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=lines))
    with httpx.Client(transport=transport, base_url="http://server") as http:
        assert list(chat.stream(http, {})) == [text, text]


def test_chat_repeats_the_servers_own_error() -> None:
    body = {"error": {"message": "no such model"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(404, json=body))
    with (
        httpx.Client(transport=transport, base_url="http://server") as http,
        pytest.raises(chat.ServerError, match="no such model"),
    ):
        list(chat.stream(http, {}))


def test_reasoning_is_shown_apart_from_the_answer() -> None:
    deltas = [{"reasoning_content": "so "}, {"reasoning_content": "so"}, {"content": "Hi."}]
    events = [{"choices": [{"delta": delta}]} for delta in deltas]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=text))
    shown = io.StringIO()
    with httpx.Client(transport=transport, base_url="http://server") as http:
        answer = chat._ask(Console(file=shown), http, {})
    assert answer.text == "Hi."
    assert shown.getvalue() == "model so so\n\nHi.\n"
