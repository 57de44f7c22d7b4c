"""Nearest films by cosine similarity, among features that were saved, and a picture of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .embedding import Embeddings, embed
from .errors import C2LError, RadiographError, WeightsNotFound
from .radiographs.reading import read_radiograph

TILE, GAP, MARGIN = 200, 14, 28  # pixels
TEXT, TEXT_LINE, TEXT_LINES = 15, 20, 2
BACKGROUND, FRAME, DIM, LIGHT, ACCENT = "#0f1318", "#2a323c", "#8f9ba8", "#e8edf2", "#5ec8b5"


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
            films.append(_placeholder())
    captions = [film.name for film in (found.query, *found.paths)]
    contact_sheet([films], [captions], path, found.cosines[None])
    return missing


def _placeholder() -> Image.Image:
    """What stands for a film that is not there."""
    tile = Image.new("RGB", (TILE, TILE), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    draw.line((0, 0, TILE, TILE), FRAME)
    draw.line((0, TILE, TILE, 0), FRAME)
    draw.text((TILE / 2, TILE / 2), "no film", DIM, _font(), anchor="mm")
    return tile


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


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]],
    path: str | os.PathLike[str],
    cosines: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> None:
    """Draw one row a query as a PNG: the query film at the left, its nearest at the right.

    `captions[i][j]` stands below `rows[i][j]`, in colour where it is the query's own;
    `cosines[i][j - 1]` above it, as a figure and a bar. Films of any size and mode; captions are cut
    to two lines. Raises `C2LError` where the three do not fit together or there is nothing to draw.
    """
    if not rows or not all(rows):
        raise C2LError("no films to draw: at least one row, and a query in each, were wanted")
    if [len(row) for row in rows] != [len(row) for row in captions]:
        raise C2LError("rows and captions differ in number: one caption a film was wanted")
    if cosines is not None and [len(row) - 1 for row in rows] != [len(row) for row in cosines]:
        raise C2LError("rows and cosines differ in number: one cosine a neighbour was wanted")
    columns = max(len(row) for row in rows)
    row_height = TEXT_LINE + TILE + 8 + TEXT_LINES * TEXT_LINE + GAP
    query_gap = 2 * GAP if columns > 1 else 0
    size = (2 * MARGIN + columns * (TILE + GAP) - GAP + query_gap, 2 * MARGIN + len(rows) * row_height - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        top = MARGIN + i * row_height
        for j, film in enumerate(row):
            left = MARGIN + j * (TILE + GAP) + (query_gap if j else 0)
            cosine = float(cosines[i][j - 1]) if j and cosines is not None else None
            _draw_head(draw, left, top, "query" if j == 0 else "", cosine)
            _draw_film(sheet, film, left, top + TEXT_LINE, ACCENT if j == 0 else FRAME)
            same = j == 0 or captions[i][j] == captions[i][0]
            for n, line in enumerate(_wrap(captions[i][j])):
                below = top + TEXT_LINE + TILE + 8 + n * TEXT_LINE
                draw.text((left, below), line, ACCENT if same else DIM, _font())
    sheet.save(Path(path), "PNG")


def _unit(vectors: Any, name: str) -> np.ndarray:
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2:
        raise C2LError(f"{name} of shape {list(array.shape)} where [number, dimensions] was wanted")
    if not np.isfinite(array).all():
        raise C2LError(f"{name} hold values that are not finite (NaN or infinity)")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(norms > 0, norms, 1)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)


def _draw_head(draw: ImageDraw.ImageDraw, left: int, top: int, label: str, cosine: float | None) -> None:
    """The line above a film: a label, or a cosine as a bar and a figure at its right."""
    if cosine is None:
        draw.text((left, top), label, ACCENT, _font())
        return
    figure = 46
    length = TILE - figure - 6
    middle = top + TEXT_LINE // 2 - 1
    draw.rounded_rectangle((left, middle - 2, left + length, middle + 2), 2, FRAME)
    filled = round(length * min(max(cosine, 0.0), 1.0))
    if filled > 0:
        draw.rounded_rectangle((left, middle - 2, left + filled, middle + 2), 2, LIGHT)
    draw.text((left + TILE, top), f"{cosine:.3f}", LIGHT, _font(), anchor="ra")


def _draw_film(sheet: Image.Image, film: Image.Image, left: int, top: int, colour: str) -> None:
    """The whole film in its tile, never cropped or stretched, in a frame."""
    tile = ImageOps.pad(film.convert("RGB"), (TILE, TILE), Image.Resampling.BICUBIC, color="black")
    sheet.paste(tile, (left, top))
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + TILE, top + TILE), outline=colour)


def _wrap(text: str) -> list[str]:
    """At most `TEXT_LINES` lines that fit below a film; what is cut off is marked."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _font().getlength(longer) <= TILE:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:TEXT_LINES]
    if len(lines) > TEXT_LINES:
        kept[-1] += " …"
    return [_shorten(line) for line in kept]


def _shorten(line: str) -> str:
    """The beginning of a line that is too long, with an ellipsis."""
    if _font().getlength(line) <= TILE:
        return line
    line = line.removesuffix(" …")
    while line and _font().getlength(f"{line}…") > TILE:
        line = line[:-1]
    return f"{line}…"
