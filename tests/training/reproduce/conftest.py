"""Tables that a fake backend fills."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reproduce_fakes import FakeBackend, FakeStores

from c2l_models.training.reproduce.plan import Scale, load_scale, load_table
from c2l_models.training.reproduce.runner import Runner, TableResults
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """Sixty images of twenty patients, from both open data sets."""
    rows = [
        {
            **{"path": f"{n}.png", "dataset": dataset, "patient": f"{dataset}:{n // 2}", "view": ""},
            **{"split": split, "labels": [], "sha256": ""},
        }
        for n in range(20)
        for dataset, split in (("chestxray14", "train_val"), ("knee_kl", "train"), ("knee_kl", "val"))
    ]
    return ImageStore(tmp_path, np.zeros((60, 8, 8), np.uint8), pa.Table.from_pylist(rows, INDEX_SCHEMA), "a" * 64)


@pytest.fixture
def chests(tmp_path):
    """2,000 films of 1,000 patients, a fifth of them for testing. Each film has a random finding."""
    rng = np.random.default_rng(0)
    rows = [
        {
            **{"path": f"{n}.png", "dataset": "chestxray14", "patient": f"chestxray14:{n // 2:08}", "view": "PA"},
            **{"split": "test" if n // 2 % 5 == 0 else "train_val", "sha256": ""},
            **{"labels": [("Atelectasis", float(rng.random() < 0.5))]},
        }
        for n in range(2000)
    ]
    images = np.zeros((2000, 4, 4), np.uint8)
    return ImageStore(tmp_path, images, pa.Table.from_pylist(rows, INDEX_SCHEMA), "c" * 64)


@pytest.fixture
def scale() -> Scale:
    return load_scale("open")


@pytest.fixture
def reproduce(tmp_path: Path, store: ImageStore, scale: Scale):
    """Runs a table with a fake backend and returns its results."""

    def run(name="table3", backend=None, seeds=(0,), only=(), missing=(), write=None, out=tmp_path / "out"):
        table = load_table(name)
        results = TableResults(table.only(only) if only else table, scale, seeds)
        runner = Runner(out, scale, FakeStores(store, missing), backend or FakeBackend())
        return runner.run(results, write or (lambda results: None))

    return run


@pytest.fixture
def reproduce_all(reproduce):
    """Like `reproduce`; also returns the states of the entries each time that the table was written."""

    def run(table, backend=None, written=None):
        written = [] if written is None else written

        def write(results):
            written.append({key: entry.state for key, entry in results.entries.items()})

        return reproduce(table, backend, write=write), written

    return run
