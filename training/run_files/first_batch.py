"""A picture of the first batch, as the networks see it: each film, its two views and their mixtures."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from c2l_models.sheets import BACKGROUND, DIM, FRAME, LIGHT, font

from .. import mixup
from ..augment import Draws
from ..objectives.c2l import C2L
from ..objectives.method import Method
from ..objectives.model_genesis import ModelGenesis

TILE, GAP, MARGIN = 176, 12, 32  # pixels
TITLE, TEXT, LINE = 22, 14, 20


@dataclass(frozen=True)
class Column:
    """One column of the picture.

    Attributes:
        title, subtitle: what its films are, and who sees them.
        films: [rows, 1, S, S], intensities in [0, 1].
        captions: a line below each film.
    """

    title: str
    subtitle: str
    films: Tensor
    captions: list[str]


def draw_first_batch(
    path: Path,
    images: Tensor,
    method: Method,
    generator: torch.Generator,
    draws: Draws | None = None,
    count: int = 8,
) -> Path:
    """Draw the batch's first images as a PNG, a row each; nothing on it names a film or a patient.

    Args:
        path: is written.
        images: uint8 [B, 1, S, S], this process's part of the batch.
        method: gives recipe and processes, and draws the mixture; is not changed.
        generator: in the state in which the step will find it.
        draws: the views' augmentation, where the step does not draw it.
        count: images shown.
    """
    recipe = method.recipe
    columns = look(images, method, generator, draws, count)
    width = 2 * MARGIN + len(columns) * (TILE + GAP) - GAP
    top = MARGIN + TITLE + 3 * LINE + 3 * GAP
    sheet = Image.new("RGB", (width, top + len(columns[0].films) * (TILE + LINE + GAP) + MARGIN - GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 8), recipe.name, LIGHT, font(TITLE))
    below = MARGIN - 8 + TITLE + GAP // 2
    pen.text((MARGIN, below), "the first batch, as the networks see it", DIM, font(TEXT))
    for i, column in enumerate(columns):
        _draw_column(sheet, pen, column, MARGIN + i * (TILE + GAP), top)
    sheet.save(path)
    return path


def look(
    images: Tensor, method: Method, generator: torch.Generator, draws: Draws | None = None, count: int = 8
) -> list[Column]:
    """What a step makes of its first `count` images, in the order in which it draws; arguments as above."""
    recipe, world, terms = method.recipe, method.world, set(method.recipe.objective.terms)
    views = method.views(images, generator, draws)
    count = min(count, len(images))

    def shown(normalised: Tensor) -> Tensor:
        return (normalised[:count] * recipe.std + recipe.mean).clamp(0, 1).cpu()

    columns = [Column("film", "in the store", images[:count].cpu() / 255, _names(range(count)))]
    if isinstance(method, ModelGenesis):
        spoilt, whole = views
        columns.append(Column("view", "to be restored", whole[:count].cpu(), [""] * count))
        return [*columns, Column("spoilt view", "for the network", shown(spoilt), [""] * count)]
    for i, (view, network) in enumerate(zip(views, ("for the student", "for the teacher"), strict=True)):
        columns.append(Column(f"view {i + 1}", network, shown(view), [""] * count))
    if not isinstance(method, C2L) or terms == {"clean"}:
        return columns
    m1 = m2 = method.draw_mix(len(images), generator).block(world)
    if recipe.objective.mixup == "separate":
        m2 = method.draw_mix(len(images), generator).block(world)
    mixtures = [(views[0], m1, "for the student"), (views[1], m2, "for the teacher")]
    for i, (view, m, network) in enumerate(mixtures if "mixed" in terms else mixtures[:1]):
        partners = m.permutation[:count].tolist()
        if i == 0 or m is not m1:
            columns.append(Column("film mixed in", "in the store", images[partners].cpu() / 255, _names(partners)))
        shares = [
            f"{float(m.lam):.2f} of {row + 1} + {1 - float(m.lam):.2f} of {p + 1}" for row, p in enumerate(partners)
        ]
        columns.append(Column(f"mixed view {i + 1}", network, shown(mixup.mix(view, m)), shares))
    return columns


def _names(rows: Iterable[int]) -> list[str]:
    """Films by their place in the batch, from 1."""
    return [f"film {row + 1}" for row in rows]


def _draw_column(sheet: Image.Image, pen: ImageDraw.ImageDraw, column: Column, left: int, top: int) -> None:
    pen.text((left, top - 2 * LINE - GAP // 2), column.title, LIGHT, font(TEXT))
    pen.text((left, top - LINE - GAP // 2), column.subtitle, DIM, font(TEXT))
    for row, (film, caption) in enumerate(zip(column.films, column.captions, strict=True)):
        y = top + row * (TILE + LINE + GAP)
        pixels = (film[0] * 255).round().to(torch.uint8).numpy()
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, y))
        pen.rectangle((left - 1, y - 1, left + TILE, y + TILE), outline=FRAME)
        pen.text((left, y + TILE + 2), caption, DIM, font(TEXT))
