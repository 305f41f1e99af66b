"""bita batch: a file of requests, answered without a server of one's own to look after."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from server.commands import model_options
from server.commands.base import option

NAME = "batch"
HELP = "Answer a whole file of requests, in OpenAI's batch file format."
EXAMPLE = """examples:
  bita batch -i requests.jsonl -o answers.jsonl
      with the embedded model; stopped, the same command goes on where it was
  bita batch -i requests.jsonl -o answers.jsonl --model ./Qwen2.5-0.5B-Instruct --adapter fast=./a
      with a model of your own
  bita batch -i requests.jsonl -o answers.jsonl --url http://gpu-box:8000 --api-key secret
      with a server that runs already

A line of requests.jsonl is one request: a name of its own, where it goes, and what is asked.
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model":
   "bita-concierge", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}}
(on one line.) Its answer, a line of answers.jsonl, in whatever order they end:
  {"id": "batch_req_...", "custom_id": "1", "response": {"status_code": 200, "request_id": "...",
   "body": {...}}, "error": null}

`body` is what the API takes at that `url`, and `response.body` what it answers; `stream` is not
possible. A line that is no request gets a record whose `error` names the line. What has no
answer (status 200) when the command ends is asked again when it is started again.

The exit status is 0 if every request was answered, 1 if some were not, 130 after Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bita batch`."""
    add = parser.add_argument
    add("-i", "--input", required=True, type=Path, metavar="FILE", help="requests, one a line")
    add(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="answers, one a line; those it has already are kept and not asked for again",
    )
    add(
        "--concurrency",
        default=64,
        type=int,
        metavar="N",
        help="requests under way at once (default: %(default)s)",
    )
    running = parser.add_argument_group("a server that runs already, in place of a model here")
    running.add_argument("--url", help="Its address, such as http://127.0.0.1:8000.")
    option(running, "--api-key", default=None, metavar="KEY", help="The key to send it, if any.")
    others = set(parser._actions)
    model_options.add_model_arguments(parser)
    model_options.add_answer_arguments(parser)
    model_options.add_engine_arguments(parser)
    here = [action for action in parser._actions if action not in others]
    parser.set_defaults(here={a.dest: (a.option_strings[0], _value(a)) for a in here})


def _value(action: argparse.Action) -> object:
    """An option's value where the command line does not give it."""
    if isinstance(action.default, str) and callable(action.type):
        return action.type(action.default)
    return action.default


def run(options: argparse.Namespace) -> int:
    """Ask what has no answer yet, and say how it went; the exit status."""
    from adapters.errors import AdapterError
    from engine.errors import EngineError
    from server.commands.batch.errors import BatchError
    from server.commands.batch.work import work

    try:
        _check(options)
        summary = asyncio.run(work(options))
    except (AdapterError, BatchError, EngineError) as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or options.output}: {error.strerror or error}"
    except KeyboardInterrupt:
        print("bita batch: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    else:
        print(summary.text())
        return 1 if summary.failed else 0
    print(f"bita batch: {reason}", file=sys.stderr)
    return 1


def _check(options: argparse.Namespace) -> None:
    """Raises BatchError for options that cannot be meant."""
    from server.commands.batch.errors import BatchError

    if options.concurrency < 1:
        raise BatchError("--concurrency must be at least 1")
    if not options.input.is_file():
        raise BatchError(f"--input: there is no file {options.input}")
    if options.output.exists() and options.output.samefile(options.input):
        raise BatchError("--output must be another file than --input")
    if options.url is not None:
        for name, (flag, default) in options.here.items():
            if getattr(options, name) != default:
                raise BatchError(f"{flag} has no effect on the server at --url")
