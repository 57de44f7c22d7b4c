"""A few test films and the training films that a network holds to be most like them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.search import nearest
from c2l_models.sheets import contact_sheet

from ..store.image_store import ImageStore
from .samples import DataSet, Features, Rows

QUERIES, NEIGHBOURS = 6, 6


class Found(NamedTuple):
    """A query, its nearest training films, nearest first, and their cosines: rows of the store."""

    query: int
    rows: list[int]
    cosines: list[float]


def choose_queries(sets: Sequence[DataSet], seed: int, count: int = QUERIES) -> list[int]:
    """About `count` test films by chance, as many of each data set: its first group's, then of groups that are drawn.

    A data set with fewer groups has fewer films.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for films in sets:
        first, *others = films.groups(films.test).values()
        drawn = [first, *(others[i] for i in random.permutation(len(others)))]
        for group in drawn[: max(1, count // len(sets))]:
            left = np.setdiff1d(films.test[group], chosen)
            if len(left):
                chosen.append(int(random.choice(left)))
    return chosen


def find_neighbours(
    store: ImageStore, known: Features, asked: Features, queries: Sequence[int], k: int = NEIGHBOURS
) -> list[Found]:
    """The k training films nearest to each query by cosine, the query's own patient's left out.

    Raises:
        DatasetError: fewer than k films of other patients.
    """
    found = []
    for query in queries:
        others: Rows = known.rows[store.patients[known.rows] != store.patients[query]]
        if len(others) < k:
            raise DatasetError(f"{len(others)} training films of other patients than a query's; wanted {k} or more")
        indices, cosines = nearest(known.of(others), asked.of(np.array([query])), k)
        found.append(Found(query, others[indices[0]].tolist(), cosines[0].tolist()))
    return found


def draw_neighbours(
    path: Path, sets: Sequence[DataSet], store: ImageStore, found: Sequence[Found]
) -> list[dict[str, Any]]:
    """Draw the queries and their neighbours as a PNG; gives what stands in it, as JSON knows it: no film is named."""
    rows = [[one.query, *one.rows] for one in found]
    captions = [[_caption(sets, row) for row in row_of] for row_of in rows]
    films = [[Image.fromarray(store[[row]][0, 0].cpu().numpy()) for row in row_of] for row_of in rows]
    contact_sheet(films, captions, path, [one.cosines for one in found])
    return [
        {
            "film": captions[i][0],
            "row": one.query,
            "nearest": [
                {"film": caption, "row": row, "cosine": round(cosine, 4)}
                for caption, row, cosine in zip(captions[i][1:], one.rows, one.cosines, strict=True)
            ],
        }
        for i, one in enumerate(found)
    ]


def _caption(sets: Sequence[DataSet], row: int) -> str:
    """By the data set that has the row."""
    dataset = sets[0].store.index["dataset"][row].as_py()
    return next(films.caption(row) for films in sets if films.name == dataset)
