"""Views that are spoilt, and what they were: the input and the target of Model Genesis, on the batch's own device.

Zhou et al. (Models Genesis, MICCAI 2019; arXiv 1908.06912) restore an image from what up to three of four
transforms left of it: local pixel shuffling, a non-linear change of its intensities, and either in-painting or
out-painting, in that order. The published code is for volumes; its metrics, on two axes, are the defaults of
`recipe.Restoration`.

As in augment.py, what is random is drawn first, as a `Spoiling`, for the images of every process, and then applied.
Nothing here waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..augment import Geometry, _Rows, _Uniform, draw_geometry, resample
from ..distributed import ALONE, World
from ..recipe import Recipe, Restoration

CURVE_STEPS = 1000
"""A Bézier curve is drawn as so many straight lines."""
_KEYS = 2**31


@dataclass(frozen=True)
class Spoiling(_Rows):
    """All that is random in the restoration of each of B images of S by S pixels.

    Rectangles are (top, left, height, width), pixels of the view.

    Attributes:
        geometry: crop, rotation and flip of the view that is to be restored.
        windows: int64 [B, windows, 4], rectangles to shuffle; of one pixel where nothing is.
        keys: int64 [B, S²], below 2^31: the order of a window's pixels after the shuffle, by ascending key.
        points: [B, 2, 2], a curve's two control points (x, y).
        bends: [B] bool, the intensities are changed.
        falls: [B] bool, by a curve from (0, 1) to (1, 0) instead of one from (0, 0) to (1, 1).
        blocks: int64 [B, blocks, 4], rectangles to paint in or to leave; of height 0 where there is none.
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


def spoilt_and_whole(
    batch: Tensor, recipe: Recipe, generator: torch.Generator, world: World = ALONE, fixed: Spoiling | None = None
) -> tuple[Tensor, Tensor]:
    """What the network is given, and what it is to restore.

    Args:
        batch: uint8 [B, 1, S, S], this process's images.
        recipe: gives the view's size, the normalisation, and the ranges of `augment` (geometry) and `restoration`.
        generator: on the batch's device, in the same state on every process; the only source of randomness.
        world: the processes; draws are made for all W B images, so that their number changes no image's views.
        fixed: draws made earlier for these B images; nothing is drawn then.

    Returns:
        Two float32 tensors [B, 1, size, size]: the spoilt views, normalised, and the views, intensities in [0, 1].
    """
    if fixed is None:
        own = slice(world.rank * len(batch), (world.rank + 1) * len(batch))
        fixed = draw_spoiling(world.size * len(batch), recipe, generator)[own]
    whole = resample(batch.float() / 255, fixed.geometry, recipe.size)
    return (spoil(whole, fixed, recipe.restoration) - recipe.mean) / recipe.std, whole


