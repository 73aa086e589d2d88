"""The interactive page: one HTML file that needs no network, joined from the folder `page/`.

`page/pooling.js` repeats the arithmetic of `ops/` in the browser; `tests/test_page.py` compares the
two. `page/index.html` also opens on its own, straight from its folder.
"""

import re
from pathlib import Path

from files.atomic import write_text
from ops.errors import InputError

PARTS = Path(__file__).resolve().with_suffix("")
_STYLE = re.compile(r'<link rel="stylesheet" href="([\w.]+)">')
_SCRIPT = re.compile(r'<script src="([\w.]+)"></script>')


def write_page(path: Path) -> None:
    """Write the page to `path`, atomically.

    Raises:
        InputError: there is no such folder, or `path` is one.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--html: {path} cannot be written; name a file in a folder that exists")
    write_text(path, page())


def page() -> str:
    """The page as one HTML document."""
    html = _part("index.html")
    html = _STYLE.sub(lambda link: f"<style>\n{_part(link[1])}</style>", html)
    return _SCRIPT.sub(lambda link: f"<script>\n{_part(link[1])}</script>", html)


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")
