"""Corrupted views and their originals: input and target of Model Genesis, made on the batch's own device.

Zhou et al. (Models Genesis, MICCAI 2019; arXiv 1908.06912) corrupt an image by up to three of four transforms, in
this order: local pixel shuffling, a non-linear change of intensities, and either in-painting or out-painting. The
published code is for volumes; its settings, on two axes, are the defaults of `recipe.Restoration`.

As in augment.py, all random numbers are drawn first, as a `Corruption` of every process's images, and then applied.
Nothing here waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..augment import Geometry, RowIndexed, draw_geometry, resample, uniform_sampler
from ..distributed import ALONE, World
from ..recipe import Recipe, Restoration

CURVE_STEPS = 1000
"""Straight lines that a Bézier curve is made of."""
_KEYS = 2**31


@dataclass(frozen=True)
class Corruption(RowIndexed):
    """All random numbers for the corrupted and original views of B images, S pixels a side.

    Rectangles are (top, left, height, width), in pixels of the view.

    Attributes:
        geometry: crop, rotation and flip of the original view.
        windows: int64 [B, windows, 4], rectangles to shuffle; they have one pixel if the view is not shuffled.
        keys: int64 [B, S²], below 2^31. The shuffle puts a window's pixels in the order of ascending keys.
        points: [B, 2, 2], a curve's two control points (x, y).
        bends: [B] bool, a curve changes the intensities.
        falls: [B] bool, the curve goes from (0, 1) to (1, 0) instead of from (0, 0) to (1, 1).
        blocks: int64 [B, blocks, 4], rectangles that in-painting fills or out-painting keeps; height 0 if unused.
        outside: [B] bool, out-painting: noise everywhere but in the blocks.
        noise: [B, 1, S, S] in [0, 1).
    """

    geometry: Geometry
    windows: Tensor
    keys: Tensor
    points: Tensor
    bends: Tensor
    falls: Tensor
    blocks: Tensor
    outside: Tensor
    noise: Tensor


def corrupted_and_original(
    batch: Tensor, recipe: Recipe, generator: torch.Generator, world: World = ALONE, fixed: Corruption | None = None
) -> tuple[Tensor, Tensor]:
    """Make the network's input and its target.

    Args:
        batch: uint8 [B, 1, S, S], this process's images.
        recipe: the view's size, the normalisation, and the ranges of `augment` (geometry) and `restoration`.
        generator: on the batch's device, in the same state on every process; the only source of randomness.
        world: the processes. Numbers are drawn for all W B images, so views do not depend on the number of processes.
        fixed: numbers drawn earlier for these B images; nothing is drawn then.

    Returns:
        Two float32 tensors [B, 1, size, size]: corrupted views, normalised; original views, intensities in [0, 1].
    """
    if fixed is None:
        own = slice(world.rank * len(batch), (world.rank + 1) * len(batch))
        fixed = draw_corruption(world.size * len(batch), recipe, generator)[own]
    original = resample(batch.float() / 255, fixed.geometry, recipe.size)
    return (corrupt(original, fixed, recipe.restoration) - recipe.mean) / recipe.std, original


def draw_corruption(count: int, recipe: Recipe, generator: torch.Generator) -> Corruption:
    """Draw the view and the corruption of each of `count` images, on the generator's device."""
    restoration, size, uniform = recipe.restoration, recipe.size, uniform_sampler(count, generator)
    device = generator.device
    geometry = draw_geometry(count, recipe.augment, generator)
    shuffles = uniform(0, 1) < restoration.shuffle
    paints = uniform(0, 1) < restoration.paint
    outside = paints & (uniform(0, 1) >= restoration.paint_inside)
    return Corruption(
        geometry=geometry,
        windows=draw_windows(shuffles, restoration, size, generator),
        keys=torch.randint(_KEYS, (count, size**2), generator=generator, device=device),
        points=torch.rand(count, 2, 2, generator=generator, device=device),
        bends=uniform(0, 1) < restoration.bend,
        falls=uniform(0, 1) < 0.5,
        blocks=draw_blocks(paints, outside, restoration, size, generator),
        outside=outside,
        noise=torch.rand(count, 1, size, size, generator=generator, device=device),
    )


def draw_windows(shuffles: Tensor, restoration: Restoration, size: int, generator: torch.Generator) -> Tensor:
    """Draw windows to shuffle, int64 [B, windows, 4], anywhere in the view, with sides of 1 pixel to `shuffle_side`.

    Args:
        shuffles: [B] bool; the windows of other images have one pixel.
        restoration: number and longest side of the windows.
        size: the view's side, in pixels.
        generator: the source of randomness.
    """
    longest = longest_side(restoration, size)
    drawn = torch.rand(len(shuffles), restoration.shuffle_windows, 4, generator=generator, device=generator.device)
    sides = 1 + (drawn[..., 2:] * longest).long() * shuffles[:, None, None]
    return torch.cat([_top_left(drawn[..., :2], sides, size), sides], dim=-1)


def draw_blocks(
    paints: Tensor, outside: Tensor, restoration: Restoration, size: int, generator: torch.Generator
) -> Tensor:
    """Draw blocks that in-painting fills or out-painting keeps, int64 [B, blocks, 4], anywhere in the view.

    Each block is followed by another with probability `another_block`, up to `blocks` of them. In-painting's first
    block has the same probability; out-painting always has one.

    Args:
        paints: [B] bool; the blocks of other images have height 0.
        outside: [B] bool: out-painting, otherwise in-painting.
        restoration: number, sides and probability of the blocks.
        size: the view's side, in pixels.
        generator: the source of randomness.
    """
    drawn = torch.rand(len(paints), restoration.blocks, 5, generator=generator, device=generator.device)
    another = drawn[..., 4] < restoration.another_block
    another[:, 0] |= outside
    used = another.cumprod(dim=1).bool() & paints[:, None]
    shortest, longest = (
        torch.where(outside, int(of_outside * size), int(of_inside * size))[:, None, None]
        for of_outside, of_inside in zip(restoration.outside_side, restoration.inside_side, strict=True)
    )
    sides = shortest + (drawn[..., 2:4] * (longest - shortest + 1)).long()
    return torch.cat([_top_left(drawn[..., :2], sides, size), sides], dim=-1) * used[..., None]


