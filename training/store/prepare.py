"""Radiographs on disk -> an image store: one uint8 array, one Parquet index, and what was refused and why.

A store is a folder:

    images.npy       uint8 [N, S, S]
    index.parquet    row i describes image i: path, dataset, patient, study, view, split, labels, sha256 of the file
    refused.parquet  path, dataset, reason
    store.json       size, sources, counts, package version, sha256 of the other three, the plan

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
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from c2l_models.errors import DatasetError

from ..datasets import Record
from .build_folder import workplace
from .crash_safe_array import Journal, journal_head, sync, writing
from .decode_workers import CHUNK, Outcome, decode_chunk, mapper
from .sources import Shard, Source, differences, load, make_plan, part, shown
from .store_format import (
    IMAGES,
    INDEX,
    INDEX_SCHEMA,
    REFUSED_SCHEMA,
    STORE,
    count_duplicates,
    file_sha256,
    libraries,
    write_description,
    write_tables,
)
from .unmounted_disk import Landmarks, find_landmarks

STORE_FOLDER = "store"
ROOM = "The images are safe: make room, and the same call goes on where it was"

Row = tuple[str, Record]
"""What the index calls an image, and its record."""


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` made.

    `refused` counts the rows of refused.parquet, `duplicates` the images whose file is byte for byte that of
    an earlier one (they are kept), `seconds` the time of this call. `shard` is (k, n) of a part, None of a store.
    """

    store: Path
    images: int
    refused: int
    duplicates: int
    seconds: float
    shard: Shard | None = None


def prepare(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    progress: bool = True,
    shard: Shard | None = None,
) -> PrepareReport:
    """Decode every image of the sources once and write the store `out`.

    `sources` are (name of an adapter, root folder); the images come in this order, then by what the index calls
    them, as `decode_square(bytes of the file, size)`: the shorter side resized, the centre kept. A file is read
    once: the sha256 in the index is of the bytes that were decoded. The same files give the same bytes of all that
    is in the store. `workers` is the number of processes, by default one a core; 1 decodes in this process. Room
    on disk: the array, once.

    A missing, broken or unreadable file, or one that crashes its decoder, is recorded and skipped. What is not of
    the file stops the call and is not recorded: a failing disk, want of memory, a missing decoder, or folders that
    were there when the store was begun and are gone (see `landmarks`).

    After a stop at any moment the same call goes on where it was. What a kill costs is decoding again the files
    of the last second or so (`journal.SYNC_SECONDS`, and what the workers had in hand). Where `out` is what this
    call would make, as after a kill at the very end, it is left as it is and reported.

    `shard=(k, n)` does the k-th of n parts, on one of several machines that see the same files and have the same
    patient key; `out` is then the folder of this part, and `shards.join_shards` makes the store of them all.

    Raises DatasetError if `out` is something else, if `<out>.partial` was begun for something else or another
    process writes it, if a data set is not as its distribution lays it out, if no image can be read, if this
    machine cannot decode a file, or if the disk is full.
    """
    started = time.monotonic()
    out = Path(out)
    if out.exists() and not (out / STORE).is_file():
        raise DatasetError(f"{out} exists and is not overwritten; remove it, or give another folder")
    if size < 1:
        raise DatasetError(f"size is {size}; wanted the side of the stored images in pixels, such as 128")
    part(0, shard)  # a shard that cannot be is refused before the files are listed
    loaded = load(sources, others=shard is None or shard[0] == shard[1])
    plan = make_plan(loaded, size) | libraries()
    if out.exists():
        check_same(out, plan, shard)
    building = out.with_name(out.name + ".partial")
    with workplace(building):
        if not out.exists():
            _build(building, loaded, plan, shard, workers, progress)
            with writing(building, ROOM):
                (building / STORE_FOLDER).rename(out)
                sync(out.parent)
    return report(out, shard, started)


