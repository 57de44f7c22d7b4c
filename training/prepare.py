"""Radiographs on disk -> an image store: one uint8 array, one Parquet index, and what was refused and why.

A store is a folder:

    images.npy       uint8 [N, S, S]
    index.parquet    row i describes image i: path, dataset, patient, view, split, labels, sha256 of the file
    refused.parquet  path, dataset, reason
    store.json       size, sources, counts, package version, sha256 of the index

It is built in `<store>.partial/`, where a later call goes on after a stop, and renamed once it is complete.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from c2l_models.errors import DatasetError

from . import datasets
from .datasets import Record
from .decoding import ROWS, Outcome, decode

IMAGES, INDEX, REFUSED, STORE = "images.npy", "index.parquet", "refused.parquet", "store.json"
PLAN = "plan.json"
FORMAT = 1

INDEX_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "dataset", "patient", "view", "split")),
        ("labels", pa.map_(pa.string(), pa.float32())),
        ("sha256", pa.string()),
    ]
)
REFUSED_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "dataset", "reason")])


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` made.

    `refused` counts the rows of refused.parquet, `duplicates` the images whose file is byte for byte that of
    an earlier one (they are kept), `seconds` the time of this call.
    """

    store: Path
    images: int
    refused: int
    duplicates: int
    seconds: float


@dataclass(frozen=True)
class Source:
    """A data set under its root: its records by path, and images on disk that none of them names."""

    name: str
    root: Path
    records: tuple[Record, ...]
    unlisted: tuple[str, ...]

    def relative(self, record: Record) -> str:
        return record.path.relative_to(self.root).as_posix()


def prepare(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    progress: bool = True,
) -> PrepareReport:
    """Decode every image of the sources once and write the store `out`, an absent folder.

    `sources` are (name of an adapter, root folder); the images come in this order, then by path, as
    `square(read_radiograph(path), size)`: the shorter side resized, the centre kept. A missing or broken
    file is recorded and skipped. The same files give the same bytes of array and index. After a stop at any
    moment the same call goes on where it was. `workers` is the number of processes, by default one a core; 1
    decodes in this process. On the way it takes twice the array's room on disk.

    Raises DatasetError if `out` exists, if `<out>.partial` was begun for something else, if a data set is
    not as its distribution lays it out, or if no image can be read.
    """
    started = time.monotonic()
    out = Path(out)
    if out.exists():
        raise DatasetError(f"{out} exists and is not overwritten; remove it, or give another folder")
    if size < 1:
        raise DatasetError(f"size is {size}; wanted the side of the stored images in pixels, such as 128")
    loaded = _load(sources)
    building = out.with_name(out.name + ".partial")
    _begin(building, _plan(loaded, size))
    outcomes = decode(building, [r.path for s in loaded for r in s.records], size, workers, progress)
    outcomes = [Outcome(o.sha256, _without_roots(o.refused, loaded)) for o in outcomes]
    images, refused = _assemble(building, loaded, outcomes, size)
    (building / "store").rename(out)
    shutil.rmtree(building)
    hashes = [o.sha256 for o in outcomes if not o.refused]
    return PrepareReport(out, images, refused, len(hashes) - len(set(hashes)), time.monotonic() - started)


# What there is to do


def _load(sources: Sequence[tuple[str, Path]]) -> list[Source]:
    names = [name for name, _ in sources]
    if unknown := [name for name in names if name not in datasets.ADAPTERS]:
        known = ", ".join(datasets.ADAPTERS)
        raise DatasetError(f"no data set is called {', '.join(unknown)}; there are: {known}")
    if not names or len(set(names)) < len(names):
        given = ", ".join(names) or "none"
        raise DatasetError(f"sources given: {given}; wanted each data set once, its folders under one root")
    return [_load_source(name, Path(root)) for name, root in sources]


