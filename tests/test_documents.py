"""The documents tell the truth: commands run, links lead somewhere, names and settings exist."""

import ast
import fnmatch
import importlib
import pkgutil
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import documents
import pytest
import tree_page
import yaml
from documented_commands import refusal
from documents import PROJECT, read
from short_runs import short_run
from test_layering import ENTRY_POINTS, MAY_IMPORT, PACKAGES

from ops.poolers import POOLERS
from train import train

CONFIGS = PROJECT / "configs"
GROUPS = sorted(f.name for f in CONFIGS.iterdir() if f.is_dir() and f.name != "ablation")
FILES = documents.markdown_files()
LONGEST_README = 200
every_file = pytest.mark.parametrize("file", FILES)


# Commands


@every_file
def test_every_command_can_be_run(file: str) -> None:
    refused = {" ".join(c): why for c in documents.commands(read(file)) if (why := refusal(*c))}
    assert refused == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("python train.py poolr=align", "poolr: no such setting"),
        ("python train.py pooler=squeeze", "pooler=squeeze: no such choice"),
        ("python train.py pooler=align schedule.lrr=1", "schedule.lrr"),
        ("python train.py pooler=align    another pooler", "another"),
        ("python train.py pooler=pool,warp", "several values only with -m"),
        ("python train.py -m pooler=pool,squeeze", "no such choice"),
        ("python train.py -m pooler=pool,warp pooler.agg=max", "pooler.agg"),
        ("python train.py data=coco", "data.root is not set"),
        ("python train.py stride=8", "stride=8"),
        ("python train.py backbone=resnet50 backbone.weights=null", "norm=frozen"),
        ("python train.py --quick", "does not know --quick"),
        ("python evaluate.py", "give checkpoint="),
        ("python evaluate.py checkpont=outputs/RUN", "checkpont"),
        ("python scripts/dump_proposals.py output=F", "give checkpoint="),
        ("python scripts/browse.py splt=val", "splt"),
        ("python scripts/ablation.py dem", "dem: no such ablation"),
        ("python scripts/ablation.py demo pooler=align schedule.lrr=1", "schedule.lrr"),
        ("python scripts/ablation.py nuclei", "data.root is not set"),
        ("python scripts/predict.py photo.jpg", "--checkpoint"),
        ("python scripts/report.py outputs/demo --colour red", "--colour"),
        ("python scripts/import_weights.py IN.pkl OUT.pt backbne=resnet50", "backbne"),
        ("python scripts/nothing.py", "scripts/nothing.py: no such file"),
        ("tensorboard --logdirs outputs", "invalid choice"),
        (".venv/bin/pip install -r packages.txt", "packages.txt"),
        ("pytest -m quick", "quick"),
        ("make all", "make"),
    ],
)
def test_a_wrong_word_is_found(line: str, reason: str) -> None:
    (command,) = documents.commands(f"Text.\n\n```sh\n{line}\n```\n")
    assert reason in (refusal(*command) or "")


def test_commands_are_found_wherever_they_stand() -> None:
    text = (
        "Run `python train.py\npooler=pool` or `train.py`; not `python` or `pooler=pool`.\n\n"
        "```sh\n# a comment\npython train.py \\\n    stride=32   # another stride\n"
        ".venv/bin/pip install -q && .venv/bin/python evaluate.py 'a b'\n```\n\n"
        "```\npython scripts/report.py outputs/demo\nsome output\n```\n\n"
        "```python\npython = 1\n```\n"
    )
    assert documents.commands(text) == [
        ["python", "train.py", "stride=32"],
        [".venv/bin/pip", "install", "-q"],
        [".venv/bin/python", "evaluate.py", "a b"],
        ["python", "scripts/report.py", "outputs/demo"],
        ["python", "train.py", "pooler=pool"],
    ]


