"""Contact sheet of test images with true and detected boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from c2l_models.sheets import ACCENT, BACKGROUND, DIM, FRAME, LIGHT, font, save_png

from ..evaluation.intervals import Floats
from ..evaluation.rsna_challenge import CONFIDENCES, DetectedBoxes
from .images import DetectionImages

TILE, GAP, MARGIN = 256, 14, 28  # pixels
TITLE, TEXT, LINE = 22, 14, 20
COLUMNS, MAX_TILES = 4, 12
TRUE, DETECTED = ACCENT, "#f2a65a"


def draw_boxes(
    path: Path, images: DetectionImages, positions: NDArray[np.int64], predictions: Sequence[DetectedBoxes], title: str
) -> Path:
    """Draw up to 12 images as a PNG, if possible two thirds of them with true boxes. No image id is shown.

    Args:
        path: PNG file to write.
        images: the challenge's images.
        positions: positions of the M evaluated images among `images`.
        predictions: detected boxes of the M images. Boxes with a confidence above 0.2 are drawn.
        title: name of the detector.

    Returns:
        `path`.
    """
    shown = _chosen([len(images.boxes[i]) > 0 for i in positions])
    rows = -(-len(shown) // COLUMNS)
    top = MARGIN + TITLE + LINE + GAP
    size = (2 * MARGIN + COLUMNS * (TILE + GAP) - GAP, top + rows * (TILE + LINE + GAP) + MARGIN - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), title, LIGHT, font(TITLE, title))
    below = (MARGIN, MARGIN - 8 + TITLE + GAP // 2)
    pen.text(below, "true boxes", TRUE, font(TEXT))
    pen.text((below[0] + 90, below[1]), f"detected, confidence above {CONFIDENCES[0]:.1f}", DETECTED, font(TEXT))
    for tile, which in enumerate(shown):
        row, column = divmod(tile, COLUMNS)
        corner = (MARGIN + column * (TILE + GAP), top + row * (TILE + LINE + GAP))
        image = images.store[[int(images.rows[positions[which]])]][0, 0].cpu().numpy()
        true, predicted = images.boxes[positions[which]], predictions[which]
        sheet.paste(_tile(image, true, predicted), corner)
        pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + TILE, corner[1] + TILE), outline=FRAME)
        best = f"highest confidence {predicted.scores.max():.2f}" if len(predicted.scores) else "none detected"
        pen.text((corner[0], corner[1] + TILE + 2), f"{len(true)} true, {best}", DIM, font(TEXT))
    save_png(sheet, path)
    return path


def _tile(image: NDArray[np.uint8], true: Floats, predicted: DetectedBoxes) -> Image.Image:
    tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(tile)
    scale = TILE / len(image)
    for box in true:
        pen.rectangle([float(edge) for edge in box * scale], outline=TRUE, width=2)
    for box, score in zip(predicted.boxes, predicted.scores, strict=True):
        if score > CONFIDENCES[0]:
            pen.rectangle([float(edge) for edge in box * scale], outline=DETECTED, width=2)
            pen.text((box[0] * scale + 4, box[1] * scale + 2), f"{score:.2f}", DETECTED, font(TEXT))
    return tile


def _chosen(has_boxes: Sequence[bool]) -> list[int]:
    """Positions of the images to show: the first images with boxes, then the first images without."""
    with_boxes = [i for i, has in enumerate(has_boxes) if has]
    without = [i for i, has in enumerate(has_boxes) if not has]
    count = max(MAX_TILES * 2 // 3, MAX_TILES - len(without))
    return (with_boxes[:count] + without)[:MAX_TILES]
