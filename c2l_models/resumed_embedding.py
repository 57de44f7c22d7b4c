"""`c2l embed`: write the features of images to a file, and resume an interrupted call."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .embedding import Embeddings, EmbedInterrupted, EmbedStopped, Readout, embed
from .errors import C2LError


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

    If the call is interrupted, or stops at an image that this machine cannot read, the rows so far are kept in
    `partial_of(out)`. The next call uses a kept row if model and `features` are the same and the image has not changed
    since.

    Raises:
        C2LError: no image could be read; or as `embed`.
        EmbedStopped, EmbedInterrupted: as `embed`; the rows so far are kept.
    """
    partial = partial_of(out)

    def compute(paths: Sequence[Path]) -> Embeddings:
        return embed(paths, model, device=device, features=features, progress=progress)

    try:
        found = resume(images, partial, compute)
    except (EmbedInterrupted, EmbedStopped) as stop:
        kept = stop.embeddings
        if kept.paths:
            kept.save(partial)
        raise
    check_some_read(len(found.paths), found.errors)
    found.save(out)
    partial.unlink(missing_ok=True)
    return found


def check_some_read(count: int, errors: Mapping[Path, str]) -> None:
    """Raise C2LError, with the first reasons, if none of the images could be read."""
    if not count:
        listed = "; ".join(f"{path}: {reason}" for path, reason in islice(errors.items(), 3))
        raise C2LError(f"expected images that can be read, found none{': ' if listed else ''}{listed}")


def resume(images: Sequence[Path], kept: Path, compute: Callable[[Sequence[Path]], Embeddings]) -> Embeddings:
    """The rows of all images, in their order: those that the file `kept` holds, if it exists, and computed ones.

    A kept row is used if the model and the readout are the same and the image has not changed since.

    Raises what `compute` raises; EmbedInterrupted and EmbedStopped with the kept rows too.
    """
    earlier = _kept(kept, images)
    before = set(earlier.paths) if earlier else set()
    found = _extended(earlier, [path for path in images if path not in before], compute, images)
    if earlier and not _same_model(earlier, found):  # the kept rows are of another model
        found = _extended(found, earlier.paths, compute, images)
    return found


def _extended(
    done: Embeddings | None,
    paths: Sequence[Path],
    compute: Callable[[Sequence[Path]], Embeddings],
    images: Sequence[Path],
) -> Embeddings:
    """The rows of `done`, unless they are of another model, and the computed rows of the paths. Raises as `resume`."""
    try:
        return _joined(compute(paths), done, images)
    except (EmbedInterrupted, EmbedStopped) as stop:
        stop.embeddings = _joined(stop.embeddings, done, images)
        raise


def _kept(partial: Path, images: Sequence[Path]) -> Embeddings | None:
    """The rows of an interrupted call whose images are asked for again, and are not newer than the rows."""
    if not partial.is_file():
        return None
    try:
        table, written = Embeddings.load(partial), partial.stat().st_mtime
    except C2LError:
        return None
    asked = set(images)
    rows = [i for i, path in enumerate(table.paths) if path in asked and _older(path, written)]
    paths = [table.paths[i] for i in rows]
    return Embeddings(table.features[rows], paths, model=table.model, sha256=table.sha256, readout=table.readout)


def _older(path: Path, time: float) -> bool:
    try:
        return path.stat().st_mtime <= time
    except OSError:
        return False


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
