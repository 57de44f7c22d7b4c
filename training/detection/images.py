"""The challenge's films and boxes, as a detector trains on them: stored squares, and boxes that follow them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..datasets import rsna
from ..datasets.dicom_header import dicom_size
from ..datasets.record import Record
from ..evaluation.intervals import Floats
from ..store.image_store import ImageStore
from ..store.prepare import prepare
from ..store.sources import index_path
from .geometry import Square
from .patients import EVALUATION, TRAINING, evaluation_part

MISSING = "images missing or unreadable"
CUT = "images left out, their boxes cut off by the square"
CLIPPED = "boxes clipped to the image or its square"
LOST = "boxes cut off by the square"
LEAST = 1.0
"""Pixels of a stored square that a box keeps at least, each way; a smaller rest is cut off."""


@dataclass(frozen=True)
class Films:
    """N labelled films.

    Attributes:
        store: their pixels, and `rows`, int64 [N], where in it they are.
        ids: the challenge's id of each image, its `patientId`.
        patients: [N] str.
        boxes: of each film, float64 [n, 4], n from 0: left, top, right, bottom in the stored square.
        squares: how each was cut.
        parts: "training" or "evaluation" of each, [N].
        split: (image, part) of every image in the label file, whether it can be read or not.
        counts: how many images and boxes were not taken as they are.
    """

    store: ImageStore
    rows: NDArray[np.int64]
    ids: list[str]
    patients: NDArray[np.str_]
    boxes: list[Floats]
    squares: list[Square]
    parts: NDArray[np.str_]
    split: list[tuple[str, str]]
    counts: dict[str, int]

    def of(self, part: str) -> NDArray[np.int64]:
        """Which of the N are of a part, ascending."""
        return np.flatnonzero(self.parts == part)


def load_films(
    data: Path,
    store: Path,
    size: int,
    avoid: frozenset[str] = frozenset(),
    workers: int | None = None,
    progress: bool = True,
) -> Films:
    """The training images of the challenge's folder, decoded once into a store and split by patient.

    An image that is missing or cannot be read is counted and passed over (the store's refused.parquet says why). A
    box that reaches over the edge is clipped, and counted. Of a film that is not square the store holds the central
    square: what is outside is cut off, and an image none of whose boxes is left is left out.

    Args:
        data: the challenge's folder, stage 1 or 2, as distributed.
        store: folder of the store; made where there is none, taken where it is of these images.
        size: side of the stored squares.
        avoid: patients who are never in the evaluation part.
        workers: decoding processes; by default one a core.
        progress: show a bar while images are decoded.

    Raises:
        DatasetError: not the challenge's layout; a store of something else; a box outside its image; or a part
            without films, or no box to learn from.
    """
    prepare([(rsna.NAME, data)], store, size, workers, progress)
    images = ImageStore.open(store)
    records = [record for record in rsna.records(data) if record.split == "train"]
    evaluated = evaluation_part(np.array([record.patient for record in records]), avoid)
    found = _Found(data, size, dict(zip(images.index["path"].to_pylist(), range(len(images)), strict=True)))
    boxes = rsna.boxes(data)
    for record, is_evaluated in zip(records, evaluated, strict=True):
        found.take(record, np.array(boxes[record.path]).reshape(-1, 4), EVALUATION if is_evaluated else TRAINING)
    films = Films(
        images,
        np.array(found.rows, dtype=np.int64),
        [record.path.stem for record in found.records],
        np.array([record.patient for record in found.records], dtype=str),
        found.boxes,
        found.squares,
        np.array(found.parts, dtype=str),
        [
            (record.path.stem, EVALUATION if is_evaluated else TRAINING)
            for record, is_evaluated in zip(records, evaluated, strict=True)
        ],
        dict(found.counts),
    )
    _check(films, data)
    return films


@dataclass
class _Found:
    """What of the challenge's images is there, gathered film by film."""

    data: Path
    size: int
    stored: dict[str, int]
    rows: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    boxes: list[Floats] = field(default_factory=list)
    squares: list[Square] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter({MISSING: 0, CLIPPED: 0, LOST: 0, CUT: 0}))

    def take(self, record: Record, boxes: Floats, part: str) -> None:
        """Take a film, if it is stored and a box is left where there was one."""
        row = self.stored.get(index_path(record, self.data))
        extent = dicom_size(record.path)
        if row is None or extent is None:
            self.counts[MISSING] += 1
            return
        square = Square(*extent, self.size)
        _check_boxes(boxes, square, record, self.data)
        left = self._clip(square.inward(boxes))
        if len(boxes) and not len(left):
            self.counts[CUT] += 1
            return
        self.rows.append(row)
        self.records.append(record)
        self.boxes.append(left)
        self.squares.append(square)
        self.parts.append(part)

    def _clip(self, boxes: Floats) -> Floats:
        clipped = boxes.clip(0, self.size)
        kept = (clipped[:, 2:] - clipped[:, :2] >= LEAST).all(axis=1)
        self.counts[LOST] += int((~kept).sum())
        self.counts[CLIPPED] += int((clipped != boxes)[kept].any(axis=1).sum())
        return clipped[kept]


def _check_boxes(boxes: Floats, square: Square, record: Record, data: Path) -> None:
    """Raise DatasetError for a box no part of which is in the image, as when sizes or images were mixed up."""
    for box in boxes:
        x, y, width, height = box.tolist()
        if not (x < square.width and y < square.height and x + width > 0 and y + height > 0):
            place = rsna.locate_box(data, record.path, (x, y, width, height))
            raise DatasetError(
                f"{place}: a box at {x:g}, {y:g} of {width:g} x {height:g} is outside its image of {square.width} x "
                f"{square.height} pixels; mend the line, or fetch labels and images again, of one release"
            )


def _check(films: Films, data: Path) -> None:
    for part in (TRAINING, EVALUATION):
        if not len(films.of(part)):
            raise DatasetError(f"{data}: no film in the {part} part ({len(films.ids)} films in all); wanted more films")
    if not any(len(films.boxes[i]) for i in films.of(TRAINING)):
        raise DatasetError(f"{data}: no film of the training part has a box; there is nothing to learn from")


def batches_of(positions: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The positions, `size` at a time, the last ones fewer."""
    for start in range(0, len(positions), size):
        yield positions[start : start + size]
