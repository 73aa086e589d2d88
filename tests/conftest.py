"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

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
