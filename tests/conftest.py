"""Shared fixtures: the repository's folder, the folder of real radiographs, and a check of timm."""

import os
import pickle
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository. Skips if only the tests were copied, to test an installed package."""
    if not (REPOSITORY / "c2l_models").is_dir():
        pytest.skip(f"{REPOSITORY} is not a checkout of the repository")
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs: `C2L_DATA`, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("C2L_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"expected real radiographs in {folder}, found no such folder; set C2L_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def timm_reads_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip if timm cannot load "local-dir:" weights: it uses torch.load, which in old versions reads no safetensors."""
    import torch
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("safetensors") / "a.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    try:
        torch.load(file, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        pytest.skip(f"torch.load of torch {torch.__version__} reads no safetensors, so timm cannot load local-dir:")
