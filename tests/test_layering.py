"""Who may import whom, which library lives where, and how large anything may grow."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("ops", "files", "data", "models", "running", "judging", "drawing", "reporting", "scripts"),
)
ENTRY_POINTS = ("configuration", "build", "detector", "evaluate", "train")
SOURCES = sorted(
    [
        *(file for package in PACKAGES for file in (PROJECT / package).rglob("*.py")),
        *(PROJECT / f"{name}.py" for name in ENTRY_POINTS),
    ]
)
TESTS = sorted((PROJECT / "tests").rglob("*.py"))

# What each part may import of the project. Scripts, at the outside, may import everything.
LOWER = {"ops", "files"}
PARTS = {*LOWER, "data", "models", "running", "judging", "drawing"}
MAY_IMPORT: dict[str, set[str]] = {
    "ops": {"ops"},
    "files": LOWER,
    "data": {*LOWER, "data"},
    "models": {*LOWER, "models"},
    "running": {*LOWER, "judging", "running"},
    "judging": {*LOWER, "judging"},
    "drawing": {*LOWER, "drawing"},
    "reporting": {*LOWER, "judging", "running", "reporting"},
    "configuration": LOWER,
    "build": {*PARTS, "configuration"},
    "evaluate": {*PARTS, "build", "configuration", "detector"},
    "detector": {*PARTS, "build", "configuration"},
    "train": {*PARTS, "build", "configuration", "detector", "evaluate"},
    "scripts": {*PACKAGES, *ENTRY_POINTS},
}
# One library, one home: the only files (or folders) that may name it.
CONFIGURED = ("configuration.py", "build.py", "detector.py", "train.py", "evaluate.py", "scripts/")
HOMES: dict[str, tuple[str, ...]] = {
    "hydra": CONFIGURED,
    "omegaconf": CONFIGURED,
    "pycocotools": (
        *("ops/masks.py", "ops/rle.py", "judging/coco_eval.py", "judging/matching.py"),
        "scripts/timing/",
    ),
    "hotcoco": ("judging/coco_eval.py",),
    "tensorboard": ("running/tracking.py",),
    "torch.utils.tensorboard": ("running/tracking.py",),
    "torch.distributed": ("running/runtime.py",),
    "pooch": ("files/archives.py",),
    "requests": ("files/archives.py",),
}
OPS_LIBRARIES = {"torch", "torchvision", "numpy", "pycocotools"}
LONGEST_FUNCTION = 80
# The training loop reads from top to bottom in one place.
MAY_BE_LONGER = {("train.py", "_train")}
VAGUE = ("util", "helper", "misc", "common")


def _name(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


def _part(file: Path) -> str:
    return file.relative_to(PROJECT).parts[0].removesuffix(".py")


def _named_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that the code imports, or reaches with a dotted name such as `torch.x.y`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def _imported_roots(tree: ast.AST) -> set[str]:
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    return roots


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_parse(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_part_is_looked_at() -> None:
    assert {_part(file) for file in SOURCES} == {*PACKAGES, *ENTRY_POINTS}


@pytest.mark.parametrize("file", SOURCES, ids=_name)
def test_a_part_imports_only_the_parts_below_it(file: Path) -> None:
    ours = _imported_roots(_parse(file)) & {*PACKAGES, *ENTRY_POINTS, "tests"}
    assert ours <= MAY_IMPORT[_part(file)]


@pytest.mark.parametrize("file", [f for f in SOURCES if _part(f) == "ops"], ids=_name)
def test_ops_need_nothing_but_tensors(file: Path) -> None:
    foreign = _imported_roots(_parse(file)) - sys.stdlib_module_names - {"ops"}
    assert foreign <= OPS_LIBRARIES


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library: str) -> None:
    strangers = [
        _name(file)
        for file in SOURCES
        if not _name(file).startswith(HOMES[library])
        and any(f"{name}.".startswith(f"{library}.") for name in _named_modules(_parse(file)))
    ]
    assert strangers == []


def test_functions_are_short_enough_to_read() -> None:
    long = {
        (_name(file), function.name)
        for file in SOURCES + TESTS
        for function in _functions(file)
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
    }
    assert long <= MAY_BE_LONGER


def test_nothing_has_a_name_that_says_nothing() -> None:
    names = {_name(file): file.stem for file in SOURCES + TESTS}
    for file in SOURCES + TESTS:
        for node in ast.walk(_parse(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names[f"{_name(file)}: {node.name}"] = node.name
    vague = [where for where, name in names.items() if any(v in name.lower() for v in VAGUE)]
    assert vague == []


def test_the_rules_catch_what_they_forbid() -> None:
    tree = ast.parse("import torch\nfrom torch import distributed\nfrom models.rpn import RPN\n")
    assert _imported_roots(tree) == {"torch", "models"}
    assert "torch.distributed" in set(_named_modules(tree))
    assert "torch.distributed.barrier" in set(
        _named_modules(ast.parse("torch.distributed.barrier()"))
    )
