"""Contact sheet of images with class-activation maps and radiologists' boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from c2l_models.sheets import ACCENT, BACKGROUND, DIM, FRAME, LIGHT, font, save_png, shorten

from ..evaluation.intervals import Floats
from ..store.image_store import ImageStore
from .cams import BoxedFinding, Cam
from .pointing_game import is_inside, peak

TILE, BETWEEN, GAP, MARGIN = 208, 4, 22, 28  # pixels
TITLE, TEXT, LINE = 22, 15, 20  # font sizes and line height, pixels
COLUMNS, MAX_FINDINGS = 3, 12
COLORMAP = "inferno"
OPACITY = 0.5
"""Opacity of the map's maximum. Its minimum is transparent."""
ARM = 7
"""Length of the arms of the cross that marks the maximum, pixels."""


def choose_findings(boxed: Sequence[BoxedFinding], seed: int, most: int = MAX_FINDINGS) -> list[int]:
    """Draw at most `most` findings at random, evenly over their names. Returns their indices, sorted by name."""
    random = np.random.default_rng(seed)
    queues: dict[str, list[int]] = {}
    for i in random.permutation(len(boxed)):
        queues.setdefault(boxed[i].finding, []).append(int(i))
    in_turn = sorted((turn, name, i) for name, queue in sorted(queues.items()) for turn, i in enumerate(queue))
    return [i for _, i in sorted((boxed[i].finding, i) for _, _, i in in_turn[:most])]


def draw_cams(path: Path, store: ImageStore, boxed: Sequence[BoxedFinding], cams: Sequence[Cam], title: str) -> None:
    """Draw a PNG: each image, and beside it the image with map and boxes. The PNG names no patient and no file."""
    columns = min(COLUMNS, len(boxed))
    rows = -(-len(boxed) // columns)
    pair = 2 * TILE + BETWEEN
    top = MARGIN + TITLE + 2 * LINE + GAP
    width = 2 * MARGIN + max(columns * (pair + GAP) - GAP, 2 * pair)
    sheet = Image.new("RGB", (width, top + rows * (TILE + 2 * LINE + GAP) + MARGIN - GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), title, LIGHT, font(TITLE, title))
    _draw_legend(sheet, pen, MARGIN + TITLE + 4)
    for i, (one, cam) in enumerate(zip(boxed, cams, strict=True)):
        row, column = divmod(i, columns)
        left, upper = MARGIN + column * (pair + GAP), top + row * (TILE + 2 * LINE + GAP)
        image = Image.fromarray(store[[one.row]][0, 0].cpu().numpy()).resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(image.convert("RGB"), (left, upper))
        sheet.paste(_with_map(image, one.boxes, cam.map), (left + TILE + BETWEEN, upper))
        pen.rectangle((left - 1, upper - 1, left + pair, upper + TILE), outline=FRAME)
        probability = f"probability {_percent(cam.probability)}"
        room = pair - font(TEXT).getlength(probability) - GAP
        finding = shorten(" ".join(one.finding.replace("_", " ").split()), room, TEXT)
        pen.text((left, upper + TILE + 4), finding, LIGHT, font(TEXT, finding))
        pen.text((left + pair, upper + TILE + 4), probability, LIGHT, font(TEXT), anchor="ra")
        where = "maximum inside the box" if is_inside(peak(cam.map), one.boxes) else "maximum outside the box"
        pen.text((left, upper + TILE + 4 + LINE), where, DIM, font(TEXT))
    save_png(sheet, path)


def _with_map(image: Image.Image, boxes: Floats, activation: Floats) -> Image.Image:
    tile = _blend(np.asarray(image, np.float64) / 255, _enlarged(activation))
    pen = ImageDraw.Draw(tile)
    for left, top, right, bottom in (boxes * (TILE - 1)).tolist():
        # A black outline keeps the line visible on a pale map.
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
        pen.rectangle((left, top, right, bottom), outline=ACCENT, width=2)
    x, y = (share * TILE for share in peak(activation))
    _draw_cross(pen, x, y)
    return tile


def _enlarged(activation: Floats) -> Floats:
    """Map [h, w] -> [TILE, TILE], scaled to [0, 1]; all 0 if the map is constant."""
    span = activation.max() - activation.min()
    scaled = (activation - activation.min()) / (span or 1)
    resized = Image.fromarray(scaled.astype(np.float32)).resize((TILE, TILE), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float64).clip(0, 1)


def _blend(image: Floats, heat: Floats) -> Image.Image:
    """An image with a map over it, both [H, W] in [0, 1]."""
    from matplotlib import colormaps

    alpha = OPACITY * heat[:, :, None]
    pixels = (1 - alpha) * image[:, :, None] + alpha * colormaps[COLORMAP](heat)[:, :, :3]
    rounded: NDArray[np.uint8] = (255 * pixels).round().astype(np.uint8)
    return Image.fromarray(rounded)


def _draw_legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, top: int) -> None:
    left, middle, bar = MARGIN, top + 9, 96
    ramp = np.tile(np.linspace(0, 1, bar), (12, 1))
    sheet.paste(_blend(np.full_like(ramp, 0.35), ramp), (left, middle - 6))
    left += bar + 8
    text = "each map: minimum to maximum"
    pen.text((left, top), text, DIM, font(TEXT))
    left += round(font(TEXT).getlength(text)) + 28
    _draw_cross(pen, left, middle)
    pen.text((left + 14, top), "maximum of the map", DIM, font(TEXT))
    left += round(font(TEXT).getlength("maximum of the map")) + 42
    pen.rectangle((left, middle - 7, left + 18, middle + 7), outline=ACCENT, width=2)
    pen.text((left + 26, top), "box drawn by a radiologist", DIM, font(TEXT))


def _draw_cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for colour, width in (("black", 4), ("white", 2)):
        reach = ARM + (width == 4)
        pen.line((x - reach, y, x + reach, y), colour, width)
        pen.line((x, y - reach, x, y + reach), colour, width)


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.1 else f"{100 * probability:.1f} %"
