"""The challenge's images as stored squares, and their boxes in the squares' coordinates."""

from collections import Counter
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

MISSING = "images_missing_or_unreadable"
EMPTIED = "images_left_out_because_the_square_cut_off_their_boxes"
CLIPPED = "boxes_clipped_to_the_image_or_its_square"
CUT_OFF = "boxes_cut_off_by_the_square"
MIN_SIDE = 1.0
"""Smallest width and height of a clipped box, in pixels of a stored square. A smaller box is dropped as cut off."""


@dataclass(frozen=True)
class DetectionImages:
    """N labelled images.

    Attributes:
        store: the store that holds the images.
        rows: int64 [N], the images' rows in the store.
        ids: the challenge's id of each image, its `patientId`.
        patients: [N] str.
        boxes: per image, float64 [n, 4], n >= 0: left, top, right, bottom in the stored square.
        squares: per image, the square that the store holds.
        parts: [N], "training" or "evaluation".
        split: (image, part) of every image in the label file, readable or not.
        adjusted: number of images and boxes that were left out or changed, by reason.
    """

    store: ImageStore
    rows: NDArray[np.int64]
    ids: list[str]
    patients: NDArray[np.str_]
    boxes: list[Floats]
    squares: list[Square]
    parts: NDArray[np.str_]
    split: list[tuple[str, str]]
    adjusted: dict[str, int]

    def of(self, part: str) -> NDArray[np.int64]:
        """Positions of a part's images among the N images: int64, ascending."""
        return np.flatnonzero(self.parts == part)


def load_images(
    data: Path,
    store: Path,
    size: int,
    avoid: frozenset[str] = frozenset(),
    workers: int | None = None,
    progress: bool = True,
) -> DetectionImages:
    """Load the challenge's training images: decode them into a store once, and split them by patient.

    An image that is missing or unreadable is left out (the store's refused.parquet names the reason). The store holds
    each image's central square. A box that crosses the square's edge is clipped; a box outside the square is dropped.
    An image that loses all its boxes is left out. All these images and boxes are counted in `adjusted`.

    Args:
        data: the challenge's folder, stage 1 or 2, as distributed.
        store: folder of the store. It is built if it does not exist, and reused if it holds these images.
        size: side of the stored squares.
        avoid: patients who are never in the test part.
        workers: decoding processes. Default: one per core.
        progress: show a bar while images are decoded.

    Raises:
        DatasetError: the folder has another layout; the store holds other images; a box is outside its image; a part
            has no images; or no training image has a box.
    """
    prepare([(rsna.NAME, data)], store, size, workers, progress)
    stored = ImageStore.open(store)
    records = [record for record in rsna.records(data) if record.split == "train"]
    evaluated = evaluation_part(np.array([record.patient for record in records]), avoid)
    parts = np.where(evaluated, EVALUATION, TRAINING).tolist()
    loaded = _Loader(data, size, dict(zip(stored.index["path"].to_pylist(), range(len(stored)), strict=True)))
    boxes = rsna.boxes(data)
    for record, part in zip(records, parts, strict=True):
        loaded.add(record, np.array(boxes[record.path]).reshape(-1, 4), part)
    images = DetectionImages(
        stored,
        np.array(loaded.rows, dtype=np.int64),
        [record.path.stem for record in loaded.records],
        np.array([record.patient for record in loaded.records], dtype=str),
        loaded.boxes,
        loaded.squares,
        np.array(loaded.parts, dtype=str),
        [(record.path.stem, part) for record, part in zip(records, parts, strict=True)],
        dict(loaded.adjusted),
    )
    _check_parts(images, data)
    return images


@dataclass
class _Loader:
    """Collects the stored images that did not lose all their boxes, and counts what was left out or changed."""

    data: Path
    size: int
    stored: dict[str, int]
    rows: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    boxes: list[Floats] = field(default_factory=list)
    squares: list[Square] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    adjusted: Counter[str] = field(default_factory=lambda: Counter({MISSING: 0, CLIPPED: 0, CUT_OFF: 0, EMPTIED: 0}))

    def add(self, record: Record, boxes: Floats, part: str) -> None:
        """Add an image if it is stored and has not lost all its boxes."""
        row = self.stored.get(index_path(record, self.data))
        extent = dicom_size(record.path)
        if row is None or extent is None:
            self.adjusted[MISSING] += 1
            return
        square = Square(*extent, self.size)
        _check_boxes(boxes, square, record, self.data)
        left = self._clip(square.inward(boxes))
        if len(boxes) and not len(left):
            self.adjusted[EMPTIED] += 1
            return
        self.rows.append(row)
        self.records.append(record)
        self.boxes.append(left)
        self.squares.append(square)
        self.parts.append(part)

    def _clip(self, boxes: Floats) -> Floats:
        clipped = boxes.clip(0, self.size)
        kept = (clipped[:, 2:] - clipped[:, :2] >= MIN_SIDE).all(axis=1)
        self.adjusted[CUT_OFF] += int((~kept).sum())
        self.adjusted[CLIPPED] += int((clipped != boxes)[kept].any(axis=1).sum())
        return clipped[kept]


def _check_boxes(boxes: Floats, square: Square, record: Record, data: Path) -> None:
    """Raise DatasetError for a box outside its image, for example because sizes or images were mixed up."""
    for box in boxes:
        x, y, width, height = box.tolist()
        if not (x < square.width and y < square.height and x + width > 0 and y + height > 0):
            line = rsna.locate_box(data, record.path, (x, y, width, height))
            raise DatasetError(
                f"{line}: expected a box within its image of {square.width} x {square.height} pixels, found one at "
                f"{x:g}, {y:g} of {width:g} x {height:g}; correct the line, or download labels and images of one "
                "release again"
            )


def _check_parts(images: DetectionImages, data: Path) -> None:
    for name, part in (("training", TRAINING), ("test", EVALUATION)):
        if not len(images.of(part)):
            raise DatasetError(
                f"{data}: expected images in the {name} part, found none among {len(images.ids)}; use more images"
            )
    if not any(len(images.boxes[i]) for i in images.of(TRAINING)):
        raise DatasetError(f"{data}: expected a box in the training part, found none; use more images")
