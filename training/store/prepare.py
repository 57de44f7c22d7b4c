"""Radiographs on disk -> an image store: one uint8 array, one Parquet index, and a list of the refused files.

A store is a folder:

    images.npy       uint8 [N, S, S]
    index.parquet    row i describes image i: path, dataset, patient, study, view, split, labels, sha256 of the file,
                     body_part, source, pretraining_only
    refused.parquet  path, dataset, reason
    store.json       size, sources, counts, package version, sha256 of the other three files, the plan (with title and
                     license of described data sets)

It is built in `<store>.partial/` and renamed when it is complete. An interrupted call is resumed by repeating it:
`crash_safe_array` records each decoded file.
"""

import shutil
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from c2l_models.errors import DatasetError
from c2l_models.files import sync_folder
from c2l_models.progress import stage

from ..datasets.record import Record
from .build_folder import STORE_FOLDER, locked_build_folder, write_errors
from .build_plan import Shard, differences, make_plan, shard_slice
from .crash_safe_array import CrashSafeArray, journal_header
from .decode_or_refuse import Outcome, decode_chunk
from .decode_workers import CHUNK, decoding_pool
from .finished_store import PrepareReport, check_same_plan, summarize_store
from .sources import Source, index_path, load_sources
from .store_format import (
    DESCRIPTION,
    IMAGES,
    INDEX_SCHEMA,
    REFUSED_SCHEMA,
    file_sha256,
    library_versions,
    write_description,
    write_tables,
)
from .unmounted_disk import UnmountedDiskCheck, find_sentinels

ADVICE = "Finished work is safe: free disk space, then repeat the command to resume"

SENTINELS_KEY = "landmarks"
"""Key of the journal's header; part of the file format."""

Row = tuple[str, Record]
"""The path in the index, and the record."""


class Part(NamedTuple):
    """The work of one call: a store, or one shard of it.

    Attributes:
        plan: the plan of the whole store; the machine that decodes adds the versions of its libraries.
        shard: (k, n); None for the whole store.
        rows: the images of this part, in the order of the index.
        unused: rows of refused.parquet for files on disk that no record names; of the last shard only.
        sentinels: as `find_sentinels`; None: the machine that decodes finds them when it begins.
    """

    plan: dict[str, Any]
    shard: Shard | None
    rows: Sequence[Row]
    unused: Sequence[dict[str, str]]
    sentinels: Sequence[int] | None = None


def prepare(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    progress: bool = True,
    shard: Shard | None = None,
    pretraining_only: Sequence[str] = (),
) -> PrepareReport:
    """Decode every image of the data sets once and write the store `out`.

    Images are sorted by data set, in the order of `sources`, then by index path. Each is `decode_square(bytes of the
    file, size)`: the shorter side is resized to `size`, then the central square is cropped. Each file is read once, so
    the sha256 in the index is the hash of the decoded bytes. The same files always produce a store with the same bytes.
    The disk never holds a second copy of the array.

    A missing, damaged or unreadable file, or one that crashes its decoder, is recorded in refused.parquet and skipped.
    If the cause is not the file, the call stops and records nothing: a failing disk, too little memory, a missing
    decoder, or folders that have disappeared since the store was begun (see `unmounted_disk`).

    After an interruption at any moment, the same call resumes. After a kill, it decodes again the files since the last
    flush (`crash_safe_array.SYNC_SECONDS`, 1 s) and the files that the workers were decoding. If `out` is already the
    store that this call would make, for example after a kill at the very end, the call only returns its report.

    Args:
        sources: (name of a data set, root folder) pairs; see `adapters.find_description` for the names.
        out: the store's folder.
        size: side of the stored images in pixels.
        workers: number of processes, by default one per core; 1 decodes in this process.
        progress: show a progress bar.
        shard: (k, n) writes only the k-th of n parts to `out`, so that several machines with the same files and the
            same patient key can share the work. `shards.join_shards` joins all parts to the store.
        pretraining_only: "NAME:PATTERN" of images that no labelled task may use; see `sources.load_sources`.

    Raises DatasetError if `out` exists and is not this store, if `<out>.partial` was begun with other settings or is
    in use by another process, if a data set has another layout than its distribution, if no image can be decoded, if
    this machine cannot decode a file, or if the disk is full.
    """
    started = time.monotonic()
    out = Path(out)
    check_arguments(out, size)
    shard_slice(0, shard)  # refuse an impossible shard before the files are listed
    loaded = load_sources(sources, list_unused=shard is None or shard[0] == shard[1], pretraining_only=pretraining_only)
    (part,) = plan_parts(loaded, size, [shard])
    write_part(part, out, workers, progress)
    return summarize_store(out, shard, started)


def check_arguments(out: Path, size: int) -> None:
    """Raise DatasetError if `out` exists and is not a store, or for an impossible size."""
    if out.exists() and not (out / DESCRIPTION).is_file():
        raise DatasetError(
            f"{out} already exists, is not a store and is not overwritten; remove it, or choose another folder"
        )
    if size < 1:
        raise DatasetError(f"expected a size of at least 1 pixel, such as 128, found {size}")


def plan_parts(sources: Sequence[Source], size: int, shards: Sequence[Shard | None]) -> list[Part]:
    """The work of each of these shards; None is the whole store."""
    rows = [(index_path(record, source.root), record) for source in sources for record in source.records]
    plan = make_plan(sources, size)
    unused = [
        {"path": path, "dataset": source.name, "reason": reason} for source in sources for path, reason in source.unused
    ]
    return [
        Part(plan, shard, rows[shard_slice(len(rows), shard)], unused if shard is None or shard[0] == shard[1] else ())
        for shard in shards
    ]


