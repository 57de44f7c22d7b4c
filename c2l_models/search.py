"""Nearest films by cosine similarity, among features that were saved, and a picture of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .embedding import Embeddings, embed
from .errors import C2LError, RadiographError, WeightsNotFound
from .radiographs.reading import read_radiograph
from .sheets import contact_sheet, empty_tile


class Neighbours(NamedTuple):
    """The films nearest to `query`, nearest first, and their cosines, float32 [k]."""

    query: Path
    paths: list[Path]
    cosines: np.ndarray


def search(
    query: str | os.PathLike[str], table: Embeddings, k: int, model: str | None = None, device: str | None = None
) -> Neighbours:
    """The `k` films of a table nearest to a film: one of the table's own, itself left out, or any other file.

    Another file is embedded first, by the release or weight file that the table names, or by `model`, which has to be
    the same. Raises `C2LError` where there is no such film, it cannot be read, the table's model is unknown or
    another, or `k` is more than there are; and for weights as `embed`.
    """
    path, rows = Path(query), {name: i for i, name in enumerate(table.paths)}
    row = rows.get(path)
    if row is None:
        row = {name.absolute(): i for name, i in rows.items()}.get(path.absolute())
    own = None if row is None else [row]
    features = table.features[own] if own else _embed_query(path, table, model, device)
    indices, cosines = nearest(table.features, features, k, exclude=own)
    return Neighbours(path, [table.paths[i] for i in indices[0]], cosines[0])


def _embed_query(path: Path, table: Embeddings, model: str | None, device: str | None) -> np.ndarray:
    """Features [1, D] of a file by the table's model."""
    if not path.is_file():
        raise C2LError(f"{path}: neither a film of the table nor a file; wanted a path as it stands there, or a film")
    source = model or table.model
    if not source:
        raise C2LError("the features do not say which model computed them: name it with --model, or embed again")
    try:
        found = embed([path], source, device=device)
    except WeightsNotFound as error:
        raise WeightsNotFound(f"the features are of {table.model or source}; to embed {path}: {error}") from None
    if path in found.errors:
        raise RadiographError(f"{path}: {found.errors[path]}")
    if table.sha256 and found.sha256 != table.sha256:
        raise C2LError(
            f"the features are of {table.model}, sha256 {table.sha256[:12]}…, and {source} has {found.sha256[:12]}…: "
            "features of two models cannot be compared. Name the right one with --model, or embed the films again"
        )
    return found.features


def draw_neighbours(found: Neighbours, path: str | os.PathLike[str]) -> dict[Path, str]:
    """The query and its neighbours as a contact sheet; which films cannot be shown, and why.

    Those are drawn as empty frames.
    """
    missing: dict[Path, str] = {}
    films = []
    for film in (found.query, *found.paths):
        try:
            films.append(read_radiograph(film))
        except RadiographError as error:
            missing[film] = str(error).removeprefix(f"{film}: ")
            films.append(empty_tile("no film"))
    captions = [film.name for film in (found.query, *found.paths)]
    contact_sheet([films], [captions], path, found.cosines[None])
    return missing


def nearest(features: Any, queries: Any, k: int, exclude: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `k` features nearest to each query, exactly: (indices int64 [Q, k], cosine float32 [Q, k]).

    `features` [N, D] and `queries` [Q, D] are real arrays or CPU tensors; nearest first, ties in the
    order of `features`. A zero vector has cosine 0 with everything. `exclude` [Q] names for each
    query one feature to leave out: itself, where the queries are among the features.
    Raises `C2LError` where the shapes do not fit, values are not finite, or `k` is not there to be had.
    """
    rows, wanted = _unit(features, "features"), _unit(queries, "queries")
    if rows.shape[1] != wanted.shape[1]:
        raise C2LError(
            f"features of {rows.shape[1]} dimensions and queries of {wanted.shape[1]}: embed both with the same model"
        )
    available = len(rows) - (exclude is not None)
    if not 1 <= k <= available:
        raise C2LError(f"k = {k} neighbours wanted of {available} films: choose k from 1 to {available}")
    indices = np.empty((len(wanted), k), np.int64)
    cosines = np.empty((len(wanted), k), np.float32)
    for i, query in enumerate(wanted):
        cosine = rows @ query
        if exclude is not None:
            cosine[exclude[i]] = -np.inf
        indices[i] = np.argsort(-cosine, kind="stable")[:k]
        cosines[i] = cosine[indices[i]]
    return indices, cosines


def _unit(vectors: Any, name: str) -> np.ndarray:
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2:
        raise C2LError(f"{name} of shape {list(array.shape)} where [number, dimensions] was wanted")
    if not np.isfinite(array).all():
        raise C2LError(f"{name} hold values that are not finite (NaN or infinity)")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(norms > 0, norms, 1)
