"""Contact sheets: their colours, their font, and a sheet of queries and their nearest images."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .errors import C2LError
from .files import write_atomically
from .fonts import font_for

BACKGROUND, FRAME, DIM, LIGHT, ACCENT = "#0f1318", "#2a323c", "#8f9ba8", "#e8edf2", "#5ec8b5"
TILE, GAP, MARGIN = 200, 14, 28  # pixels, in `contact_sheet`
TEXT, TEXT_LINE, TEXT_LINES = 15, 20, 2  # font size and line height in pixels; lines below an image


def font(size: int = TEXT, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of every sheet, at a size in pixels; for a text with other characters, a font that has them."""
    return font_for(text, size)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]],
    path: str | os.PathLike[str],
    cosines: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> None:
    """Draw queries and their nearest images as a PNG: one row per query, the query first.

    Args:
        rows: the images of each row, of any size and mode. An image keeps its aspect ratio.
        captions: one per image, drawn below it and cut to two lines. A caption is highlighted if it equals the
            caption of its row's query.
        path: PNG file to write.
        cosines: one per neighbour, drawn above it as a number and a bar.

    Raises:
        C2LError: no images, or `rows`, `captions` and `cosines` differ in length.
    """
    if not rows or not all(rows):
        raise C2LError("expected at least one row, and a query in each row; found an empty list of images")
    if [len(row) for row in rows] != [len(row) for row in captions]:
        raise C2LError("rows and captions differ in length: expected one caption per image")
    if cosines is not None and [len(row) - 1 for row in rows] != [len(row) for row in cosines]:
        raise C2LError("rows and cosines differ in length: expected one cosine per neighbour")
    columns = max(len(row) for row in rows)
    row_height = TEXT_LINE + TILE + 8 + TEXT_LINES * TEXT_LINE + GAP
    query_gap = 2 * GAP if columns > 1 else 0
    size = (2 * MARGIN + columns * (TILE + GAP) - GAP + query_gap, 2 * MARGIN + len(rows) * row_height - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        top = MARGIN + i * row_height
        for j, image in enumerate(row):
            left = MARGIN + j * (TILE + GAP) + (query_gap if j else 0)
            if j == 0:
                draw.text((left, top), "query", ACCENT, font())
            elif cosines is not None:
                _draw_cosine(draw, left, top, float(cosines[i][j - 1]))
            _draw_image(sheet, image, left, top + TEXT_LINE, ACCENT if j == 0 else FRAME)
            colour = ACCENT if captions[i][j] == captions[i][0] else DIM
            for n, line in enumerate(_wrap(captions[i][j])):
                draw.text((left, top + TEXT_LINE + TILE + 8 + n * TEXT_LINE), line, colour, font(text=line))
    save_png(sheet, path)


def save_png(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write an image as a PNG file; an existing file is replaced when the new one is complete."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(Path(path), buffer.getvalue())


def empty_tile(text: str) -> Image.Image:
    """A crossed-out tile with a text, in place of an image that cannot be shown."""
    tile = Image.new("RGB", (TILE, TILE), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    draw.line((0, 0, TILE, TILE), FRAME)
    draw.line((0, TILE, TILE, 0), FRAME)
    draw.text((TILE / 2, TILE / 2), text, DIM, font(text=text), anchor="mm")
    return tile


def _draw_cosine(draw: ImageDraw.ImageDraw, left: int, top: int, cosine: float) -> None:
    """A bar whose filled part is the cosine (0 if it is negative), and the number at its right."""
    number_width = 46
    length = TILE - number_width - 6
    middle = top + TEXT_LINE // 2 - 1
    draw.rounded_rectangle((left, middle - 2, left + length, middle + 2), 2, FRAME)
    filled = round(length * min(max(cosine, 0.0), 1.0))
    if filled > 0:
        draw.rounded_rectangle((left, middle - 2, left + filled, middle + 2), 2, LIGHT)
    draw.text((left + TILE, top), f"{cosine:.3f}", LIGHT, font(), anchor="ra")


def _draw_image(sheet: Image.Image, image: Image.Image, left: int, top: int, frame: str) -> None:
    """The whole image, fitted into its tile without cropping or stretching, in a frame."""
    tile = ImageOps.pad(image.convert("RGB"), (TILE, TILE), Image.Resampling.BICUBIC, color="black")
    sheet.paste(tile, (left, top))
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + TILE, top + TILE), outline=frame)


def _wrap(caption: str) -> list[str]:
    """At most `TEXT_LINES` lines as wide as a tile; an ellipsis marks text that was cut off."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font(text=longer).getlength(longer) <= TILE:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:TEXT_LINES]
    if len(lines) > TEXT_LINES:
        kept[-1] += " …"
    return [shorten(line) for line in kept]


def shorten(line: str, width: float = TILE, size: int = TEXT) -> str:
    """The line, cut to a width in pixels with an ellipsis if it is longer."""
    used = font(size, f"{line}…")
    if used.getlength(line) <= width:
        return line
    line = line.removesuffix(" …")
    while line and used.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
