"""Shared fixtures: where the repository is, and where real radiographs are."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs: `C2L_DATA`, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("C2L_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real radiographs at {folder}: set C2L_DATA to the folder that holds them")
    return folder
