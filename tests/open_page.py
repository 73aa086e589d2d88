"""Looking at the interactive page, opened in a browser."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import CHROMIUM, Browser

OpenPage = Callable[..., Browser]  # hash, width, dark, moving: the fixture `opened`
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


def state(browser: Browser) -> dict[str, Any]:
    return dict(browser.evaluate("lab.state()"))


def follow(browser: Browser, hash_: str) -> None:
    """Go where a link on the page would lead; the address itself lags behind the state."""
    url = json.dumps(f"file:///#{hash_}")
    browser.evaluate(f"dispatchEvent(new HashChangeEvent('hashchange', {{newURL: {url}}}))")
    browser.settle()


def figures(browser: Browser) -> dict[str, str]:
    names = "[...document.querySelectorAll('#figures dt')].map(e => e.textContent)"
    values = "[...document.querySelectorAll('#figures dd')].map(e => e.textContent)"
    return dict(zip(browser.evaluate(names), browser.evaluate(values), strict=True))


def on_stage(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """The window's place of a pixel of the image; the stage is brought into view."""
    browser.evaluate("document.getElementById('stage').scrollIntoView({block: 'center'})")
    left, top, width = browser.evaluate(
        "(() => { const r = document.getElementById('stage').getBoundingClientRect();"
        "return [r.left, r.top, r.width]; })()"
    )
    scale = width / 608  # the image's 512 pixels and 48 around them
    return left + (x + 48) * scale, top + (y + 48) * scale