def _load_source(name: str, root: Path) -> Source:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the one that holds {name}")
    records = sorted(datasets.ADAPTERS[name](root), key=lambda r: r.path.relative_to(root).as_posix())
    known = {record.path.relative_to(root).as_posix() for record in records}
    unlisted = tuple(path for path in datasets.image_files(root) if path not in known)
    return Source(name, root, tuple(records), unlisted)


def _plan(sources: Sequence[Source], size: int) -> dict[str, Any]:
    """What a partial store is made of: one begun under another plan must not be gone on with."""
    digest = hashlib.sha256()
    for source in sources:
        for record in source.records:
            row = vars(record) | {"path": source.relative(record)}
            digest.update(json.dumps(row, sort_keys=True).encode())
    return {
        "format": FORMAT,
        "version": version("c2l-models"),
        "size": size,
        "sources": [source.name for source in sources],
        "records": sum(len(source.records) for source in sources),
        "sha256 of the records": digest.hexdigest(),
    }


def _begin(building: Path, plan: dict[str, Any]) -> None:
    file = building / PLAN
    if file.exists():
        begun = json.loads(file.read_text())
        if differ := [key for key in plan if begun.get(key) != plan[key]]:
            raise DatasetError(
                f"{building} was begun with other {', '.join(differ)}; give the same again, or remove it"
            )
        return
    building.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(plan))
    fresh.replace(file)


# The finished store


def _without_roots(reason: str, sources: Sequence[Source]) -> str:
    for source in sources:
        reason = reason.replace(f"{source.root}{os.sep}", "")
    return reason


def _assemble(building: Path, sources: Sequence[Source], outcomes: Sequence[Outcome], size: int) -> tuple[int, int]:
    """Write the store into `building/store`, whatever is there; give its counts of images and refused."""
    rows = [(s.relative(r), r) for s in sources for r in s.records]
    kept = [i for i, outcome in enumerate(outcomes) if not outcome.refused]
    if not kept:
        reasons = sorted({o.refused for o in outcomes})[:3]
        raise DatasetError(f"no image could be read: {'; '.join(reasons)}; mend this and remove {building}")
    store = building / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    _write_images(building / ROWS, store / IMAGES, kept, len(rows), size)
    index = [
        {
            **vars(record),
            "path": path,
            "labels": list(record.labels.items()),
            "sha256": outcome.sha256,
        }
        for (path, record), outcome in zip(rows, outcomes, strict=True)
        if not outcome.refused
    ]
    pq.write_table(pa.Table.from_pylist(index, INDEX_SCHEMA), store / INDEX)
    refused = [
        {"path": path, "dataset": record.dataset, "reason": outcome.refused}
        for (path, record), outcome in zip(rows, outcomes, strict=True)
        if outcome.refused
    ] + [
        {"path": path, "dataset": source.name, "reason": "on disk, but in no row of the label file"}
        for source in sources
        for path in source.unlisted
    ]
    pq.write_table(pa.Table.from_pylist(refused, REFUSED_SCHEMA), store / REFUSED)
    counts = Counter((row["dataset"], row["split"]) for row in index)
    description = {
        "format": FORMAT,
        "version": version("c2l-models"),
        "size": size,
        "sources": [source.name for source in sources],
        "images": len(index),
        "refused": len(refused),
        "counts": {f"{dataset}/{split}": count for (dataset, split), count in sorted(counts.items())},
        "index_sha256": hashlib.sha256((store / INDEX).read_bytes()).hexdigest(),
    }
    (store / STORE).write_text(json.dumps(description, indent=2) + "\n")
    return len(index), len(refused)


def _write_images(rows: Path, images: Path, kept: Sequence[int], total: int, size: int) -> None:
    source = np.memmap(rows, np.uint8, "r", shape=(total, size, size))
    target = np.lib.format.open_memmap(images, "w+", np.uint8, (len(kept), size, size))
    for start in range(0, len(kept), 1024):
        target[start : start + 1024] = source[kept[start : start + 1024]]
    target.flush()
