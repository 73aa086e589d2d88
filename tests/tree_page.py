"""docs/tree.md: every file of the project in one line, taken from the file itself.

    python tests/tree_page.py

writes the page anew. A Python file is described by the first sentence of its docstring, any other
by that of its first comment; what has no comment is described here.
"""

import ast
import re
from pathlib import PurePosixPath

from documents import PROJECT, read, tracked

PAGE = PROJECT / "docs/tree.md"
COMMAND = "python tests/tree_page.py"
INTRODUCTION = f"""\
# Every file in one line

Each line is the first sentence of the file. `{COMMAND}` writes this page anew, and a test
compares it with the files that git holds. [ARCHITECTURE.md](../ARCHITECTURE.md) says how they fit
together.
"""
FOLDERS = {
    "": "entry points, and what a clone begins with",
    ".ci": "what every change must pass",
    "ops": "functions of tensors that know no file, no network and no setting",
    "files": "writing files whole, reading them safely",
    "data": "images and their objects, from files to batches",
    "models": "the network; each noun of the paper is a file",
    "running": "what a run needs around the network: device, optimiser, checkpoints, record",
    "judging": "how good detections are",
    "drawing": "pictures of objects",
    "reporting": "the ablation's report, from the folders of its runs",
    "scripts": "each does one thing from the command line",
    "scripts/explain": "the drawings of explain_pooling.py",
    "scripts/explain/page": "the interactive page",
    "scripts/gallery": "what browse.py draws",
    "scripts/shift": "the shift probe of shift_robustness.py",
    "configs": "settings; each folder is a group, each file in it a choice",
    "configs/ablation": "which variants and seeds an ablation has",
    "configs/experiment": "named runs; a folder holds the variants of one family",
    "configs/recipe": "data set, backbone and schedule in one word",
    "docs/article": "one box through the poolers in eight figures, made by explain_pooling.py",
    "tests": "what several test files use has no `test_` in its name",
    "tests/golden": "detectron2's numbers for narrow models, and how they are made",
}
WITHOUT_COMMENT = {
    ".gitignore": "What git leaves out.",
    "LICENSE": "MIT.",
    "pyproject.toml": "Name, version, and the settings of ruff, mypy and pytest.",
    "requirements.txt": "The packages that running needs.",
    "requirements-dev.txt": "The packages that the tests need besides.",
}
BY_SUFFIX = {
    ".py": "Makes the folder a package.",
    ".html": "A page's frame.",
    ".css": "A page's style.",
    ".js": "A page's program.",
    ".npz": "Numbers of one model.",
}
PICTURES = (".png", ".svg", ".jpg")
COMMENT = re.compile(r"(?:#|//|/\*|<!--|\{#) (.*?)(?: \*/| -->| #\})?")
NO_DESCRIPTION = ("@package", "python ", " ")


def page() -> str:
    """The whole page."""
    folders = sorted({folder_of(name) for name in tracked()})
    return "\n\n".join([INTRODUCTION.rstrip(), *map(_table, folders)]) + "\n"


def _table(folder: str) -> str:
    about = f": {FOLDERS[folder]}" if folder in FOLDERS else ""
    lines = [f"## {folder or 'The root'}{about}", "", "| file | what |", "|---|---|"]
    inside = [PurePosixPath(name) for name in tracked() if folder_of(name) == folder]
    pictures = [f"`{path.name}`" for path in inside if path.suffix in PICTURES]
    lines += [
        f"| `{path.name}` | {describe(path)} |" for path in inside if path.suffix not in PICTURES
    ]
    return "\n".join(lines + ([f"| {' '.join(pictures)} | Pictures. |"] if pictures else []))


def folder_of(name: str) -> str:
    """The folder of a file, "" for the root."""
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent


def describe(path: PurePosixPath) -> str:
    """A file in one sentence."""
    if path.suffix == ".npz":
        return BY_SUFFIX[path.suffix]
    text = read(path.as_posix())
    if path.suffix == ".py":
        found = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    elif path.suffix == ".md":
        found = text.partition("\n")[0].lstrip("# ")
    else:
        found = _first_comment(text)
    sentence = re.split(r"(?<!eq)(?<!fig)\. ", " ".join(found.split()))[0]
    described = f"{sentence.rstrip('.')}." if sentence else ""
    return described or WITHOUT_COMMENT.get(path.as_posix()) or BY_SUFFIX[path.suffix]


def _first_comment(text: str) -> str:
    """The comment at the top, without the lines that are no description."""
    lines: list[str] = []
    for line in text.splitlines():
        found = COMMENT.fullmatch(line)
        if found and not found[1].startswith(NO_DESCRIPTION):
            lines.append(found[1])
        elif lines or not (found or line.startswith(("#!", '"use strict"'))):
            break
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
