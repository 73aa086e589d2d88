"""The interactive page: one HTML file that needs no network, made from the folder `page/`.

`page/pooling.js` repeats the arithmetic of `ops/` in the browser; `tests/test_page.py` compares the
two. What the page says of each pooler comes from `ops.poolers`.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from files.atomic import write_text
from ops.errors import InputError
from scripts.explain.poolers import page_table

PARTS = Path(__file__).resolve().with_suffix("")
SCRIPTS = (
    *("pooling", "maps", "state", "words", "drawing"),
    *("glide", "controls", "view", "gestures", "start"),
)


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
    environment = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("index.html").render(
        style=(PARTS / "style.css").read_text(encoding="utf-8"),
        scripts=[(PARTS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS],
        poolers=page_table(),
    )