def _top_left(drawn: Tensor, sides: Tensor, size: int) -> Tensor:
    """First row and column of rectangles, uniform within the view: [0, 1) [..., 2] -> int64 [..., 2]."""
    return (drawn * (size - sides + 1)).long()


def corrupt(image: Tensor, drawn: Corruption, restoration: Restoration) -> Tensor:
    """Shuffle, bend, paint, in the published code's order: float [B, 1, S, S] in [0, 1] -> the same."""
    image = shuffle(image, drawn.windows, drawn.keys, longest_side(restoration, image.shape[-1]))
    image = torch.where(drawn.bends.view(-1, 1, 1, 1), bend(image, drawn.points, drawn.falls), image)
    return paint(image, drawn.blocks, drawn.outside, drawn.noise)


def longest_side(restoration: Restoration, size: int) -> int:
    """The longest side of a window to shuffle, pixels."""
    return max(int(restoration.shuffle_side * size), 1)


def shuffle(image: Tensor, windows: Tensor, keys: Tensor, longest: int) -> Tensor:
    """Local pixel shuffling: permute each window's visible pixels, the pixels that no later window covers.

    The published code shuffles one window after the other, so a window's visible pixels are a sample of all its
    pixels; here they are a permutation of the visible ones.

    Args:
        image: [B, 1, S, S].
        windows: int64 [B, windows, 4], within the image.
        keys: int64 [B, S²], below 2^31.
        longest: upper limit of the windows' sides, pixels.
    """
    last = last_window(windows, image.shape[-1], longest)
    positions = torch.arange(last.shape[1], device=image.device).expand_as(last)
    to = last.argsort(dim=1, stable=True)  # pixels by window, in reading order
    of = (last * _KEYS + torch.where(last > 0, keys, positions)).argsort(dim=1, stable=True)  # by window, then by key
    pixels = image.flatten(1)
    return pixels.scatter(1, to, pixels.gather(1, of)).view_as(image)


def last_window(windows: Tensor, size: int, longest: int) -> Tensor:
    """The number, from 1, of the last window that covers each pixel, or 0 without a window: int64 [B, S²].

    Args:
        windows: int64 [B, windows, 4], within an image of `size` pixels a side.
        size: the image's side, in pixels.
        longest: upper limit of the windows' sides, pixels.
    """
    top, left, height, width = windows[..., None].unbind(dim=2)  # [B, windows, 1] each
    column = left + torch.arange(longest, device=windows.device).minimum(width - 1)  # narrow: repeats a column
    number = torch.arange(1, windows.shape[1] + 1, device=windows.device)[:, None].expand_as(column).flatten(1)
    result = windows.new_zeros(len(windows), size**2)
    for row in range(longest):  # this row of all windows at once
        pixels = ((top + (height - 1).clamp(max=row)) * size + column).flatten(1)
        result.scatter_reduce_(1, pixels, number, "amax")
    return result


def bend(image: Tensor, points: Tensor, falls: Tensor) -> Tensor:
    """Map intensities by a cubic Bézier curve from (0, 0) to (1, 1): float [B, 1, S, S] in [0, 1] -> the same.

    With control points in the unit square, x(t) never decreases, so y is a function of x. The derivative of x(t) is
    linear in the control points' x_1 and x_2, and not negative if each is 0 or 1: for x_1 = 1 and x_2 = 0 it is
    3 (1 - 2t)².

    Args:
        image: float [B, 1, S, S] in [0, 1].
        points: [B, 2, 2], the control points (x, y), in [0, 1].
        falls: [B] bool: take y of the curve read backwards, from 1 to 0, as in the published code.
    """
    t = torch.linspace(0, 1, CURVE_STEPS + 1, device=image.device)
    first, second = points[..., None].unbind(dim=1)  # [B, 2, 1]
    x, y = (3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second + t**3).unbind(dim=1)  # [B, CURVE_STEPS + 1]
    x, y = x.contiguous(), torch.where(falls[:, None], y.flip(1), y)
    pixels = image.flatten(1).contiguous()  # [B, S²]
    above = torch.searchsorted(x, pixels).clamp(1, CURVE_STEPS)
    (x0, y0), (x1, y1) = ((x.gather(1, at), y.gather(1, at)) for at in (above - 1, above))
    share = ((pixels - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
    return (y0 + share * (y1 - y0)).view_as(image)


def paint(image: Tensor, blocks: Tensor, outside: Tensor, noise: Tensor) -> Tensor:
    """Put noise in the blocks (in-painting) or everywhere else (out-painting).

    Args:
        image, noise: [B, 1, S, S].
        blocks: int64 [B, blocks, 4].
        outside: [B] bool: out-painting.
    """
    pixel = torch.arange(image.shape[-1], device=image.device)
    first, sides = blocks[..., :2, None], blocks[..., 2:, None]
    within = (pixel >= first) & (pixel < first + sides)  # [B, blocks, 2, S]: rows, columns
    inside = (within[:, :, 0, :, None] & within[:, :, 1, None, :]).any(dim=1, keepdim=True)  # [B, 1, S, S]
    return torch.where(inside ^ outside.view(-1, 1, 1, 1), noise, image)
