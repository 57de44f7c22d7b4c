"""Find the nearest images by cosine similarity of their features, and draw them."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .embedding import Embeddings, embed
from .errors import C2LError, RadiographError, WeightsNotFound
from .radiographs.reading import read_radiograph
from .sheets import contact_sheet, empty_tile


class Neighbours(NamedTuple):
    """The images nearest to `query`, nearest first, with their cosine similarities, float32 [k].

    `copies`: the files of the table with the same bytes as the query; each stays among the neighbours.
    """

    query: Path
    paths: list[Path]
    cosines: np.ndarray
    copies: frozenset[Path] = frozenset()


def search(
    query: str | os.PathLike[str], table: Embeddings, k: int, model: str | None = None, device: str | None = None
) -> Neighbours:
    """Find the `k` images of a table that are nearest to an image.

    Args:
        query: an image of the table, which is then not its own neighbour whatever path or link names it, or any other
            file, which is embedded first.
        table: features of the images to search, from `embed` or `Embeddings.load`.
        k: number of neighbours.
        model: release or weight file that embeds another file. Default: the model that the table names.
        device: where to embed another file, as in `embed`.

    Raises:
        C2LError: no such image, an unreadable file, an unknown model or another model than the table's, or `k` larger
            than the number of images. For weights, the errors of `embed`.
    """
    path = Path(query)
    row = _row_of(path, table.paths)
    own = None if row is None else [row]
    features = table.features[own] if own else _embed_query(path, table, model, device)
    indices, cosines = nearest(table.features, features, k, exclude=own)
    paths = [table.paths[i] for i in indices[0]]
    return Neighbours(path, paths, cosines[0], frozenset(other for other in paths if _is_copy(path, other)))


def _row_of(path: Path, paths: Sequence[Path]) -> int | None:
    """The row of a file: by its path as written, then as an absolute path, then as the same file on the disk."""
    rows = {name: i for i, name in enumerate(paths)}
    if path in rows:
        return rows[path]
    absolute = {name.absolute(): i for name, i in rows.items()}
    if path.absolute() in absolute:
        return absolute[path.absolute()]
    if not path.exists():
        return None
    for name, i in rows.items():
        with suppress(OSError):
            if name.samefile(path):
                return i
    return None


def _is_copy(path: Path, other: Path) -> bool:
    """Whether two files have the same bytes; False if one cannot be read."""
    try:
        return path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()
    except OSError:
        return False


def nearest(features: Any, queries: Any, k: int, exclude: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the `k` features nearest to each query by exact cosine similarity.

    Args:
        features: real array or CPU tensor [N, D].
        queries: real array or CPU tensor [Q, D].
        k: neighbours per query.
        exclude: one feature index per query that is not its neighbour; for example, the query's own.

    Returns:
        indices int64 [Q, k] and cosines float32 [Q, k], nearest first. Ties are in the order of `features`. The cosine
        of a zero vector is 0.

    Raises:
        C2LError: shapes that do not match, values that are not finite, or `k` larger than the number of features.
    """
    rows, tests = _unit(features, "features"), _unit(queries, "queries")
    if rows.shape[1] != tests.shape[1]:
        raise C2LError(
            f"expected features and queries of the same width, found {rows.shape[1]} and {tests.shape[1]}; "
            "embed both with the same model"
        )
    available = len(rows) - (exclude is not None)
    if not 1 <= k <= available:
        raise C2LError(f"expected a k from 1 to {available}, the number of other images, found {k}")
    indices = np.empty((len(tests), k), np.int64)
    cosines = np.empty((len(tests), k), np.float32)
    for i, query in enumerate(tests):
        cosine = rows @ query
        if exclude is not None:
            cosine[exclude[i]] = -np.inf
        indices[i] = np.argsort(-cosine, kind="stable")[:k]
        cosines[i] = cosine[indices[i]]
    return indices, cosines


def draw_neighbours(found: Neighbours, path: str | os.PathLike[str]) -> dict[Path, str]:
    """Draw a query and its neighbours as a contact sheet, a PNG file.

    Returns the images that cannot be read, each with the reason. They are drawn as empty tiles.
    """
    missing: dict[Path, str] = {}
    images = []
    for file in (found.query, *found.paths):
        try:
            images.append(read_radiograph(file))
        except RadiographError as error:
            missing[file] = str(error).removeprefix(f"{file}: ")
            images.append(empty_tile("no film"))
    captions = [file.name for file in (found.query, *found.paths)]
    contact_sheet([images], [captions], path, found.cosines[None])
    return missing


def _embed_query(path: Path, table: Embeddings, model: str | None, device: str | None) -> np.ndarray:
    """Embed a file with the table's model: features [1, D]."""
    if not path.is_file():
        raise C2LError(f"{path}: expected an image file, or a path in the features file; found neither")
    source = model or table.model
    if not source:
        raise C2LError("the features do not say which model computed them; name it with --model, or embed again")
    try:
        found = embed([path], source, device=device, features=table.readout)
    except WeightsNotFound as error:
        raise WeightsNotFound(
            f"the features were computed by {table.model or source}, which is needed to embed {path}: {error}"
        ) from None
    if path in found.errors:
        raise RadiographError(f"{path}: {found.errors[path]}")
    if table.sha256 and found.sha256 != table.sha256:
        raise C2LError(
            f"expected the model of the features, {table.model} with sha256 {table.sha256[:12]}…, found {source} with "
            f"{found.sha256[:12]}…; features of two models cannot be compared. Name the right model with --model, or "
            "embed the images again"
        )
    return found.features


def _unit(vectors: Any, name: str) -> np.ndarray:
    """Vectors [N, D] scaled to unit length; zero vectors stay zero."""
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2:
        raise C2LError(f"expected {name} of shape [number, width], found {list(array.shape)}")
    if not np.isfinite(array).all():
        raise C2LError(f"expected finite {name}, found NaN or infinity; check the network and its input")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(norms > 0, norms, 1)
