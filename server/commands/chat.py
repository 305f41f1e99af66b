"""bita chat: a conversation in the terminal, with the speed of every answer below it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.commands.base import option

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

NAME = "chat"
HELP = "Chat in the terminal with a server that is running."
EXAMPLE = """examples:
  bita chat
      with `bita serve` on this machine
  bita chat --url http://gpu-box:8000 --api-key secret --system "Answer in one sentence."
      with a server elsewhere

Ctrl-D ends the conversation, Ctrl-C an answer, /new begins another conversation.
"""

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 600.0


class ServerError(Exception):
    """The server refused; the message is its own."""


@dataclass(slots=True)
class Answer:
    """What came of one question. seconds: from the first token to the last."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    acceptance_length: float | None = None

    def summary(self) -> str:
        """Its speed in one line."""
        rate = (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds else 0.0
        parts = [f"{self.tokens} tokens", f"{rate:.1f} tokens/s"]
        if self.acceptance_length is not None:
            parts.append(f"{self.acceptance_length:.2f} tokens a forward")
        return " · ".join(parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita chat`."""
    option(
        parser,
        "--url",
        default="http://127.0.0.1:8000",
        help="The server's address (default: %(default)s).",
    )
    parser.add_argument("--model", help="Model or adapter to ask (default: the server's first).")
    parser.add_argument("--system", metavar="TEXT", help="What the model is told beforehand.")
    option(parser, "--api-key", default=None, metavar="KEY", help="The key to send, if any.")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="Longest answer.")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 always says the likeliest (default: 0)."
    )
    parser.add_argument(
        "--no-speculation",
        action="store_true",
        help="Decode one token at a time: the same words, to compare the speed.",
    )


def run(options: argparse.Namespace) -> int:
    """Converse until the input ends."""
    import httpx
    from rich.console import Console

    console = Console(highlight=False)
    headers = {"authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    try:
        with httpx.Client(base_url=options.url, headers=headers, timeout=timeout) as http:
            model = options.model or _first_model(http)
            console.print(f"[dim]{model} at {options.url}; Ctrl-D ends[/dim]")
            converse(console, http, request_of(options, model))
    except (httpx.TransportError, ServerError) as error:
        console.print(f"bita: {options.url}: {error}", style="red", markup=False)
        return 1
    return 0


def request_of(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """The request that every question is added to."""
    system = [{"role": "system", "content": options.system}] if options.system else []
    request: dict[str, Any] = {
        "model": model,
        "messages": system,
        "temperature": options.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.max_tokens is not None:
        request["max_tokens"] = options.max_tokens
    if options.no_speculation:
        request["speculation"] = {"enabled": False}
    return request


def converse(console: Console, http: httpx.Client, request: dict[str, Any]) -> None:
    """Read questions and print answers until the input ends."""
    opening = list(request["messages"])
    messages = request["messages"] = list(opening)
    while True:
        try:
            question = console.input("[bold cyan]you[/bold cyan] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if question == "/new":
            messages[:] = opening
        elif question:
            messages.append({"role": "user", "content": question})
            reply = _ask(console, http, request)
            messages.append({"role": "assistant", "content": reply.text})
            console.print(f"[dim]{reply.summary()}[/dim]")


def _ask(console: Console, http: httpx.Client, request: dict[str, Any]) -> Answer:
    """Print an answer as it comes; Ctrl-C keeps what has come so far."""
    console.print("[bold green]model[/bold green] ", end="")
    reply = Answer()
    first: float | None = None
    thinking = False
    try:
        for chunk in stream(http, request):
            now = time.perf_counter()
            for choice in chunk["choices"]:
                text = choice["delta"].get("content") or ""
                thought = choice["delta"].get("reasoning_content") or ""
                first = now if first is None and (text or thought) else first
                console.print(thought, end="", style="dim", markup=False, soft_wrap=True)
                if text and thinking:
                    console.print("\n")
                thinking = bool(thought) or (thinking and not text)
                reply.text += text
                console.print(text, end="", markup=False, soft_wrap=True)
            if chunk.get("usage"):
                reply.tokens = chunk["usage"]["completion_tokens"]
                reply.acceptance_length = _acceptance_length(chunk)
            elif first is not None:
                reply.seconds = now - first
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/dim]", end="")
    console.print()
    return reply


def stream(http: httpx.Client, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of one answer; raises ServerError where the server reports one."""
    with http.stream("POST", "/v1/chat/completions", json=request) as response:
        if response.is_error:
            response.read()
            raise ServerError(message_of(response))
        for line in response.iter_lines():
            data = line.removeprefix("data: ")
            if not line or data == "[DONE]":
                continue
            chunk: dict[str, Any] = json.loads(data)
            if "error" in chunk:
                raise ServerError(chunk["error"]["message"])
            yield chunk


def _acceptance_length(chunk: dict[str, Any]) -> float | None:
    receipt = chunk.get("metrics", {}).get("speculative_decoding")
    return None if receipt is None else float(receipt["mean_acceptance_length"])


def _first_model(http: httpx.Client) -> str:
    response = http.get("/v1/models")
    if response.is_error:
        raise ServerError(message_of(response))
    name: str = response.json()["data"][0]["id"]
    return name


def message_of(response: httpx.Response) -> str:
    """What a server says of its refusal."""
    try:
        message: str = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
    return message
