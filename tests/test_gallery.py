"""The page of a data set's images: whole, self-contained, and filtered as asked."""

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import four_images
import numpy as np
import pytest
from four_images import NAMES

from scripts.gallery.page import page
from scripts.gallery.views import View

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Outline(HTMLParser):
    """Tags in their nesting, and every address that the page refers to."""

    VOID = ("meta", "input", "img", "br", "source")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.figures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [named[key] or "" for key in ("src", "srcset", "href") if key in named]
        if tag == "figure":
            self.figures.append(named)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    four_images.write(root)
    return four_images.browsed(root, "split=val", f"html={root / 'page.html'}")


def test_the_page_is_whole_and_refers_to_nothing_outside(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(text)
    outline.close()
    assert outline.open == []
    assert "{{" not in text
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(outline.addresses) == 4 + 2 * 3
    assert all(address.startswith("data:image/") for address in outline.addresses)


def test_the_page_says_of_each_image_what_is_in_it(written: Path) -> None:
    outline = Outline()
    outline.feed(written.read_text(encoding="utf-8"))
    told = [
        (
            json.loads(f["data-categories"] or ""),
            f["data-objects"],
            f["data-crowds"],
            f["data-sizes"],
        )
        for f in outline.figures
    ]
    assert told == [
        (sorted(NAMES), "2", "0", "large small"),
        (["cat"], "1", "0", "medium"),
        (["cat"], "1", "1", "medium"),
        ([], "0", "0", ""),
    ]
    assert 'value="a&lt;b&gt; &amp; &quot;c&quot;"' in written.read_text(encoding="utf-8")


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    odd = View(1, "{{cards}}.png", (4, 4), (4, 4), (), Counter(), 0, picture)
    text = page("{{style}}", "", "", [odd], [])
    assert "<title>{{style}}</title>" in text and text.count("<figure") == 1


CASES: list[tuple[dict[str, str], list[int]]] = [
    ({}, [1, 2, 3, 4]),
    ({"category": "cat"}, [1, 2, 3]),
    ({"category": NAMES[1]}, [1]),
    ({"least": "1", "most": "1"}, [2, 3]),
    ({"most": "0"}, [4]),
    ({"size": "small"}, [1]),
    ({"size": "medium"}, [2, 3]),
    ({"crowd": "yes"}, [3]),
    ({"crowd": "no", "empty": "no"}, [1, 2]),
    ({"empty": "yes"}, [4]),
    ({"category": "cat", "size": "large", "crowd": "yes"}, []),
]
DRIVER = """
<script>
const results = CASES.map((wanted) => {
  filters.reset();
  for (const [name, value] of Object.entries(wanted)) filters.elements[name].value = value;
  filters.dispatchEvent(new Event("input"));
  const shown = cards.map((card, k) => card.hidden ? 0 : k + 1).filter(Boolean);
  const none = document.getElementById("none").hidden;
  return [shown, document.getElementById("count").textContent, none];
});
filters.reset(); filter();
cards[3].querySelector("button").click(); step(1);
const enlarged = [large.open, large.querySelector("p").textContent.slice(0, 5)];
document.title = JSON.stringify([results, enlarged]);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_the_filters_leave_what_fits(written: Path, tmp_path: Path) -> None:
    driven = tmp_path / "driven.html"
    script = DRIVER.replace("CASES", json.dumps([wanted for wanted, _ in CASES]))
    driven.write_text(written.read_text(encoding="utf-8") + script, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    answer = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            driven.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout
    title = re.search(r"<title>(.*?)</title>", answer)
    assert title is not None
    results, enlarged = json.loads(title.group(1))
    for (wanted, expected), (shown, count, none_hidden) in zip(CASES, results, strict=True):
        assert shown == expected, wanted
        assert count == f"{len(expected)} of 4 images"
        assert none_hidden == bool(expected)
    assert enlarged == [True, "1.png"]
