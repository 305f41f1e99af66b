"""The page in a real Chromium, before the stubbed engine: what a person can see and do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from engine.request import FinishReason, Request, RequestOutput
from server.app import create_app
from tests.browser.chromium import chromium
from tests.server.stub import ADAPTER, MODEL, StubClient, model_folder, server_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
API_KEY = "key"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    try:
        context = chromium()
        browser = context.__enter__()
    except playwright.Error as error:
        pytest.skip(f"no Chromium to drive: {error}")
    yield browser
    context.__exit__(None, None, None)


@pytest.fixture
def client() -> StubClient:
    return StubClient()


@pytest.fixture
def url(client: StubClient, tmp_path: Path) -> Iterator[str]:
    """A real server around the stub."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(server_config(model_folder(tmp_path), api_keys=(API_KEY,)), client)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page with its key typed in; whatever the console says against it fails the test."""
    with browser.new_context() as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if "Content Security Policy" in said.text else None
            ),
        )
        page.goto(url)
        page.get_by_label("API key").fill(API_KEY)
        page.get_by_label("API key").press("Tab")
        page.locator("#model option").first.wait_for(state="attached")
        yield page
    assert not complaints


def say(page: Page, text: str = "Hi") -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def answered(page: Page) -> None:
    page.get_by_text("Ended by").last.wait_for()


def until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_answer_is_coloured_by_how_its_tokens_came(page: Page, client: StubClient) -> None:
    client.pieces = ("Hello ", "🙂")
    say(page)
    answered(page)
    tokens = page.locator("article.assistant .token")
    kinds = tokens.evaluate_all("all => all.map(t => t.className.replace('token ', ''))")
    assert kinds[:6] == ["bita-1", "ngram", "prediction", "bita-4", "bita-4", "model"]
    assert page.locator("article.assistant .said:visible").inner_text().strip() == "Hello 🙂"
    assert client.requests[0].trace
    assert "by the model itself" in page.locator(".tally").inner_text()
    figures = dict(
        zip(
            page.locator(".figures dt").all_inner_texts(),
            page.locator(".figures dd").all_inner_texts(),
            strict=True,
        )
    )
    assert figures["Ended by"] == "stop"
    assert figures["First token"].endswith(" ms")
    assert float(figures["Tokens a forward"]) > 1
    assert len(set(page.locator("#legend .token").evaluate_all(BACKGROUNDS))) == 8


BACKGROUNDS = "all => all.map(t => getComputedStyle(t).backgroundColor)"


def test_the_token_that_ends_an_answer_is_a_sign(page: Page, client: StubClient) -> None:
    async def ending(request: Request) -> AsyncIterator[RequestOutput]:
        yield RequestOutput(
            request.request_id,
            [*client.tokenizer.encode("Hi").ids, 256],
            "Hi",
            sources=[1, 1, 0],
            finish_reason=FinishReason.STOP,
            num_generated_tokens=3,
        )

    client.generate = ending  # type: ignore[assignment, method-assign]
    say(page)
    answered(page)
    assert page.locator("article.assistant .said:visible").inner_text() == "Hi"
    assert page.locator("article.assistant .token").count() == 3
    assert page.locator("article.assistant .token").last.get_attribute("data-sign") == "■"


def test_the_keyboard_walks_through_the_tokens(page: Page) -> None:
    say(page)
    answered(page)
    page.locator("article.assistant [role=group]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    said = 'Token 2 of 11: "e", drafted by n-grams at depth 2'
    assert page.locator("#status").inner_text() == said
    assert page.get_by_role("tooltip").inner_text() == "Token 2, drafted by n-grams at depth 2"
    page.keyboard.press("Escape")
    assert page.get_by_role("tooltip").count() == 0
    page.locator("article.assistant .token").first.hover()
    assert page.get_by_role("tooltip").inner_text() == "Token 1, drafted by BiTA at depth 1"


def test_what_a_model_writes_is_text_whatever_it_writes(page: Page, client: StubClient) -> None:
    client.pieces = ('<img src=x onerror="document.title=1"><b>bold', "</b><script>1</script>")
    say(page, "<i>me</i>")
    answered(page)
    assert page.locator("article :is(img, b, i, script)").count() == 0
    assert page.locator("article.assistant .said:visible").inner_text() == "".join(client.pieces)
    page.get_by_label("Colour tokens").uncheck()
    assert page.locator("article.assistant .said:visible").inner_text() == "".join(client.pieces)
    assert page.title() == "BiTA Serve"


def test_settings_reach_the_engine(page: Page, client: StubClient) -> None:
    page.get_by_label("Model or adapter").select_option(ADAPTER)
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("Top p").fill("0.9")
    page.get_by_label("Most tokens").fill("33")
    page.get_by_label("Seed").fill("5")
    page.get_by_label("N-grams").uncheck()
    page.locator("#predicted").fill("Hello")
    page.get_by_label("Colour tokens").uncheck()
    say(page)
    answered(page)
    (request,) = client.requests
    prompt = client.tokenizer.decode(request.token_ids)
    assert prompt == "<system>Be brief.<user>Hi<assistant>"
    assert request.adapter == ADAPTER
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p) == (0.7, 0.9)
    assert (sampling.max_tokens, sampling.seed) == (33, 5)
    assert request.drafters == {"bita": True, "ngram": False, "prediction": True}
    assert client.tokenizer.decode(request.prediction) == "Hello"
    assert request.speculation
    assert not request.trace
    page.get_by_label("Draft tokens").uncheck()
    page.get_by_role("button", name="Regenerate").click()
    until(lambda: len(client.requests) == 2)
    assert not client.requests[1].speculation


