"""`c2l embed`: write the features of images to a file, and resume an interrupted call."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .embedding import Embeddings, EmbedInterrupted, EmbedStopped, embed
from .errors import C2LError
from .feature_files import FeatureTable, read_features, write_features
from .readouts import Readout

Stamps = Mapping[Path, tuple[int, int]]
"""Size in bytes and modification time in ns of files."""
AfterBatch = Callable[[Callable[[], Embeddings]], None]
Compute = Callable[[Sequence[Path], AfterBatch], Embeddings]
"""`embed` with a model: images, and what to call after each batch with a function that returns the rows so far."""
KEEP_SECONDS = 300
"""Time between two writes of the rows so far, of which a process that is killed loses no more."""
GONE = (-1, -1)
"""The stamp of an image that could not be found before it was read; its row is computed again."""


class Embedded(NamedTuple):
    """Number of films that were embedded, of features each, and the films that could not be read, with the reasons."""

    films: int
    width: int
    errors: dict[Path, str]


def partial_of(out: Path) -> Path:
    """The file that keeps the rows of an interrupted call."""
    return out.with_name(f"{out.stem}.partial.parquet")


def embed_to_file(
    images: Sequence[Path],
    out: Path,
    model: str = "resnet18",
    device: str | None = None,
    features: Readout = "pooled",
    progress: bool = False,
) -> Embeddings:
    """Embed images and write `out`, in the format of its suffix.

    If the call is interrupted, stops at an image that this machine cannot read, or cannot write `out`, the rows so far
    are kept in `partial_of(out)`; they are also written there every `KEEP_SECONDS`, for a process that is killed. The
    next call uses a kept row if model and `features` are the same and the image has not changed since.

    Raises:
        C2LError: rows of other images are kept there (`check_kept`); no image could be read; or as `embed`.
        EmbedStopped, EmbedInterrupted: as `embed`; the rows so far are kept.
        OSError, MemoryError: `out` cannot be written; all rows are kept, unless the disk is full for them too.
    """
    partial = partial_of(out)
    check_kept([partial], images)

    def compute(paths: Sequence[Path], after_batch: AfterBatch) -> Embeddings:
        return embed(paths, model, device=device, features=features, progress=progress, after_batch=after_batch)

    found, stamps = resume(images, partial, compute)
    check_some_read(len(found.paths), found.errors)
    try:
        found.save(out)
    except KeyboardInterrupt:  # writing a million rows as CSV takes minutes
        keep(found, stamps, partial)
        raise EmbedInterrupted(found) from None
    except (OSError, MemoryError):  # Parquet needs less disk and memory than CSV
        with suppress(OSError):
            keep(found, stamps, partial)
        raise
    partial.unlink(missing_ok=True)
    return found


def check_kept(files: Iterable[Path], images: Sequence[Path]) -> None:
    """Check, before long work on `images`, that it removes no row that an interrupted call kept for another image.

    Raises C2LError if one of the files holds a row of another image that has not changed since.
    """
    named = set(images)
    for file in files:
        for path, stamp in _kept_table(file)[1].items():
            if path not in named and _stamp(path) == stamp:
                raise C2LError(
                    f"expected rows of these films alone in {file}, found that of {path}, which an interrupted call "
                    "kept and this call would remove; repeat that call, choose another --out, or remove the file"
                )


def check_some_read(count: int, errors: Mapping[Path, str]) -> None:
    """Raise C2LError, with the first reasons, if none of the images could be read."""
    if not count:
        listed = "; ".join(f"{path}: {reason}" for path, reason in islice(errors.items(), 3))
        raise C2LError(f"expected images that can be read, found none{': ' if listed else ''}{listed}")


def resume(images: Sequence[Path], kept: Path, compute: Compute) -> tuple[Embeddings, Stamps]:
    """The rows of all images, in their order: those that the file `kept` holds, if it exists, and computed ones.

    A kept row is used if the model and the readout are the same and the image has the same size and modification time.
    The stamps that are also returned are for `keep`. While `compute` runs, the rows so far are written to `kept` every
    `KEEP_SECONDS`; if that fails, such as on a full disk, it is tried again later.

    Raises what `compute` raises. If that is EmbedInterrupted or EmbedStopped, the rows so far are written to `kept`
    before, and the error holds them.
    """
    stamps = {path: stamp for path in images if (stamp := _stamp(path))}  # of before the images are read
    earlier = _kept(kept, stamps)
    before = set(earlier.paths) if earlier else set()

    def extended(done: Embeddings | None, paths: Sequence[Path]) -> Embeddings:
        """The rows of `done`, unless they are of another model, and the computed rows of the paths."""

        def keep_so_far(rows: Embeddings) -> None:
            keep(_joined(rows, done, images), stamps, kept)

        try:
            return _joined(compute(paths, _at_times(keep_so_far)), done, images)
        except (EmbedInterrupted, EmbedStopped) as stop:
            stop.embeddings = _joined(stop.embeddings, done, images)
            raise

    try:
        found = extended(earlier, [path for path in images if path not in before])
        if earlier and not _same_model(earlier, found):  # the kept rows are of another model
            found = extended(found, earlier.paths)
    except (EmbedInterrupted, EmbedStopped) as stop:
        if stop.embeddings.paths:
            keep(stop.embeddings, stamps, kept)
        raise
    return found, stamps


def _at_times(keep_rows: Callable[[Embeddings], None]) -> AfterBatch:
    """Return a function to call after each batch, which passes the rows so far to `keep_rows` every `KEEP_SECONDS`."""
    written = time.monotonic()

    def after_batch(so_far: Callable[[], Embeddings]) -> None:
        nonlocal written
        if time.monotonic() - written >= KEEP_SECONDS:
            with suppress(OSError, MemoryError):
                keep_rows(so_far())
            written = time.monotonic()

    return after_batch


def keep(rows: Embeddings, stamps: Stamps, file: Path) -> None:
    """Write rows to a Parquet file, with the size and modification time that each image had before it was read."""
    table = rows.table()
    known = [stamps.get(path, GONE) for path in rows.paths]
    write_features(file, table._replace(stamps=np.array(known, np.int64).reshape(-1, 2)))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns of a file; None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _kept(file: Path, stamps: Stamps) -> Embeddings | None:
    """The rows of an interrupted call whose images are asked for again, and are the same files as before."""
    table, earlier = _kept_table(file)
    if table is None:
        return None
    same = [i for i, path in enumerate(table.paths) if stamps.get(path) == earlier[path]]
    paths = [table.paths[i] for i in same]
    return Embeddings.from_table(table._replace(features=table.features[same], paths=paths))


def _kept_table(file: Path) -> tuple[FeatureTable | None, Stamps]:
    """The content of a file of kept rows, and its stamps; None if it does not exist, is damaged, or has no stamps."""
    with suppress(C2LError):
        table = read_features(file)
        if table.stamps is not None:  # older versions wrote none
            return table, {
                path: (size, mtime) for path, (size, mtime) in zip(table.paths, table.stamps.tolist(), strict=True)
            }
    return None, {}


def _same_model(one: Embeddings, other: Embeddings) -> bool:
    return (one.sha256, one.readout) == (other.sha256, other.readout)


def _joined(one: Embeddings, other: Embeddings | None, images: Sequence[Path]) -> Embeddings:
    """The rows of both, in the order of the images; everything else of the first. Only the first if models differ."""
    if other is None or not _same_model(one, other):
        return one
    rows = dict(zip(other.paths, other.features, strict=True)) | dict(zip(one.paths, one.features, strict=True))
    paths = [path for path in images if path in rows]
    features = np.stack([rows[path] for path in paths]) if paths else one.features
    errors = other.errors | one.errors
    return Embeddings(features, paths, errors, model=one.model, sha256=one.sha256, readout=one.readout)
