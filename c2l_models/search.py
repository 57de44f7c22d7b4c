"""Find the nearest images by cosine similarity of their features, and draw them."""

import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from .embedding import Embeddings, embed
from .errors import C2LError, RadiographError, WeightsNotFound
from .radiographs.reading import read_radiograph
from .sheets import TILE, contact_sheet, empty_tile


class Neighbours(NamedTuple):
    """The images nearest to `query`, nearest first, with their cosine similarities, float32 [k].

    `copies`: those of `paths` whose files have the same bytes as the query's.
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
    return search_all([query], table, k, model, device)[0][0]


def search_all(
    queries: Sequence[str | os.PathLike[str]],
    table: Embeddings,
    k: int,
    model: str | None = None,
    device: str | None = None,
) -> tuple[list[Neighbours], dict[Path, str]]:
    """Search for several images, as `search`; images that are not in the table are embedded together.

    Returns:
        The neighbours of each query that can be read, in their order; and the other queries, each with the reason.

    Raises:
        C2LError: as `search`; an unreadable file only if no query can be read.
    """
    paths = [Path(query) for query in queries]
    row_of = FileRows(table.paths)
    rows = {path: row_of(path) for path in paths}
    others = [path for path, row in rows.items() if row is None]
    embedded, errors = _embed_queries(others, table, model, device) if others else ({}, {})
    if rows and len(errors) == len(rows):
        path, reason = next(iter(errors.items()))
        raise RadiographError(f"{path}: {reason}")
    units, found = unit_vectors(table.features, "features"), []
    for path in paths:
        if path in errors:
            continue
        row = rows[path]
        query = unit_vectors(embedded[path][None], "queries") if row is None else units[[row]]
        indices, cosines = _nearest_units(units, query, k, exclude=None if row is None else [row])
        near = [table.paths[i] for i in indices[0]]
        found.append(Neighbours(path, near, cosines[0], frozenset(other for other in near if _is_copy(path, other))))
    return found, errors


class FileRows:
    """Maps a file to its row in a list of paths, whatever path or link names it; None if the list does not have it.

    A file is looked for by its path as written, then by its name in its resolved folder (without links and `..`), then
    as the same file on the disk. The first two find files that do not exist.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._rows = {name: i for i, name in enumerate(paths)}
        self._folders: dict[Path, Path] = {}

    def __call__(self, path: Path) -> int | None:
        if path in self._rows:
            return self._rows[path]
        if (located := self._locate(path)) in self._located:
            return self._located[located]
        return self._on_disk.get(identity) if (identity := _identity(path)) else None

    def _locate(self, path: Path) -> Path:
        if path.parent not in self._folders:  # resolving is slow; folders are few
            self._folders[path.parent] = Path(os.path.realpath(path.parent))
        return self._folders[path.parent] / path.name

    @cached_property
    def _located(self) -> dict[Path, int]:
        return {self._locate(name): i for name, i in self._rows.items()}

    @cached_property
    def _on_disk(self) -> dict[tuple[int, int], int]:
        """The row of each file that exists; of several names of a file, the first."""
        rows: dict[tuple[int, int], int] = {}
        for name, i in self._rows.items():
            if identity := _identity(name):
                rows.setdefault(identity, i)
        return rows


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
    return _nearest_units(unit_vectors(features, "features"), unit_vectors(queries, "queries"), k, exclude)


def _nearest_units(
    rows: np.ndarray, tests: np.ndarray, k: int, exclude: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` for unit vectors: features [N, D] and queries [Q, D]."""
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


def draw_neighbours(found: Neighbours | Sequence[Neighbours], path: str | os.PathLike[str]) -> dict[Path, str]:
    """Draw queries and their neighbours as a contact sheet, a PNG file with one row per query.

    Returns the images that cannot be read, each with the reason. They are drawn as empty tiles.
    """
    missing: dict[Path, str] = {}
    rows = [found] if isinstance(found, Neighbours) else found

    @cache  # a film may be near several queries
    def drawn(file: Path) -> Image.Image:
        try:
            return ImageOps.contain(read_radiograph(file), (TILE, TILE), Image.Resampling.BICUBIC)
        except RadiographError as error:
            missing[file] = str(error).removeprefix(f"{file}: ")
            return empty_tile("no film")

    films = [(row.query, *row.paths) for row in rows]
    images = [[drawn(file) for file in row] for row in films]
    captions = [[file.name for file in row] for row in films]
    contact_sheet(images, captions, path, [row.cosines.tolist() for row in rows])
    return missing


def _embed_queries(
    paths: Sequence[Path], table: Embeddings, model: str | None, device: str | None
) -> tuple[dict[Path, np.ndarray], dict[Path, str]]:
    """Embed files with the table's model. Returns their features [D], and the reason why a file has none."""
    for path in paths:
        if not path.is_file():
            raise C2LError(f"{path}: expected an image file, or a path in the features file; found neither")
    source = model or table.model
    if not source:
        raise C2LError("the features do not say which model computed them; name it with --model, or embed again")
    try:
        found = embed(paths, source, device=device, features=table.readout)
    except WeightsNotFound as error:
        raise WeightsNotFound(
            f"the features were computed by {table.model or source}, which is needed to embed {paths[0]}: {error}"
        ) from None
    if found.paths and table.sha256 and found.sha256 != table.sha256:
        raise C2LError(
            f"expected the model of the features, {table.model} with sha256 {table.sha256[:12]}…, found {source} with "
            f"{found.sha256[:12]}…; features of two models cannot be compared. Name the right model with --model, or "
            "embed the images again"
        )
    return dict(zip(found.paths, found.features, strict=True)), found.errors


def unit_vectors(vectors: Any, name: str) -> np.ndarray:
    """Vectors [N, D] scaled to unit length; zero vectors stay zero."""
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2:
        raise C2LError(f"expected {name} of shape [number, width], found {list(array.shape)}")
    if not np.isfinite(array).all():
        raise C2LError(f"expected finite {name}, found NaN or infinity; check the network and its input")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(norms > 0, norms, 1)