def test_the_readmes_python_runs(
    tmp_path: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(short_run(tmp_path / "outputs/RUN", drawings))
    shutil.copy(PROJECT / "docs/images/demo.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (content,) = [c for language, c in documents.blocks(read("README.md")) if language == "python"]
    exec(content, {})


@every_file
def test_python_in_a_document_names_what_exists(file: str) -> None:
    for language, content in documents.blocks(read(file)):
        tree = ast.parse(content) if language == "python" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), content


# Links, files, names and settings


@every_file
def test_links_and_pictures_lead_somewhere(file: str) -> None:
    for target in documents.links(read(file)):
        path, _, anchor = target.partition("#")
        there = (PROJECT / file).parent / path if path else PROJECT / file
        assert there.exists(), target
        assert not anchor or anchor in documents.anchors(there.read_text("utf-8")), target


@every_file
def test_files_that_a_document_names_exist(file: str) -> None:
    missing = [name for name in documents.files(read(file)) if not _exists(name)]
    assert missing == []


def _exists(name: str) -> bool:
    """Whether the project has the file; what a run or a reader has elsewhere is not looked for."""
    if name.partition("/")[0] in {file.partition("/")[0] for file in documents.tracked()}:
        return any(PROJECT.glob(name))
    return not name.endswith(".py") or any(PROJECT.glob(f"*/**/{name}"))


@every_file
def test_dotted_names_are_code_or_settings(file: str) -> None:
    parts = {*PACKAGES, *ENTRY_POINTS, *(key.partition(".")[0] for key in settings())}
    named = [n for n in documents.names(read(file)) if n.partition(".")[0] in parts]
    assert [name for name in named if name not in settings() and not _is_code(name)] == []


def _is_code(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@every_file
def test_words_in_a_text_are_settings_and_choices(file: str) -> None:
    wrong = [word for word in documents.words(read(file)) if not _is_word(word)]
    assert wrong == []


def _is_word(word: str) -> bool:
    key, _, values = word.partition("=")
    if key not in GROUPS:
        return key in settings() or key == "key"
    named = [value for value in values.split(",") if value and not value.isupper()]
    return all(fnmatch.filter(choices(key), value) for value in named)


def test_a_name_that_does_not_exist_is_found() -> None:
    text = "`roi.nms_iuo`, `models.rpn.RPM`, `configs/pooler/squeeze.yaml`, `pooler=squeeze mask=x`"
    assert [_is_code(name) for name in documents.names(text)] == [False, False]
    assert not {*documents.names(text)} & settings()
    assert [_exists(name) for name in documents.files(text)] == [False]
    assert [_is_word(word) for word in documents.words(text)] == [False, True]
    assert documents.links("[a](b.md) ![c](d.png) [e](https://f)") == ["b.md", "d.png"]
    assert documents.anchors("# One box, pooled: 8\n") == {"one-box-pooled-8"}


def choices(group: str) -> list[str]:
    files = sorted((CONFIGS / group).rglob("*.yaml"))
    return [file.relative_to(CONFIGS / group).with_suffix("").as_posix() for file in files]


@cache
def settings() -> frozenset[str]:
    """Dotted names of all settings and of what holds them, whatever is chosen."""
    found = set(GROUPS)
    for file in CONFIGS.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        group = file.parent.relative_to(CONFIGS).as_posix()
        prefix = "" if group == "." or "@package _global_" in text else f"{group}."
        found |= set(_keys(yaml.safe_load(text), prefix))
    return frozenset(found)


def _keys(tree: Any, prefix: str) -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


# What single documents promise


def test_the_readme_is_short_and_leads_to_every_other_document() -> None:
    readme = read("README.md")
    assert len(readme.splitlines()) <= LONGEST_README
    assert {*FILES} - {"README.md"} <= {*documents.links(readme)}


def test_two_lines_install_and_run_and_install_and_test() -> None:
    lines = [line for line in read("README.md").splitlines() if line.startswith("python3 ")]
    assert [line.partition(" && ")[0] for line in lines] == ["python3 -m venv .venv"] * 2
    assert lines[0].endswith(".venv/bin/python train.py")
    assert lines[1].endswith(".venv/bin/python -m pytest")


@pytest.mark.parametrize("group", GROUPS)
def test_the_readme_lists_the_choices_of_every_group(group: str) -> None:
    (row,) = re.findall(rf"^\| `{group}=` \| (.*) \|$", read("README.md"), re.MULTILINE)
    listed = documents.spans(row)
    assert all(fnmatch.filter(choices(group), name) for name in listed)
    assert [c for c in choices(group) if not any(fnmatch.fnmatch(c, n) for n in listed)] == []


def test_the_readmes_table_is_that_of_the_ablation() -> None:
    short, full = (_rows(read(file)) for file in ("README.md", "docs/ablation.md"))
    assert len(short) == 5
    for row, cells in short.items():
        assert {cell for cell in cells if "±" in cell} <= {*full[row]}, row


def test_the_tables_are_what_the_variants_expect() -> None:
    rows = _rows(read("docs/ablation.md"))
    for file in (CONFIGS / "experiment/demo").glob("*_s*.yaml"):
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        pooler = POOLERS[file.stem.partition("_")[0]]
        row = rows[pooler.title, pooler.agg or settings["pooler"]["agg"]]
        means = {cell.partition(" ±")[0] for cell in row}
        assert {f"{v:.1f}" for v in settings["expected"]["metrics"].values()} <= means, file.name


def _rows(text: str) -> dict[tuple[str, str], list[str]]:
    """The cells of every row that begins with a pooler, by pooler and aggregation."""
    rows: dict[tuple[str, str], list[str]] = {}
    for line in re.findall(r"^\| (RoI.*) \|$", text, re.MULTILINE):
        pooler, *cells = (cell.strip() for cell in line.split("|"))
        for agg in {"avg", "max"} & {*cells}:
            rows.setdefault((pooler, agg), []).extend(cells)
    return rows


def test_the_rooms_of_the_architecture_import_what_it_says() -> None:
    page = read("ARCHITECTURE.md")
    rows = re.findall(r"^\| `(\w+)(?:\.py|/)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    stated = {room: {*re.findall(r"`(\w+)`", others)} for room, others in rows}
    allowed = {room: others - {room} for room, others in MAY_IMPORT.items() if room != "scripts"}
    assert stated == allowed


def test_the_tree_lists_every_file() -> None:
    if not documents.tracked():
        pytest.skip("git does not say which files belong to the project")
    folders = {tree_page.folder_of(name) for name in documents.tracked()}
    assert {*tree_page.FOLDERS} <= folders
    assert {*tree_page.WITHOUT_COMMENT} <= {*documents.tracked()}
    assert tree_page.PAGE.read_text("utf-8") == tree_page.page(), f"run {tree_page.COMMAND}"


def test_a_file_is_described_by_its_first_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "a.py": '"""Boxes, see eq. 3 of\nthe paper. More."""\n',
        "b.yaml": "# @package _global_\n# A network; wide.\n#   python train.py\nkey: 1  # no\n",
        "c.js": '"use strict";\n// Keys.\n',
        "d.css": "a { color: red }\n/* late */\n",
        "e.py": "",
    }
    monkeypatch.setattr(tree_page, "read", texts.__getitem__)
    described = [tree_page.describe(tree_page.PurePosixPath(name)) for name in texts]
    assert described == [
        "Boxes, see eq. 3 of the paper.",
        "A network; wide.",
        "Keys.",
        "A page's style.",
        "Makes the folder a package.",
    ]
