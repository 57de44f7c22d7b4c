"""A picture of evaluation films with their true boxes and those that a detector finds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from c2l_models.sheets import ACCENT, BACKGROUND, DIM, FRAME, LIGHT, font

from ..evaluation.intervals import Floats
from ..evaluation.rsna_challenge import CONFIDENCES, DetectedBoxes
from .images import Films

TILE, GAP, MARGIN = 256, 14, 28  # pixels
TITLE, TEXT, LINE = 22, 14, 20
COLUMNS, MOST = 4, 12
TRUE, FOUND = ACCENT, "#f2a65a"


def draw_boxes(
    path: Path, films: Films, positions: NDArray[np.int64], predictions: Sequence[DetectedBoxes], title: str
) -> Path:
    """Draw up to 12 films as a PNG, two of three with true boxes where there are so many; none is named.

    Args:
        path: is written.
        films: what was measured on.
        positions: the measured films, M of them.
        predictions: of these; those surer than 0.2 are drawn.
        title: what found them.
    """
    shown = _chosen([len(films.boxes[i]) > 0 for i in positions])
    rows = -(-len(shown) // COLUMNS)
    top = MARGIN + TITLE + LINE + GAP
    size = (2 * MARGIN + COLUMNS * (TILE + GAP) - GAP, top + rows * (TILE + LINE + GAP) + MARGIN - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), title, LIGHT, font(TITLE))
    below = (MARGIN, MARGIN - 8 + TITLE + GAP // 2)
    pen.text(below, "true boxes", TRUE, font(TEXT))
    pen.text((below[0] + 90, below[1]), f"found, surer than {CONFIDENCES[0]:.1f}", FOUND, font(TEXT))
    for place, which in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        corner = (MARGIN + column * (TILE + GAP), top + row * (TILE + LINE + GAP))
        film = films.store[[int(films.rows[positions[which]])]][0, 0].cpu().numpy()
        true, predicted = films.boxes[positions[which]], predictions[which]
        sheet.paste(_film(film, true, predicted), corner)
        pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + TILE, corner[1] + TILE), outline=FRAME)
        surest = f"surest {predicted.scores.max():.2f}" if len(predicted.scores) else "nothing found"
        pen.text((corner[0], corner[1] + TILE + 2), f"{len(true)} true, {surest}", DIM, font(TEXT))
    sheet.save(path)
    return path


def _film(film: NDArray[np.uint8], true: Floats, predicted: DetectedBoxes) -> Image.Image:
    tile = Image.fromarray(film).resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(tile)
    scale = TILE / len(film)
    for box in true:
        pen.rectangle([float(edge) for edge in box * scale], outline=TRUE, width=2)
    for box, score in zip(predicted.boxes, predicted.scores, strict=True):
        if score > CONFIDENCES[0]:
            pen.rectangle([float(edge) for edge in box * scale], outline=FOUND, width=2)
            pen.text((box[0] * scale + 4, box[1] * scale + 2), f"{score:.2f}", FOUND, font(TEXT))
    return tile


def _chosen(has_boxes: Sequence[bool]) -> list[int]:
    """The first films with boxes, then the first without."""
    with_boxes = [i for i, has in enumerate(has_boxes) if has]
    without = [i for i, has in enumerate(has_boxes) if not has]
    wanted = max(MOST * 2 // 3, MOST - len(without))
    return (with_boxes[:wanted] + without)[:MOST]
