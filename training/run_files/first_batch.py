"""A picture of the first batch: each image, and the views of it that the networks see."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from c2l_models.sheets import BACKGROUND, DIM, FRAME, LIGHT, font, save_png

from ..augment import Draws
from ..objectives.method import Column, Method

TILE, GAP, MARGIN = 176, 12, 32  # pixels
TITLE, TEXT, LINE = 22, 14, 20


def draw_first_batch(
    path: Path,
    images: Tensor,
    method: Method,
    generator: torch.Generator,
    draws: Draws | None = None,
    count: int = 8,
) -> Path:
    """Write the picture as a PNG, one row per image, without names of files or patients. Returns its path.

    Args:
        path: PNG file to write.
        images: uint8 [B, 1, S, S], this process's part of the batch.
        method: makes the views; it is not changed.
        generator: in the state in which the step receives it.
        draws: the augmentation of the two views, if it was drawn before the loop.
        count: number of images to show.
    """
    columns = first_batch_columns(images, method, generator, draws, count)
    width = 2 * MARGIN + len(columns) * (TILE + GAP) - GAP
    top = MARGIN + TITLE + 3 * LINE + 3 * GAP
    sheet = Image.new("RGB", (width, top + len(columns[0].images) * (TILE + LINE + GAP) + MARGIN - GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), method.recipe.name, LIGHT, font(TITLE, method.recipe.name))
    below = MARGIN - 8 + TITLE + GAP // 2
    pen.text((MARGIN, below), "the first batch, as the networks see it", DIM, font(TEXT))
    for i, column in enumerate(columns):
        _draw_column(sheet, pen, column, MARGIN + i * (TILE + GAP), top)
    save_png(sheet, path)
    return path


def first_batch_columns(
    images: Tensor, method: Method, generator: torch.Generator, draws: Draws | None = None, count: int = 8
) -> list[Column]:
    """The stored images, then the method's own columns, with the random numbers of the step; arguments as above."""
    views = method.views(images, generator, draws)
    stored = Column("film", "in the store", images / 255, [f"film {row + 1}" for row in range(len(images))])
    return [column.first(count) for column in (stored, *method.columns(images, views, generator))]


def _draw_column(sheet: Image.Image, pen: ImageDraw.ImageDraw, column: Column, left: int, top: int) -> None:
    pen.text((left, top - 2 * LINE - GAP // 2), column.title, LIGHT, font(TEXT))
    pen.text((left, top - LINE - GAP // 2), column.subtitle, DIM, font(TEXT))
    for row, (image, caption) in enumerate(zip(column.images, column.captions, strict=True)):
        y = top + row * (TILE + LINE + GAP)
        pixels = (image[0] * 255).round().to(torch.uint8).numpy()
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, y))
        pen.rectangle((left - 1, y - 1, left + TILE, y + TILE), outline=FRAME)
        pen.text((left, y + TILE + 2), caption, DIM, font(TEXT))
