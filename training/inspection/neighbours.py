"""Nearest training images of a few test images, by cosine similarity of their features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.search import nearest
from c2l_models.sheets import contact_sheet

from ..store.image_store import ImageStore
from .samples import DataSetSample, Features, Rows

QUERIES, NEIGHBOURS = 6, 6
"""Number of queries, and of neighbours per query."""


class QueryResult(NamedTuple):
    """Rows of a query and of its nearest training images, nearest first, with their cosine similarities."""

    query: int
    rows: list[int]
    cosines: list[float]


def choose_queries(samples: Sequence[DataSetSample], seed: int) -> list[int]:
    """Draw about `QUERIES` test images, evenly over the data sets.

    The images of a data set are from different groups (see `DataSetSample.groups`): one from the first group, the
    others from groups drawn at random. A data set with few groups has fewer queries.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for sample in samples:
        first, *others = sample.groups(sample.test).values()
        drawn = [first, *(others[i] for i in random.permutation(len(others)))]
        for group in drawn[: max(1, QUERIES // len(samples))]:
            left = np.setdiff1d(sample.test[group], chosen)
            if len(left):
                chosen.append(int(random.choice(left)))
    return chosen


def find_neighbours(
    store: ImageStore, train: Features, test: Features, queries: Sequence[int], k: int = NEIGHBOURS
) -> list[QueryResult]:
    """Find the k training images nearest to each query, without images of the query's own patient.

    Raises:
        DatasetError: fewer than k training images of other patients.
    """
    results = []
    for query in queries:
        others: Rows = train.rows[store.patients[train.rows] != store.patients[query]]
        if len(others) < k:
            raise DatasetError(
                f"expected at least {k} training images of patients other than the query's, found {len(others)}; "
                "prepare a store with more training images"
            )
        indices, cosines = nearest(train.at(others), test.at(np.array([query])), k)
        results.append(QueryResult(query, others[indices[0]].tolist(), cosines[0].tolist()))
    return results


def draw_neighbours(
    path: Path, samples: Sequence[DataSetSample], store: ImageStore, results: Sequence[QueryResult]
) -> list[dict[str, Any]]:
    """Draw the queries and their neighbours as a PNG. Returns its captions, rows and cosines as JSON values."""
    rows = [[result.query, *result.rows] for result in results]
    captions = [[_caption(samples, row) for row in sheet_row] for sheet_row in rows]
    images = [[Image.fromarray(store[[row]][0, 0].cpu().numpy()) for row in sheet_row] for sheet_row in rows]
    contact_sheet(images, captions, path, [result.cosines for result in results])
    return [
        {
            "film": captions[i][0],
            "row": result.query,
            "nearest": [
                {"film": caption, "row": row, "cosine": round(cosine, 4)}
                for caption, row, cosine in zip(captions[i][1:], result.rows, result.cosines, strict=True)
            ],
        }
        for i, result in enumerate(results)
    ]


def _caption(samples: Sequence[DataSetSample], row: int) -> str:
    """Caption by the sample whose data set contains the row."""
    dataset = samples[0].store.index["dataset"][row].as_py()
    return next(sample.caption(row) for sample in samples if sample.name == dataset)