def write_part(part: Part, out: Path, workers: int | None, progress: bool) -> None:
    """Write `out`, or resume, or do nothing if it is already there. Raises as `prepare`."""
    part = part._replace(plan=part.plan | library_versions())
    if out.exists():
        check_same_plan(out, part.plan, part.shard)
    building = out.with_name(out.name + ".partial")
    with locked_build_folder(building):
        if not out.exists():
            _build(building, part, workers, progress)
            with write_errors(building, ADVICE):
                (building / STORE_FOLDER).rename(out)
                sync_folder(out.parent)


def _build(building: Path, part: Part, workers: int | None, progress: bool) -> None:
    """Write the complete store to the subfolder `STORE_FOLDER` of `building`."""
    store = building / STORE_FOLDER
    index, refused = _tables(part, _decode(building, part, workers, progress))
    if not len(index) and not part.shard:
        reasons = ", ".join(f"{row['path']}: {row['reason']}" for row in refused.slice(0, 3).to_pylist())
        raise DatasetError(
            f"no image could be decoded: {reasons}; correct the cause, remove {building}, then repeat the command"
        )
    with write_errors(building, ADVICE):
        write_tables(store, index, refused)
        write_description(store, part.plan, file_sha256(store / IMAGES), part.shard)


def _begin_or_resume(building: Path, part: Part, records: Sequence[Record]) -> dict[str, Any]:
    """The journal's header: the plan, and the sentinels that were found when the store was begun."""
    plan = part.plan | {"shard": list(part.shard or (1, 1))}
    with write_errors(building, ADVICE):
        (building / STORE_FOLDER).mkdir(exist_ok=True)
        header = journal_header(building)
    if header is None:
        return plan | {SENTINELS_KEY: find_sentinels(records) if part.sentinels is None else list(part.sentinels)}
    if different := differences(header, plan):
        raise DatasetError(
            f"{building} was begun with other settings: {different}; restore these settings to resume, or remove "
            "this folder to start again"
        )
    return header


def _decode(building: Path, part: Part, workers: int | None, progress: bool) -> list[Outcome]:
    """Write the array and return the outcome of each row, in order."""
    size, records = part.plan["size"], [record for _, record in part.rows]
    header = _begin_or_resume(building, part, records)
    disk_check = UnmountedDiskCheck(records, header[SENTINELS_KEY])
    paths = [str(record.path) for record in records]
    with (
        CrashSafeArray(building, building / STORE_FOLDER / IMAGES, size, header) as array,
        stage("decoding", len(paths), "images", progress, done := len(array.outcomes)) as line,
        decoding_pool(workers) as decode,
    ):
        warn_if_disk_too_small(building, (len(paths) - done) * size**2)
        chunks = [paths[start : start + CHUNK] for start in range(done, len(paths), CHUNK)]
        for block, outcomes in decode(partial(decode_chunk, size=size), chunks):
            _check_disk(disk_check, len(array.outcomes), outcomes, building)
            recorded = [outcome for outcome in outcomes if not outcome.stopped]
            array.append(block, recorded)
            if recorded != outcomes:
                path, reason = part.rows[len(array.outcomes)][0], outcomes[-1].stopped
                raise DatasetError(
                    f"{path}: {reason}. Correct the cause, or move the file away, then repeat the command to resume"
                )
            line.advance(len(outcomes))
        array.finish()
    return array.outcomes


def _check_disk(check: UnmountedDiskCheck, first: int, outcomes: Sequence[Outcome], building: Path) -> None:
    """Raise DatasetError if folders disappeared together with refused files; `first` is the row of `outcomes[0]`."""
    refused = (first + offset for offset, outcome in enumerate(outcomes) if outcome.refused)
    if dataset := check.lost_dataset(refused):
        raise DatasetError(
            f"{dataset}: folders that contained files when {building} was begun are now missing, empty or unreadable. "
            "Mount the disk again and repeat the command to resume; if the files were removed on purpose, remove "
            f"{building} and repeat the command"
        )


def warn_if_disk_too_small(building: Path, needed: int) -> None:
    """Warn if the disk of a folder has less free space than the bytes that are needed."""
    if needed > (free := shutil.disk_usage(building).free):
        warnings.warn(
            f"{building} may not fit on the disk: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; if the disk "
            "becomes full, the command stops and no finished work is lost",
            stacklevel=5,
        )


def _tables(part: Part, outcomes: Sequence[Outcome]) -> tuple[pa.Table, pa.Table]:
    """The index and the table of refused files."""
    index = [
        {
            **vars(record),
            "path": path,
            "labels": list(record.labels.items()),
            "sha256": outcome.sha256,
            "source": record.source or record.dataset,
        }
        for (path, record), outcome in zip(part.rows, outcomes, strict=True)
        if not outcome.refused
    ]
    refused = [
        {"path": path, "dataset": record.dataset, "reason": outcome.refused}
        for (path, record), outcome in zip(part.rows, outcomes, strict=True)
        if outcome.refused
    ]
    refused += part.unused
    return pa.Table.from_pylist(index, INDEX_SCHEMA), pa.Table.from_pylist(refused, REFUSED_SCHEMA)
