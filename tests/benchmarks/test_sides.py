"""What each server is started with and asked."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.sessions import Call
from benchmarks.sides.llama_cpp import llama_cpp
from benchmarks.sides.ours import bita, plain, prediction
from benchmarks.sides.server import Server, Side
from benchmarks.sides.transformers_serve import transformers_serve
from models import DEFAULT_ADAPTER, DEFAULT_MODEL
from server.schemas.completions import CompletionRequest

MODEL, ADAPTER = Path(DEFAULT_MODEL), Path(DEFAULT_ADAPTER)
CALL = Call("Hi", [5, 6], 32, ignore_eos=True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_our_server_is_asked_what_it_knows(temperature: float) -> None:
    fast, slow = (
        CompletionRequest.model_validate(side.body(CALL, temperature))
        for side in (bita(MODEL, ADAPTER), plain(MODEL))
    )
    assert fast.speculation is None
    assert slow.speculation is not None
    assert slow.speculation.enabled is False
    assert fast.temperature == slow.temperature == temperature
    assert fast.ignore_eos
    assert fast.include_usage


def test_a_prediction_is_sent_where_there_is_one() -> None:
    side = prediction(MODEL, ADAPTER)
    assert "prediction" not in side.body(CALL, 0.0)
    said = [{"role": "user", "content": "Hi"}]
    body = side.body(Call("Hi", [5], 8, prediction="Hello", messages=said), 0.0)
    assert body["prediction"] == {"type": "content", "content": "Hello"}
    assert body["messages"] == said
    assert "prompt" not in body


def test_all_sides_sample_from_the_whole_distribution_or_greedily() -> None:
    llama = llama_cpp(Path("llama-server"), Path("m.gguf"), "float32", 2, 4, 2048)
    stock = transformers_serve(MODEL, "float32")
    for temperature in (0.0, 1.0):
        config = json.loads(stock.body(CALL, temperature)["generation_config"])
        assert config["do_sample"] is (temperature > 0)
        assert config["max_new_tokens"] == CALL.max_tokens
    open_ended = {"top_k": 0, "top_p": 1.0, "temperature": 1.0}
    assert open_ended.items() <= config.items()
    assert {**open_ended, "min_p": 0.0, "prompt": [5, 6]}.items() <= llama.body(CALL, 1.0).items()


def test_a_server_that_does_not_start_shows_its_log() -> None:
    say = "import sys; sys.exit('no weights here')"
    side = Side("broken", lambda port: [sys.executable, "-c", say], lambda call, t: {})
    with pytest.raises(RuntimeError, match="broken did not start:\nno weights here"):
        Server(side).__enter__()


def test_a_server_is_there_in_its_context_and_gone_behind_it() -> None:
    say = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
    side = Side("small", lambda port: [sys.executable, "-c", say, str(port)], lambda call, t: {})
    with Server(side) as server:
        process = server.process
        assert process.poll() is None
    assert process.poll() is not None
