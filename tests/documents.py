"""What the Markdown files state that a program can check: commands, links, names and settings.

A command stands in a block of code, or in a span of code such as `python train.py`. What follows
`#` in a block is a comment, `...` stands for further words, and a word in capitals, such as FOLDER,
for the reader's own.
"""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = ("python", "python3", "pip", "pytest", "tensorboard")
# Blocks of these hold no commands.
OTHER_LANGUAGES = ("python", "yaml", "json", "text")
# Of files: the project's own, and those that a run leaves or a user brings.
ENDINGS = (
    *("py", "js", "css", "html", "yaml", "toml", "md", "txt", "tex", "csv", "png", "svg"),
    *("json", "jsonl", "npz", "pt", "pth", "pkl", "safetensors"),
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_WORD = re.compile(r"[a-z_][\w./]*=[^=\s]*")
_NAME = re.compile(r"[a-z_]\w*(?:\.\w+)+")
_FILE = re.compile(rf"[\w*./-]+\.(?:{'|'.join(ENDINGS)})")
_FOLDER = re.compile(r"(?:[\w.-]+/)+")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the project by its path, as git knows them; none without git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(name for name in listed.stdout.split("\0") if (PROJECT / name).is_file())


def markdown_files() -> list[str]:
    """Every Markdown file of the project."""
    files = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    return sorted(file.relative_to(PROJECT).as_posix() for file in files)


def read(file: str) -> str:
    return (PROJECT / file).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each block of code."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(text)]


def spans(text: str) -> list[str]:
    """The spans of code outside the blocks, each in one line."""
    return [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]


def links(text: str) -> list[str]:
    """Targets of links and pictures, but those of the network."""
    found = _LINK.findall(_BLOCK.sub("", text))
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """What a link can name after `#`: the headings, in GitHub's spelling."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(text)]
    return {title.strip().replace(" ", "-") for title in titles}


def commands(text: str) -> list[list[str]]:
    """Every command, as its program and words; those that `&&` joins one by one."""
    lines = [
        line
        for language, content in blocks(text)
        if language not in OTHER_LANGUAGES
        for line in content.replace("\\\n", " ").splitlines()
        if language == "sh" or _begins_a_command(line)
    ]
    lines += [span for span in spans(text) if _begins_a_command(span)]
    found: list[list[str]] = []
    for line in lines:
        found.append([])
        for word in shlex.split(line, comments=True):
            if word == "&&":
                found.append([])
            elif word != "...":
                found[-1].append(word)
    return [command for command in found if command]


def _begins_a_command(line: str) -> bool:
    program, *words = [*line.split(), ""]
    return Path(program).name in PROGRAMS and words != [""]


def words(text: str) -> list[str]:
    """Words `key=value`, and `key=` of a table, that stand in spans of code by themselves."""
    found = [span.split() for span in spans(text) if not _begins_a_command(span)]
    return [word for words in found if all(map(_WORD.fullmatch, words)) for word in words]


def names(text: str) -> list[str]:
    """Dotted names of code and of settings, such as `data.splits.DataSplits` or `roi.nms_iou`."""
    found = [span for span in spans(text) if _NAME.fullmatch(span)]
    return [name for name in found if name.rpartition(".")[2] not in ENDINGS]


def files(text: str) -> list[str]:
    """Files and folders of the project, as far as their names show it."""
    return [span for span in spans(text) if _FILE.fullmatch(span) or _FOLDER.fullmatch(span)]
