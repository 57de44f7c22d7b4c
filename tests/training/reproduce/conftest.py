"""A table run with fake jobs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reproduce_fakes import FakeJobs, FakeStores
from rich.console import Console

from c2l_models.training.reproduce import runner as run
from c2l_models.training.reproduce.plan import Scale, load_scale, load_table
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import INDEX_SCHEMA


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """Sixty images of twenty patients, of the two open sets."""
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
def scale() -> Scale:
    return load_scale("open")


@pytest.fixture
def reproduce(tmp_path: Path, store: ImageStore, scale: Scale):
    """Runs a table with fake jobs; gives the book."""

    def go(table="table3", jobs=None, seeds=(0,), only=(), missing=(), write=None, out=tmp_path / "out"):
        plan = load_table(table)
        book = run.Book(plan.only(only) if only else plan, scale, seeds)
        engine = run.Engine(out, scale, FakeStores(store, missing), jobs or FakeJobs(), Console(quiet=True))
        return engine.run(book, write or (lambda book: None))

    return go


@pytest.fixture
def reproduce_all(reproduce):
    """The same; gives the book, and the cells' states each time that it was written."""

    def go(table, jobs=None, written=None):
        written = [] if written is None else written
        states = lambda book: written.append({key: cell.state for key, cell in book.cells.items()})  # noqa: E731
        return reproduce(table, jobs, write=states), written

    return go
