"""The parts of a store that several machines made -> the store."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from c2l_models.errors import DatasetError

from .build_folder import clear, workplace
from .crash_safe_array import npy_header, sync, write_all, writing
from .prepare import STORE_FOLDER, PrepareReport, check_same, progress_bar, report
from .sources import differences
from .store_format import (
    FORMAT,
    IMAGES,
    INDEX,
    REFUSED,
    STORE,
    file_sha256,
    write_description,
    write_tables,
)

PIECE = 2**24  # bytes at a time


@dataclass(frozen=True)
class Part:
    """A finished shard: where it is and what its store.json says."""

    path: Path
    number: int
    of: int
    plan: dict[str, Any]
    description: dict[str, Any]


def join_shards(shards: Sequence[Path], out: Path, progress: bool = True) -> PrepareReport:
    """Write the store `out` from the folders of all its shards, given in any order.

    The store is byte for byte that of an unsharded `prepare`. Every byte of the shards is checked against the
    hashes they were finished with; the shards stay as they are, so there must be room for both. It is written
    in `<out>.joining` and renamed; after a stop the same call begins again. Where `out` is the store already, as
    after a stop at the very end, nothing is made again.

    Raises DatasetError if `out` is something else, or another process is making it; if a folder is no finished
    shard; if shards are missing, there twice, or of another plan; if one is damaged; if no image is in any; or if
    the disk is full.
    """
    started = time.monotonic()
    out = Path(out)
    parts = sorted((_open(Path(path)) for path in shards), key=lambda p: p.number)
    _check_complete(parts)
    if out.exists():
        check_same(out, parts[0].plan, None)
    joining = out.with_name(out.name + ".joining")
    with workplace(joining):
        if not out.exists():
            with writing(joining, "The shards are safe: make room, and the same call begins again"):
                clear(joining)
                _join(parts, joining / STORE_FOLDER, progress)
                (joining / STORE_FOLDER).rename(out)
                sync(out.parent)
    return report(out, None, started)


def _join(parts: Sequence[Part], store: Path, progress: bool) -> None:
    store.mkdir()
    write_tables(store, _table(parts, INDEX), _table(parts, REFUSED))
    write_description(store, parts[0].plan, _join_images(parts, store / IMAGES, progress))


def _open(path: Path) -> Part:
    if not (path / STORE).is_file():
        raise DatasetError(f"{path} is no finished shard: no {STORE}; finish it with the `c2l prepare` that began it")
    try:
        description = json.loads((path / STORE).read_text())
        if description["format"] != FORMAT or "shard" not in description:
            raise DatasetError(f"{path} is no shard of format {FORMAT}; make it with `c2l prepare --shard K/N`")
        shard = description["shard"]
        return Part(path, shard["number"], shard["of"], description["plan"], description)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path / STORE} is damaged: {error!r}; copy the shard again, or make it again") from error


def _check_complete(parts: Sequence[Part]) -> None:
    if not parts:
        raise DatasetError("no shards given; give the folders of all that `c2l prepare --shard` made")
    first = parts[0]
    for part in parts:
        if differ := differences(first.plan | {"shards": first.of}, part.plan | {"shards": part.of}):
            raise DatasetError(f"{part.path} is no part of the store that {first.path} is of: other {differ}")
    numbers = Counter(part.number for part in parts)
    if missing := [str(number) for number in range(1, first.of + 1) if number not in numbers]:
        raise DatasetError(f"of {first.of} shards {', '.join(missing)} are missing; give the folders of all")
    if twice := [str(part.path) for part in parts if numbers[part.number] > 1]:
        raise DatasetError(f"{', '.join(twice)} are the same shard; give each once")
    if not any(part.description["images"] for part in parts):
        raise DatasetError(f"no shard has an image; their {REFUSED} say why")


def _table(parts: Sequence[Part], name: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(_whole(part, name)) for part in parts)


def _whole(part: Part, name: str) -> Path:
    """A table of a shard, if it has the bytes it was finished with."""
    file = part.path / name
    wanted = part.description[f"{file.stem}_sha256"]
    if not file.is_file() or file_sha256(file) != wanted:
        raise _damaged(file)
    return file


def _damaged(file: Path) -> DatasetError:
    return DatasetError(f"{file} has not the sha256 that {STORE} says; copy the shard again, or make it again")


def _join_images(parts: Sequence[Part], out: Path, progress: bool) -> str:
    """Write the array of all parts; its sha256."""
    size, count = parts[0].plan["size"], sum(part.description["images"] for part in parts)
    written = hashlib.sha256(npy_header(count, size))
    with out.open("wb", buffering=0) as target, progress_bar("joining", progress) as bar:
        task = bar.add_task("", total=count)
        write_all(target, npy_header(count, size))
        for part in parts:
            _append(part, size, target, written)
            bar.advance(task, part.description["images"])
    return written.hexdigest()


def _append(part: Part, size: int, target: BinaryIO, written: "hashlib._Hash") -> None:
    """Copy the rows of a shard's array, checking all of it on the way."""
    file = part.path / IMAGES
    head = npy_header(part.description["images"], size)
    if not file.is_file() or file.stat().st_size != len(head) + part.description["images"] * size**2:
        raise _damaged(file)
    read = hashlib.sha256()
    with file.open("rb") as source:
        read.update(source.read(len(head)))
        while piece := source.read(PIECE):
            read.update(piece)
            written.update(piece)
            write_all(target, piece)
    if read.hexdigest() != part.description["images_sha256"]:
        raise _damaged(file)
