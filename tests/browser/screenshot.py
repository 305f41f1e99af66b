"""The picture in docs/page.md: the page after an answer of the embedded model.

bita serve &
python -m tests.browser.screenshot docs/page.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.browser.chromium import chromium

ASK = "I want to find a restaurant in San Jose."
AGAIN = "Something with Italian food please, and not too expensive."


def main() -> None:
    """Talk to a running server and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    args = parser.parse_args()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1180, "height": 860})
        page.goto(args.url)
        page.locator("#model option").first.wait_for(state="attached")
        for number, text in enumerate((ASK, AGAIN), start=1):
            page.get_by_label("Message").fill(text)
            page.get_by_label("Message").press("Enter")
            page.get_by_text("Ended by").nth(number - 1).wait_for()
        page.locator("article.assistant").last.get_by_text("Use as prediction").click()
        page.get_by_role("button", name="Regenerate").click()
        page.get_by_text("Ended by").nth(1).wait_for()
        page.locator("[data-tile=acceptance]").filter(has_text=".").wait_for()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=args.file)


if __name__ == "__main__":
    main()
