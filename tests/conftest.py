"""Fixtures that several test files share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.explain.page import write_page
from tests.browser import Browser, chromium

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and specifications, which a user's clone does not have."""
    folder = Path(os.environ.get("ROI_SHARED", PROJECT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set ROI_SHARED to its path)")
    return folder


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of drawn data sets that all tests share, so that each set is drawn once."""
    return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium that all tests of a process share."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def page_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the interactive page lies, written once."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path)
    return path.as_uri()


@pytest.fixture
def opened(browser: Browser, page_address: str) -> Iterator[Callable[..., Browser]]:
    """Opens the page; afterwards the page must not have raised anything."""
    browser.errors.clear()

    def open_page(hash_: str = "", width: int = 1400, **manner: bool) -> Browser:
        browser.open(f"{page_address}#{hash_}", width, **manner)
        return browser

    yield open_page
    assert browser.errors == []