def check_same(out: Path, plan: dict[str, Any], shard: Shard | None) -> None:
    """Raise DatasetError unless the store, or the shard, `out` is of this plan."""
    try:
        description = json.loads((out / STORE).read_text())
        made = description["plan"] | {"shard": description.get("shard")}
    except (ValueError, KeyError, TypeError, OSError):
        made = {}
    wanted = plan | {"shard": shard and {"number": shard[0], "of": shard[1]}}
    if differ := differences(made, wanted):
        raise DatasetError(
            f"{out} exists and is not overwritten: it is of other {differ}; remove it, or give another folder"
        )


def report(out: Path, shard: Shard | None, started: float) -> PrepareReport:
    """What there is to say of a finished store, or shard, that this call began to make at `started`."""
    description = json.loads((out / STORE).read_text())
    duplicates = count_duplicates(pq.read_table(out / INDEX, columns=["sha256"]))
    seconds = time.monotonic() - started
    return PrepareReport(out, description["images"], description["refused"], duplicates, seconds, shard)


def progress_bar(what: str, shown: bool) -> Progress:
    """A bar on stderr that counts images."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _build(
    building: Path,
    sources: Sequence[Source],
    plan: dict[str, Any],
    shard: Shard | None,
    workers: int | None,
    progress: bool,
) -> None:
    """The store in `building`, complete but for its name."""
    rows = [(shown(record, source.root), record) for source in sources for record in source.records]
    rows = rows[part(len(rows), shard)]
    store = building / STORE_FOLDER
    outcomes = _decode(building, rows, plan, shard, workers, progress)
    index, refused = _tables(rows, outcomes, sources)
    if not len(index) and not shard:
        reasons = ", ".join(f"{row['path']}: {row['reason']}" for row in refused.slice(0, 3).to_pylist())
        raise DatasetError(f"no image could be read: {reasons}; mend this and remove {building}")
    with writing(building, ROOM):
        write_tables(store, index, refused)
        write_description(store, plan, file_sha256(store / IMAGES), shard)


def _begin(building: Path, plan: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The head of the journal: the plan, and the landmarks that were there when the store was begun."""
    with writing(building, ROOM):
        (building / STORE_FOLDER).mkdir(exist_ok=True)
        head = journal_head(building)
    if head is None:
        return plan | {"landmarks": find_landmarks(records)}
    if differ := differences(head, plan):
        raise DatasetError(f"{building} was begun with other {differ}; give the same again, or remove it")
    return head


def _decode(
    building: Path,
    rows: Sequence[Row],
    plan: dict[str, Any],
    shard: Shard | None,
    workers: int | None,
    progress: bool,
) -> list[Outcome]:
    """Write the array; the outcome of each row, in their order."""
    size, records = plan["size"], [record for _, record in rows]
    head = _begin(building, plan | {"shard": list(shard or (1, 1))}, records)
    known, paths = Landmarks(records, head["landmarks"]), [str(record.path) for record in records]
    with (
        Journal(building, building / STORE_FOLDER / IMAGES, size, head) as journal,
        progress_bar("preparing", progress) as bar,
        mapper(workers) as decoded,
    ):
        done = len(journal.outcomes)
        _warn_of_room(building, (len(paths) - done) * size**2)
        task = bar.add_task("", total=len(paths), completed=done)
        chunks = [paths[start : start + CHUNK] for start in range(done, len(paths), CHUNK)]
        for block, outcomes in decoded(partial(decode_chunk, size=size), chunks):
            _check_landmarks(known, len(journal.outcomes), outcomes, building)
            sound = [outcome for outcome in outcomes if not outcome.stopped]
            journal.append(block, sound)
            if sound != outcomes:
                path, reason = rows[len(journal.outcomes)][0], outcomes[-1].stopped
                raise DatasetError(f"{path}: {reason}. Mend this, or move the file away; the same call then goes on")
            bar.advance(task, len(outcomes))
        journal.finish()
    return journal.outcomes


def _check_landmarks(known: Landmarks, first: int, outcomes: Sequence[Outcome], building: Path) -> None:
    """Raise DatasetError if folders went away with files that were refused, of which the first has this number."""
    if gone := known.vanished(first + place for place, outcome in enumerate(outcomes) if outcome.refused):
        raise DatasetError(
            f"{gone}: folders that were there when {building} was begun are gone, empty or shut; mount them again, "
            f"and the same call goes on, or remove {building} to go without them"
        )


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
