"""A picture of films beside their class-activation maps and the findings' boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from c2l_models.sheets import ACCENT, BACKGROUND, DIM, FRAME, LIGHT, font

from ..evaluation.intervals import Floats
from ..store.image_store import ImageStore
from .cams import Boxed, Cam
from .pointing import hits, peak

TILE, BETWEEN, GAP, MARGIN = 208, 4, 22, 28  # pixels
TITLE, TEXT, LINE = 22, 15, 20
COLUMNS, MOST = 3, 12
SHADES = "inferno"
OPACITY = 0.5
"""Of the map where it is largest; where it is least, nothing of it is seen."""
ARM = 7
"""Of the cross that marks the peak, pixels."""


def choose_films(boxed: Sequence[Boxed], seed: int, most: int = MOST) -> list[int]:
    """Up to `most` by chance, as even as can be over the findings: one of each in turn; by finding."""
    random = np.random.default_rng(seed)
    queues: dict[str, list[int]] = {}
    for i in random.permutation(len(boxed)):
        queues.setdefault(boxed[i].finding, []).append(int(i))
    in_turn = sorted((turn, name, i) for name, queue in sorted(queues.items()) for turn, i in enumerate(queue))
    return [i for _, i in sorted((boxed[i].finding, i) for _, _, i in in_turn[:most])]


def draw_cams(path: Path, store: ImageStore, boxed: Sequence[Boxed], cams: Sequence[Cam], title: str) -> None:
    """Draw films as a PNG, each beside itself with the map and the box; none is named."""
    columns = min(COLUMNS, len(boxed))
    rows = -(-len(boxed) // columns)
    pair = 2 * TILE + BETWEEN
    top = MARGIN + TITLE + 2 * LINE + GAP
    width = 2 * MARGIN + max(columns * (pair + GAP) - GAP, 2 * pair)
    sheet = Image.new("RGB", (width, top + rows * (TILE + 2 * LINE + GAP) + MARGIN - GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), title, LIGHT, font(TITLE))
    _draw_legend(sheet, pen, MARGIN + TITLE + 4)
    for place, (one, cam) in enumerate(zip(boxed, cams, strict=True)):
        row, column = divmod(place, columns)
        left, upper = MARGIN + column * (pair + GAP), top + row * (TILE + 2 * LINE + GAP)
        film = Image.fromarray(store[[one.row]][0, 0].cpu().numpy()).resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(film.convert("RGB"), (left, upper))
        sheet.paste(_with_map(film, one.boxes, cam.map), (left + TILE + BETWEEN, upper))
        pen.rectangle((left - 1, upper - 1, left + pair, upper + TILE), outline=FRAME)
        pen.text((left, upper + TILE + 4), one.finding.replace("_", " "), LIGHT, font(TEXT))
        told = f"probability {_percent(cam.probability)}"
        pen.text((left + pair, upper + TILE + 4), told, LIGHT, font(TEXT), anchor="ra")
        where = "largest inside the box" if hits(peak(cam.map), one.boxes) else "largest outside the box"
        pen.text((left, upper + TILE + 4 + LINE), where, DIM, font(TEXT))
    sheet.save(path)


def _with_map(film: Image.Image, boxes: Floats, activation: Floats) -> Image.Image:
    tile = _blend(np.asarray(film, np.float64) / 255, _enlarged(activation))
    pen = ImageDraw.Draw(tile)
    for left, top, right, bottom in (boxes * (TILE - 1)).tolist():
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")  # a pale line on a pale map is lost
        pen.rectangle((left, top, right, bottom), outline=ACCENT, width=2)
    x, y = (share * TILE for share in peak(activation))
    _draw_cross(pen, x, y)
    return tile


def _enlarged(activation: Floats) -> Floats:
    """A map [h, w] -> [TILE, TILE], from 0, its least, to 1, its most; all 0 where it is flat."""
    span = activation.max() - activation.min()
    scaled = (activation - activation.min()) / (span or 1)
    image = Image.fromarray(scaled.astype(np.float32)).resize((TILE, TILE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64).clip(0, 1)


def _blend(film: Floats, heat: Floats) -> Image.Image:
    """A film and a map over it, both [H, W] in [0, 1]."""
    from matplotlib import colormaps

    alpha = OPACITY * heat[:, :, None]
    pixels = (1 - alpha) * film[:, :, None] + alpha * colormaps[SHADES](heat)[:, :, :3]
    rounded: NDArray[np.uint8] = (255 * pixels).round().astype(np.uint8)
    return Image.fromarray(rounded)


def _draw_legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, top: int) -> None:
    left, middle, bar = MARGIN, top + 9, 96
    ramp = np.tile(np.linspace(0, 1, bar), (12, 1))
    sheet.paste(_blend(np.full_like(ramp, 0.35), ramp), (left, middle - 6))
    left += bar + 8
    text = "least to most of each map's own"
    pen.text((left, top), text, DIM, font(TEXT))
    left += round(font(TEXT).getlength(text)) + 28
    _draw_cross(pen, left, middle)
    pen.text((left + 14, top), "its largest cell", DIM, font(TEXT))
    left += round(font(TEXT).getlength("its largest cell")) + 42
    pen.rectangle((left, middle - 7, left + 18, middle + 7), outline=ACCENT, width=2)
    pen.text((left + 26, top), "the finding's box, drawn by a radiologist", DIM, font(TEXT))


def _draw_cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for colour, width in (("black", 4), ("white", 2)):
        reach = ARM + (width == 4)
        pen.line((x - reach, y, x + reach, y), colour, width)
        pen.line((x, y - reach, x, y + reach), colour, width)


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.1 else f"{100 * probability:.1f} %"
