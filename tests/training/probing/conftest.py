"""A small image store whose images show their labels."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA


def build_store(path: Path, patients: int = 40, films: int = 2, size: int = 32) -> ImageStore:
    """Noise, with a bright square at the top left if `square` is 1; `coin` is random.

    Half of the patients are in the test split.
    """
    rng = np.random.default_rng(0)
    square = rng.random(patients * films) < 0.5
    images = rng.integers(0, 120, (patients * films, size, size), dtype=np.uint8)
    images[square, : size // 4, : size // 4] += 40
    rows = [
        {
            "path": f"{n}.png",
            "dataset": "folder",
            "patient": f"folder:{n // films:03d}",
            "view": "",
            "split": ("train", "test")[n // films % 2],
            "labels": [("square", float(square[n])), ("coin", float(rng.random() < 0.5))],
            "sha256": "",
        }
        for n in range(patients * films)
    ]
    path.mkdir(parents=True, exist_ok=True)
    return ImageStore(path, images, pa.Table.from_pylist(rows, INDEX_SCHEMA), "0" * 64)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return build_store(tmp_path / "store")