def draw_spoiling(count: int, recipe: Recipe, generator: torch.Generator) -> Spoiling:
    """Draw the view of each of `count` images, and what is done to it, on the generator's device."""
    restoration, size, uniform = recipe.restoration, recipe.size, _Uniform(count, generator)
    device = generator.device
    geometry = draw_geometry(count, recipe.augment, generator)
    shuffles = uniform(0, 1) < restoration.shuffle
    paints = uniform(0, 1) < restoration.paint
    outside = paints & (uniform(0, 1) >= restoration.paint_inside)
    return Spoiling(
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
    """Windows to shuffle, int64 [B, windows, 4]: sides of one pixel to `shuffle_side`, anywhere in the view.

    Args:
        shuffles: [B] bool; the others' windows are of one pixel.
    """
    longest = longest_side(restoration, size)
    drawn = torch.rand(len(shuffles), restoration.shuffle_windows, 4, generator=generator, device=generator.device)
    sides = 1 + (drawn[..., 2:] * longest).long() * shuffles[:, None, None]
    return torch.cat([_places(drawn[..., :2], sides, size), sides], dim=-1)


def draw_blocks(
    paints: Tensor, outside: Tensor, restoration: Restoration, size: int, generator: torch.Generator
) -> Tensor:
    """Blocks to paint in or to leave, int64 [B, blocks, 4], anywhere in the view.

    After each block there is another with probability `another_block`, up to `blocks`; so it is with in-painting's
    first, while out-painting always leaves one.

    Args:
        paints: [B] bool; the others' blocks are of height 0.
        outside: [B] bool, out-painting; else in-painting.
    """
    drawn = torch.rand(len(paints), restoration.blocks, 5, generator=generator, device=generator.device)
    another = drawn[..., 4] < restoration.another_block
    another[:, 0] |= outside
    there = another.cumprod(dim=1).bool() & paints[:, None]
    shortest, longest = (
        torch.where(outside, int(of_outside * size), int(of_inside * size))[:, None, None]
        for of_outside, of_inside in zip(restoration.outside_side, restoration.inside_side, strict=True)
    )
    sides = shortest + (drawn[..., 2:4] * (longest - shortest + 1)).long()
    return torch.cat([_places(drawn[..., :2], sides, size), sides], dim=-1) * there[..., None]


def _places(drawn: Tensor, sides: Tensor, size: int) -> Tensor:
    """First row and column of rectangles within the view, each place as likely: [0, 1) [..., 2] -> int64 [..., 2]."""
    return (drawn * (size - sides + 1)).long()


def spoil(image: Tensor, drawn: Spoiling, restoration: Restoration) -> Tensor:
    """Shuffle, bend, paint: float [B, 1, S, S] in [0, 1] -> the same, in the order of the published code."""
    image = shuffle(image, drawn.windows, drawn.keys, longest_side(restoration, image.shape[-1]))
    image = torch.where(drawn.bends.view(-1, 1, 1, 1), bend(image, drawn.points, drawn.falls), image)
    return paint(image, drawn.blocks, drawn.outside, drawn.noise)


def longest_side(restoration: Restoration, size: int) -> int:
    """The longest side of a window that is shuffled, pixels."""
    return max(int(restoration.shuffle_side * size), 1)


def shuffle(image: Tensor, windows: Tensor, keys: Tensor, longest: int) -> Tensor:
    """Local pixel shuffling: what no later window covers of a window is permuted within itself.

    The published code writes each window's shuffled pixels over those of earlier ones, so that what is seen of a
    window is a draw from all its pixels; here it is a permutation of those seen.

    Args:
        image: [B, 1, S, S].
        windows: int64 [B, windows, 4], within the image.
        keys: int64 [B, S²], below 2^31.
        longest: no window's side is longer, pixels.
    """
    last = last_window(windows, image.shape[-1], longest)
    places = torch.arange(last.shape[1], device=image.device).expand_as(last)
    to = last.argsort(dim=1, stable=True)  # pixels by window, in reading order
    of = (last * _KEYS + torch.where(last > 0, keys, places)).argsort(dim=1, stable=True)  # and by key
    pixels = image.flatten(1)
    return pixels.scatter(1, to, pixels.gather(1, of)).view_as(image)


def last_window(windows: Tensor, size: int, longest: int) -> Tensor:
    """For each pixel the number of the last window over it, from 1, and 0 where there is none: int64 [B, S²].

    Args:
        windows: int64 [B, windows, 4], within an image of so many pixels a side.
        longest: no window's side is longer, pixels.
    """
    top, left, height, width = windows[..., None].unbind(dim=2)  # [B, windows, 1] each
    column = left + torch.arange(longest, device=windows.device).minimum(width - 1)  # the last one again, if narrower
    number = torch.arange(1, windows.shape[1] + 1, device=windows.device)[:, None].expand_as(column).flatten(1)
    result = windows.new_zeros(len(windows), size**2)
    for row in range(longest):  # of all windows at once
        places = ((top + (height - 1).clamp(max=row)) * size + column).flatten(1)
        result.scatter_reduce_(1, places, number, "amax")
    return result


def bend(image: Tensor, points: Tensor, falls: Tensor) -> Tensor:
    """Send intensities through a Bézier curve of the third order; float [B, 1, S, S] in [0, 1] -> the same.

    It goes from (0, 0) to (1, 1). With control points in the unit square its x never falls, so that y is a function
    of x: x' is linear in the points' x, and negative for no corner of the square, 3 (1 - 2t)² for 1 and 0.

    Args:
        points: [B, 2, 2], the control points (x, y), in [0, 1].
        falls: [B] bool: y of the curve read backwards instead, from 1 to 0, as in the published code.
    """
    t = torch.linspace(0, 1, CURVE_STEPS + 1, device=image.device)
    first, second = points[..., None].unbind(dim=1)  # [B, 2, 1]
    x, y = (3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second + t**3).unbind(dim=1)  # [B, CURVE_STEPS + 1]
    x, y = x.contiguous(), torch.where(falls[:, None], y.flip(1), y)
    pixels = image.flatten(1).contiguous()
    above = torch.searchsorted(x, pixels).clamp(1, CURVE_STEPS)
    (x0, y0), (x1, y1) = ((x.gather(1, at), y.gather(1, at)) for at in (above - 1, above))
    share = ((pixels - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
    return (y0 + share * (y1 - y0)).view_as(image)


def paint(image: Tensor, blocks: Tensor, outside: Tensor, noise: Tensor) -> Tensor:
    """Noise in the blocks, or everywhere else.

    Args:
        image, noise: [B, 1, S, S].
        blocks: int64 [B, blocks, 4].
        outside: [B] bool: the blocks are what is left.
    """
    pixel = torch.arange(image.shape[-1], device=image.device)
    first, sides = blocks[..., :2, None], blocks[..., 2:, None]
    within = (pixel >= first) & (pixel < first + sides)  # [B, blocks, 2, S]: rows, columns
    inside = (within[:, :, 0, :, None] & within[:, :, 1, None, :]).any(dim=1, keepdim=True)
    return torch.where(inside ^ outside.view(-1, 1, 1, 1), noise, image)
