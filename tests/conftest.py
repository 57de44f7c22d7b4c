"""Shared fixtures: where the repository is, and where real radiographs are."""

import os
import pickle
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository; an installed package can be tested by a copy of the tests without one."""
    if not (REPOSITORY / "c2l_models").is_dir():
        pytest.skip(f"{REPOSITORY} is no checkout of the repository")
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs: `C2L_DATA`, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("C2L_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real radiographs at {folder}: set C2L_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def timm_reads_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where timm cannot load "local-dir:" weights: it hands safetensors to torch.load, which learnt them late."""
    import torch
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("safetensors") / "a.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    try:
        torch.load(file, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        pytest.skip(f"torch.load of torch {torch.__version__} reads no safetensors, and so timm no local-dir")