def test_a_setting_out_of_range_is_not_sent(page: Page, client: StubClient) -> None:
    page.get_by_label("Temperature").fill("7")
    say(page)
    assert page.get_by_role("alert").inner_text() == "A setting is out of its range."
    assert not client.requests


def test_stop_ends_the_generation_and_regenerate_asks_again(page: Page, client: StubClient) -> None:
    client.hang = True
    say(page)
    page.locator("article.assistant .token").nth(10).wait_for()
    page.get_by_role("button", name="Stop").click()
    answered(page)
    until(lambda: client.closed)
    assert "you" in page.locator(".figures dd").all_inner_texts()
    assert page.locator("article.assistant .said:visible").inner_text() == "Hello world"
    client.hang = False
    page.get_by_role("button", name="Regenerate").click()
    answered(page)
    assert page.locator("article").count() == 2
    assert client.requests[1].token_ids == client.requests[0].token_ids
    say(page, "And then?")
    until(lambda: len(client.requests) == 3)
    prompt = client.tokenizer.decode(client.requests[2].token_ids)
    assert prompt == "<user>Hi<assistant>Hello world<user>And then?<assistant>"


def test_an_answer_can_be_the_next_prediction(page: Page, client: StubClient) -> None:
    say(page)
    answered(page)
    page.get_by_role("button", name="Use as prediction").click()
    page.get_by_role("button", name="Regenerate").click()
    until(lambda: len(client.requests) == 2)
    assert client.tokenizer.decode(client.requests[1].prediction) == "Hello world"


def test_an_error_is_said_in_the_servers_words(page: Page, client: StubClient) -> None:
    client.is_ready = False
    say(page)
    alert = page.get_by_role("alert").filter(has_text="The engine is not ready.")
    alert.wait_for()
    client.is_ready, client.error, client.pieces = True, RuntimeError("broken"), ("Hel",)
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_role("alert").filter(has_text="The server had an error.").wait_for()
    assert page.locator("article.assistant .said:visible").inner_text() == "Hel"


def test_the_key_is_in_the_tabs_storage_alone(page: Page) -> None:
    assert page.evaluate("Object.values(sessionStorage)") == [API_KEY]
    assert page.evaluate("Object.values(localStorage)") == []
    assert page.evaluate("document.cookie") == ""
    page.get_by_label("API key").fill("wrong")
    page.get_by_label("API key").press("Tab")
    page.get_by_role("alert").filter(has_text="Incorrect API key provided").wait_for()


def test_the_tiles_follow_the_server(page: Page, client: StubClient) -> None:
    client.stats.num_running, client.stats.kv_cache_usage = 3, 0.5
    page.locator("[data-tile=running]").filter(has_text="3").wait_for()
    page.locator("[data-tile=kv]").filter(has_text="50 %").wait_for()
    say(page)
    answered(page)
    page.locator("[data-tile=ttft]").filter(has_text="ms").wait_for()


def test_light_and_dark_follow_the_system_and_the_switch(page: Page) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(back)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(back) != dark
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(back) == dark
    page.reload()
    assert page.evaluate(back) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_colour(page: Page, scheme: Any) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least."""
    page.emulate_media(color_scheme=scheme)
    assert min(page.evaluate(CONTRASTS)) > 4.5


CONTRASTS = """() => {
  const channels = (color) => color.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll("#legend .token:not(.model)")].map((token) => {
    const style = getComputedStyle(token);
    const [a, b] = [light(style.color), light(style.backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


def test_every_control_has_a_name(page: Page) -> None:
    controls = page.locator("button, input, select, textarea")
    assert controls.count() > 15
    for control in controls.all():
        assert control.evaluate("c => c.labels?.[0]?.textContent ?? c.textContent").strip()


def test_a_narrow_window_needs_no_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_names_of_models_and_adapters_are_offered(page: Page) -> None:
    options = page.locator("#model option").all_inner_texts()
    assert options == [f"{MODEL} (model)", f"{ADAPTER} (adapter)"]
