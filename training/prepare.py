"""Radiographs on disk -> an image store: one uint8 array, one Parquet index, and what was refused and why.

A store is a folder:

    images.npy       uint8 [N, S, S]
    index.parquet    row i describes image i: path, dataset, patient, study, view, split, labels, sha256 of the file
    refused.parquet  path, dataset, reason
    store.json       size, sources, counts, package version, sha256 of the other three

It is built in `<store>.partial/`, where a later call goes on after a stop, and renamed once it is complete.
"""

import json
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from c2l_models.errors import DatasetError

from .datasets import Record
from .decoding import CHUNK, Outcome, decode_chunk, mapper
from .journal import Journal, sync, writing
from .sources import Shard, Source, check_roots, differences, load, make_plan, part, shown
from .store_files import (
    IMAGES,
    INDEX_SCHEMA,
    REFUSED_SCHEMA,
    count_duplicates,
    file_sha256,
    write_description,
    write_tables,
)

PLAN, STORE_FOLDER = "plan.json", "store"

Row = tuple[str, Record]
"""What the index calls an image, and its record."""


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


def prepare(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    progress: bool = True,
    shard: Shard | None = None,
) -> PrepareReport:
    """Decode every image of the sources once and write the store `out`, an absent folder.

    `sources` are (name of an adapter, root folder); the images come in this order, then by path, as
    `decode_square(bytes of the file, size)`: the shorter side resized, the centre kept. A file is read once: the
    sha256 in the index is of the bytes that were decoded. A missing, broken or unreadable file is recorded and
    skipped. The same files give the same bytes of all that is in the store. `workers` is the number of
    processes, by default one a core; 1 decodes in this process. Room on disk: the array, once.

    After a stop at any moment the same call goes on where it was. What a kill costs is decoding again the files
    of the last second or so (`journal.SYNC_SECONDS`, and what the workers had in hand).

    `shard=(k, n)` does the k-th of n parts, on one of several machines that see the same files and have the same
    patient key; `out` is then the folder of this part, and `shards.join_shards` makes the store of them all.

    Raises DatasetError if `out` exists, if `<out>.partial` was begun for something else, if a data set is
    not as its distribution lays it out, if no image can be read, or if the disk is full.
    """
    started = time.monotonic()
    out = Path(out)
    if out.exists():
        raise DatasetError(f"{out} exists and is not overwritten; remove it, or give another folder")
    if size < 1:
        raise DatasetError(f"size is {size}; wanted the side of the stored images in pixels, such as 128")
    part(0, shard)  # a shard that cannot be is refused before the files are listed
    loaded = load(sources, others=shard is None or shard[0] == shard[1])
    rows = [(shown(record, source.root), record) for source in loaded for record in source.records]
    here = part(len(rows), shard)
    plan = make_plan(loaded, size)
    building = out.with_name(out.name + ".partial")
    _begin(building, plan | {"shard": list(shard or (1, 1))})
    outcomes = _decode(building, [record for _, record in rows[here]], loaded, size, workers, progress)
    with writing(building, "The images are safe: make room, and the same call goes on where it was"):
        index, refused = _tables(rows[here], outcomes, loaded)
        if not len(index) and not shard:
            reasons = ", ".join(f"{row['path']}: {row['reason']}" for row in refused.slice(0, 3).to_pylist())
            raise DatasetError(f"no image could be read: {reasons}; mend this and remove {building}")
        write_tables(building / STORE_FOLDER, index, refused)
        write_description(building / STORE_FOLDER, plan, file_sha256(building / STORE_FOLDER / IMAGES), shard)
        (building / STORE_FOLDER).rename(out)
        shutil.rmtree(building)
        sync(out.parent)
    return PrepareReport(out, len(index), len(refused), count_duplicates(index), time.monotonic() - started)


def progress_bar(what: str, shown: bool) -> Progress:
    """A bar on stderr that counts images."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _begin(building: Path, plan: dict[str, Any]) -> None:
    file = building / PLAN
    if file.exists():
        if differ := differences(json.loads(file.read_text()), plan):
            raise DatasetError(f"{building} was begun with other {differ}; give the same again, or remove it")
        return
    with writing(building, "Make room, or give another folder"):
        (building / STORE_FOLDER).mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(plan))
        sync(fresh)
        fresh.replace(file)


def _decode(
    building: Path,
    records: Sequence[Record],
    sources: Sequence[Source],
    size: int,
    workers: int | None,
    progress: bool,
) -> list[Outcome]:
    """Write the array; the outcome of each record, in their order."""
    paths = [str(record.path) for record in records]
    with (
        Journal(building, building / STORE_FOLDER / IMAGES, size) as journal,
        progress_bar("preparing", progress) as bar,
        mapper(workers) as decoded,
    ):
        done = len(journal.outcomes)
        _warn_of_room(building, (len(paths) - done) * size**2)
        task = bar.add_task("", total=len(paths), completed=done)
        chunks = [paths[start : start + CHUNK] for start in range(done, len(paths), CHUNK)]
        for block, outcomes in decoded(partial(decode_chunk, size=size), chunks):
            if any(outcome.refused for outcome in outcomes):
                check_roots(sources)
            journal.append(block, outcomes)
            bar.advance(task, len(outcomes))
        journal.finish()
    return journal.outcomes


def _warn_of_room(building: Path, wanted: int) -> None:
    if wanted > (free := shutil.disk_usage(building).free):
        warnings.warn(
            f"{building} may not fit: {wanted / 1e9:.1f} GB wanted, {free / 1e9:.1f} GB free; a full disk stops "
            "this with nothing lost",
            stacklevel=4,
        )


def _tables(rows: Sequence[Row], outcomes: Sequence[Outcome], sources: Sequence[Source]) -> tuple[pa.Table, pa.Table]:
    """The index and the list of what was refused."""
    index = [
        {**vars(record), "path": path, "labels": list(record.labels.items()), "sha256": outcome.sha256}
        for (path, record), outcome in zip(rows, outcomes, strict=True)
        if not outcome.refused
    ]
    refused = [
        {"path": path, "dataset": record.dataset, "reason": outcome.refused}
        for (path, record), outcome in zip(rows, outcomes, strict=True)
        if outcome.refused
    ]
    refused += [
        {"path": path, "dataset": source.name, "reason": reason} for source in sources for path, reason in source.others
    ]
    return pa.Table.from_pylist(index, INDEX_SCHEMA), pa.Table.from_pylist(refused, REFUSED_SCHEMA)
