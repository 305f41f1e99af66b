"""The built-in page: its parts joined to one HTML file that loads nothing else.

The policy names the hashes of its one style and one script: nothing else on it runs, is loaded, or
is sent anywhere but to this server, whatever a model writes.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = ("http.js", "tokens.js", "settings.js", "answer.js", "chat.js", "tiles.js", "main.js")
"""In the order in which they run."""


@cache
def page() -> tuple[bytes, str]:
    """The page, and its Content-Security-Policy."""
    style, script = _text("page.css"), "".join(map(_text, SCRIPTS))
    html = _text("page.html")
    html = html.replace("<!-- page.css -->", style).replace("/* scripts */", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
