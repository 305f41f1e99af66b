"""The page at / is one file that loads nothing; its figures are for this machine or the admin."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

from engine.stats import EngineStats, SpecDecodingStats
from server.page import page
from tests.server.conftest import MakeHttp
from tests.server.stub import StubClient
from tests.server.wire import CHAT, chat, error_of

STATS = "/v1/stats"
SPELLINGS = pytest.mark.parametrize("path", [STATS, "/stats"])
LOCAL = {"host": "127.0.0.1:8000"}


async def test_the_page_is_open_where_keys_are_asked_for(make_http: MakeHttp) -> None:
    async with make_http(api_keys=("one",)) as http:
        answer = await http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    assert len(answer.content) < 100_000


def test_the_page_refers_to_nothing_outside_itself() -> None:
    html = page()[0].decode()
    assert re.findall(r"(?:src|href)=[\"']?([^\"'\s>]+)", html) == ["data:,", "#message"]
    assert not re.search(r"https?://|url\(|@import|\bimport\b", html)


def test_model_text_has_no_way_to_become_html() -> None:
    html = page()[0].decode()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in html


async def test_the_policy_lets_run_what_the_page_holds_and_nothing_else(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.get("/")
    rules = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (inline,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert " style=" not in answer.text, "the policy would refuse it"


async def test_the_figures_are_gauges_and_totals(
    http: httpx.AsyncClient, client: StubClient
) -> None:
    client.stats = EngineStats(
        num_running=2,
        num_waiting=1,
        kv_cache_usage=0.25,
        speculation=SpecDecodingStats(acceptance_lengths=[3, 1, 2]),
    )
    await http.post(CHAT, json=chat())
    stats = (await http.get(STATS, headers=LOCAL)).json()
    assert stats.pop("now") > 0
    assert stats.pop("first_token_seconds") > 0
    assert stats == {
        "num_running": 2,
        "num_waiting": 1,
        "kv_cache_usage": 0.25,
        "generation_tokens": 11,
        "first_tokens": 1,
        "decoding_forwards": 6,
        "decoded_tokens": 11,
    }


@SPELLINGS
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:80", "127.8.9.1"])
async def test_this_machine_sees_the_figures_without_a_key(
    make_http: MakeHttp, host: str, path: str
) -> None:
    async with make_http(api_keys=("one",), admin_key="admin") as http:
        assert (await http.get(path, headers={"host": host})).status_code == 200


@SPELLINGS
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "server"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "[::1"},
        {**LOCAL, "x-forwarded-for": "127.0.0.1"},
        {**LOCAL, "x-real-ip": "10.0.0.1"},
        {**LOCAL, "forwarded": "for=127.0.0.1"},
        {"host": "server", "authorization": "Bearer one"},
    ],
    ids=str,
)
async def test_a_request_from_elsewhere_needs_the_admin_key(
    make_http: MakeHttp, headers: dict[str, str], path: str
) -> None:
    async with make_http(api_keys=("one",)) as http:
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "admin_disabled")
    async with make_http(api_keys=("one",), admin_key="admin") as http:
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        answer = await http.get(path, headers={**headers, "authorization": "Bearer admin"})
        assert answer.status_code == 200
