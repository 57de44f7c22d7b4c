"""The map of a collection as one HTML page, which opens without a server: similar films lie close together."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2l_models.embedding import Embeddings
from c2l_models.errors import C2LError, RadiographError
from c2l_models.feature_files import readable
from c2l_models.files import write_atomically
from c2l_models.progress import stage
from c2l_models.radiographs.reading import read_radiograph
from c2l_models.search import FileRows, nearest, unit_vectors

from ..datasets.label_tables import read_table
from ..pages.render import data_uri, render

PAGE = Path(__file__).with_name("atlas.html")
NEIGHBOURS = 8
"""Most similar films that the page lists for each film."""
OUTLIERS = 20
"""Number of films that the page lists as least like any other."""
LARGEST = 50_000
"""Largest number of films; the page of more would not open in a browser."""
COMPONENTS = 50
"""Principal components that t-SNE begins with."""
ROUNDING = 1e-6
"""Largest difference of equal features at unit length, float32."""
THUMBNAIL_SIDE = 96
LEFT_OUT = {"patient", "study"}
"""Columns that the page never contains, because they identify patients."""


def write_atlas(
    table: Embeddings, out: Path, labels: Path | None = None, thumbnails: bool = False, seed: int = 0
) -> dict[Path, str]:
    """Write the page: a point for each film, its file name, its most similar films, and the films least like any other.

    Positions are by t-SNE. Similarity and outliers come from the features themselves, not from
    the map: a film's distance from the others is 1 minus its mean cosine to its most similar films.

    Args:
        table: features of the films, from `embed` or `Embeddings.load`.
        out: the .html file. It contains the films' paths as the table has them, and the labels. Bytes of a path that
            are not UTF-8 are shown as escapes.
        labels: CSV file with a column `path`, relative to its folder, and columns to colour the points by. `patient`
            and `study` are left out. A path may name a film of the table in another way, with `..` or links.
        thumbnails: include a small image of each film; whoever has the page then sees the films.
        seed: of t-SNE.

    Returns:
        Films without thumbnail, because they cannot be read, each with the reason.

    Raises:
        C2LError: fewer than three films, more than `LARGEST`, one feature per film, or `labels` lists none of them.
        DatasetError: `labels` cannot be read, or lacks the column `path`.
    """
    count = len(table.paths)
    if not 3 <= count <= LARGEST:
        raise C2LError(f"expected 3 to {LARGEST:,} films, found {count:,}; choose some of them")
    if table.features.shape[1] < 2:  # at unit length, it is 1 or -1
        raise C2LError("expected two or more features per film, found 1; compute them with `c2l embed`")
    columns = read_labels(labels, table.paths) if labels else {}
    k = min(NEIGHBOURS, count - 1)
    with stage("neighbours"):
        neighbours, cosines = nearest(table.features, table.features, k, exclude=range(count))
    distance = np.round(1 - cosines.mean(axis=1), 5)  # without rounding errors, by which equal films differ
    rank = np.searchsorted(np.sort(distance), distance) / count
    with stage("map"):
        places = positions(table.features, seed)
    failed: dict[Path, str] = {}
    images: list[str] = []
    if thumbnails:
        with stage("thumbnails", count, "films") as line:
            for path in table.paths:
                images.append(thumbnail(path, failed))
                line.advance()
    page = {
        "about": f"Features of {readable(Path(table.model or 'a network'))}; positions by t-SNE.",
        "names": [readable(path) for path in table.paths],
        "x": np.round(places[:, 0], 4).tolist(),
        "y": np.round(places[:, 1], 4).tolist(),
        "neighbours": neighbours.tolist(),
        "cosines": np.round(cosines, 3).tolist(),
        "rank": np.round(rank, 3).tolist(),
        "outliers": np.argsort(-distance, kind="stable")[:OUTLIERS].tolist(),
        "labels": columns,
        "thumbnails": images,
    }
    write_atomically(out, render(PAGE, data=page))
    return failed


def positions(features: np.ndarray, seed: int) -> np.ndarray:
    """Positions of films by t-SNE of their features at unit length, float64 [N, 2] in [-1, 1], from features [N, D].

    If all are equal but for rounding, the films lie on a circle, because t-SNE of equal points crashes the process.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = unit_vectors(features, "features")
    if np.ptp(unit, axis=0).max() < ROUNDING:
        angles = 2 * np.pi * np.arange(len(unit)) / len(unit)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reduced = PCA(min(COMPONENTS, *unit.shape), random_state=seed).fit_transform(unit)
    perplexity = min(30, (len(unit) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    centred = places - (places.max(axis=0) + places.min(axis=0)) / 2
    return centred / max(np.abs(centred).max(), 1e-9)


def read_labels(file: Path, films: Sequence[Path]) -> dict[str, list[str]]:
    """The label columns of a CSV file, one value per film; "" for a film that it does not list."""
    rows = [row for _, row in read_table(file, ["path"])]
    row_of = FileRows([file.parent / row.pop("path") for row in rows])
    listed = [{} if (row := row_of(film)) is None else rows[row] for film in films]
    if not any(listed):
        raise C2LError(
            f"{file} lists none of the {len(films):,} films: expected paths relative to {file.parent}, such as "
            f"{films[0].name}; correct the column `path`"
        )
    columns = dict.fromkeys(name for row in listed for name in row if name.casefold() not in LEFT_OUT)
    return {name: [row.get(name, "") for row in listed] for name in columns}


def thumbnail(path: Path, failed: dict[Path, str]) -> str:
    """A film as the address of a small JPEG image; "" if it cannot be read, and then `failed` gets the reason."""
    try:
        image = read_radiograph(path)
    except RadiographError as error:
        failed[path] = str(error).removeprefix(f"{path}: ")
        return ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "jpeg")
