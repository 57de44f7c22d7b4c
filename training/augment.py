"""Two augmented views of a batch (Algorithm 1, line 1), drawn per image and computed on the batch's own device.

The transforms are the released code's: random resized crop, rotation, colour jitter, horizontal flip, normalisation,
cutout. Its random grayscale and its hue and saturation jitter are left out, because they change nothing on one grey
channel (a test shows it).

Crop, rotation and flip are one affine map and one bilinear resampling. The corners that crop-then-rotate would leave
black therefore show the image outside the crop. Bilinear resampling does not smooth before it shrinks: keep a store's
images at most twice as large as the view, or fine detail aliases.

All random numbers are drawn first, as a `Draw`, and then applied. So every process of a job draws for the whole batch
and applies its own part, and a run can draw its views once and apply them at each step. Nothing here waits for the
device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from .distributed import ALONE, World
from .recipe import Augment, Recipe

TILES = 3
"""Rows and columns of tiles that jigsaw cuts a view into."""
CROP_ATTEMPTS = 10
"""Number of times that torchvision's RandomResizedCrop draws a crop before it takes a central one."""


class ViewSettings(Protocol):
    """The settings of a view: a recipe, or the settings of a fine-tuning run."""

    @property
    def size(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def augment(self) -> Augment: ...


@dataclass(frozen=True)
class RowIndexed:
    """Base of dataclasses of tensors (or of such dataclasses) with one row per image: `draws[rows]` selects images."""

    def __getitem__(self, rows: Tensor | slice) -> Self:
        own: dict[str, object] = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return replace(self, **own)


@dataclass(frozen=True)
class Geometry(RowIndexed):
    """Crop, rotation and flip of each of B images.

    Attributes:
        centre: [B, 2] crop centre (x, y) in the image's [-1, 1] coordinates.
        half_side: [B, 2] half the crop's width and height in the same coordinates.
        angle: [B] rotation of the crop about its centre, radians, counter-clockwise as seen.
        flip: [B] bool, mirror left to right after the rotation.
    """

    centre: Tensor
    half_side: Tensor
    angle: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Draw(RowIndexed):
    """All random numbers of one view of each of B images.

    Attributes:
        geometry: crop, rotation and flip.
        brightness: [B] brightness factor.
        contrast: [B] contrast factor.
        brightness_first: [B] bool, change brightness before contrast.
        tiles: int64 [B, 9], the tile that moves to each place, row by row; 0 to 8 if no tile moves.
        holes: int64 [B, holes, 2], each hole's centre (row, column) in pixels of the view.
    """

    geometry: Geometry
    brightness: Tensor
    contrast: Tensor
    brightness_first: Tensor
    tiles: Tensor
    holes: Tensor


@dataclass(frozen=True)
class Draws(RowIndexed):
    """The draws of both views of each of B images."""

    first: Draw
    second: Draw


def two_views(
    batch: Tensor, recipe: Recipe, generator: torch.Generator, world: World = ALONE, fixed: Draws | None = None
) -> tuple[Tensor, Tensor]:
    """Make X_1^A and X_2^A (Algorithm 1, line 1).

    Args:
        batch: uint8 [B, 1, S, S], this process's images.
        recipe: the views' size, the normalisation and the augmentation's ranges.
        generator: on the batch's device, in the same state on every process; the only source of randomness.
        world: the processes. Numbers are drawn for all W B images, so views do not depend on the number of processes.
        fixed: numbers drawn earlier for these B images; nothing is drawn then.

    Returns:
        Two float32 tensors [B, 1, size, size], normalised. Cutout's holes are 0, the mean.
    """
    if fixed is None:
        own = slice(world.rank * len(batch), (world.rank + 1) * len(batch))
        fixed = draw_two(world.size * len(batch), recipe, generator)[own]
    image = batch.float() / 255
    return apply(image, fixed.first, recipe), apply(image, fixed.second, recipe)


def clean_view(batch: Tensor, size: int, mean: float, std: float) -> Tensor:
    """Make the view without augmentation, for probes, batch-norm recalibration and users.

    uint8 [B, 1, S, S] -> float32 [B, 1, size, size]: the whole image, resized with antialiasing and normalised. `mean`
    and `std` are of intensities in [0, 1].
    """
    image = batch.float() / 255
    if image.shape[-1] != size:
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (image - mean) / std


def draw_two(count: int, recipe: Recipe, generator: torch.Generator) -> Draws:
    """Draw both views of `count` images, on the generator's device."""
    return Draws(draw_view(count, recipe, generator), draw_view(count, recipe, generator))


def draw_view(count: int, view: ViewSettings, generator: torch.Generator) -> Draw:
    """Draw one view of `count` images, on the generator's device."""
    augment, uniform = view.augment, uniform_sampler(count, generator)
    holes = (count, augment.cutout_holes, 2)
    return Draw(
        geometry=draw_geometry(count, augment, generator),
        brightness=uniform(1 - augment.brightness, 1 + augment.brightness),
        contrast=uniform(1 - augment.contrast, 1 + augment.contrast),
        brightness_first=uniform(0, 1) < 0.5,
        tiles=draw_tiles(count, augment.jigsaw, generator),
        holes=torch.randint(view.size, holes, generator=generator, device=generator.device),
    )


def apply(image: Tensor, draw: Draw, view: ViewSettings) -> Tensor:
    """Make the drawn views: float [B, 1, S, S] in [0, 1] -> normalised [B, 1, size, size].

    Jigsaw comes before cutout, so that holes stay square in the view that the network sees.
    """
    seen = resample(image, draw.geometry, view.size)
    seen = jitter(seen, draw.brightness, draw.contrast, draw.brightness_first)
    seen = (seen - view.mean) / view.std
    if view.augment.jigsaw:
        seen = jigsaw(seen, draw.tiles)
    return cutout(seen, draw.holes, round(view.augment.cutout_side * view.size))


def draw_geometry(count: int, augment: Augment, generator: torch.Generator) -> Geometry:
    """Draw crop, rotation and flip for each of `count` square images.

    The crop's area is U(crop_scale) of the image, its aspect ratio log-uniform in crop_ratio. `crop_fit` decides about
    a side longer than the image.
    """
    uniform = uniform_sampler(count, generator)
    if augment.crop_fit == "redraw":
        half_side, central = redrawn_crops(count, augment, generator)
    else:
        half_side = draw_half_sides(count, augment, generator).clamp(max=1.0)
        central = torch.zeros(count, dtype=torch.bool, device=generator.device)
    position = torch.stack([uniform(-1, 1), uniform(-1, 1)], dim=1)  # -1 and 1: the crop touches the image's border
    position = position.masked_fill(central[:, None], 0.0)
    angle = uniform(-augment.rotation, augment.rotation) * (math.pi / 180)
    return Geometry((1 - half_side) * position, half_side, angle, uniform(0, 1) < augment.flip)


def draw_half_sides(count: int, augment: Augment, generator: torch.Generator) -> Tensor:
    """Draw half the crops' width and height [count, 2], in the image's [-1, 1] coordinates; above 1 they exceed it."""
    uniform = uniform_sampler(count, generator)
    area = uniform(*augment.crop_scale)
    ratio = uniform(*map(math.log, augment.crop_ratio)).exp()
    return torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1)


def redrawn_crops(count: int, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw crops of square images as torchvision's RandomResizedCrop does, except that sides are not rounded to pixels.

    Each crop is the first of ten draws that lies within the image. If none does, it is the largest central crop with an
    aspect ratio in `crop_ratio`: the whole image, if 1 is in that range.

    Returns:
        Half the crops' width and height [B, 2], in the image's [-1, 1] coordinates, and which of them must be central,
        bool [B].
    """
    drawn = draw_half_sides(CROP_ATTEMPTS * count, augment, generator).view(CROP_ATTEMPTS, count, 2)
    fits = (drawn <= 1).all(dim=2)
    first = fits.int().argmax(dim=0)  # of equal values, the first
    half_side = drawn[first, torch.arange(count, device=drawn.device)]
    nearest = min(max(1.0, augment.crop_ratio[0]), augment.crop_ratio[1])
    central = ~fits.any(dim=0)
    width = half_side[:, 0].masked_fill(central, min(1.0, nearest))
    height = half_side[:, 1].masked_fill(central, min(1.0, 1 / nearest))
    return torch.stack([width, height], dim=1), central


def draw_tiles(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw an order of the nine tiles for each image, int64 [B, 9]: random with `probability`, otherwise unchanged."""
    unchanged = torch.arange(TILES**2, device=generator.device).expand(count, -1)
    if not probability:
        return unchanged
    drawn = torch.rand(count, TILES**2 + 1, generator=generator, device=generator.device)
    return torch.where(drawn[:, :1] < probability, drawn[:, 1:].argsort(dim=1), unchanged)


def resample(image: Tensor, geometry: Geometry, size: int) -> Tensor:
    """Crop, rotate and flip in one bilinear resampling: float [B, 1, S, S] -> [B, 1, size, size].

    The pixel at p of the view is read at centre + half_side * R(angle) F p of the image, with the flip F. This is the
    inverse of crop, then rotate, then flip. Points outside the image are 0 (black).
    """
    # Not `affine_grid`: it multiplies matrices, and with TF32 the grid would be off by a tenth of a pixel.
    pixel = (2 * torch.arange(size, device=image.device) + 1) / size - 1
    cos, sin = geometry.angle.cos(), geometry.angle.sin()
    mirror = torch.where(geometry.flip, -1.0, 1.0)
    right = geometry.half_side * torch.stack([cos * mirror, sin * mirror], dim=1)  # [B, 2], a view's step to the right
    down = geometry.half_side * torch.stack([-sin, cos], dim=1)
    centre, right, down = (point[:, None, None] for point in (geometry.centre, right, down))
    grid = (centre + right * pixel[:, None]) + down * pixel[:, None, None]  # [B, size, size, 2]
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1)
    view = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return view * inside  # padding_mode="zeros" would also darken the image's own border pixels


def jitter(image: Tensor, by_brightness: Tensor, by_contrast: Tensor, brightness_first: Tensor) -> Tensor:
    """Change brightness and contrast, in each image's own order: float [B, 1, H, W] in [0, 1] -> the same.

    `by_brightness`, `by_contrast`: factors [B]. `brightness_first`: bool [B].
    """
    by_brightness, by_contrast, first = (
        values.view(-1, 1, 1, 1) for values in (by_brightness, by_contrast, brightness_first)
    )
    for brightens, factor in (
        (first, torch.where(first, by_brightness, by_contrast)),
        (~first, torch.where(first, by_contrast, by_brightness)),
    ):
        about = image.mean(dim=(1, 2, 3), keepdim=True) * ~brightens  # 0 for brightness
        image = ((image - about) * factor + about).clamp(0, 1)
    return image


def jigsaw(image: Tensor, tiles: Tensor) -> Tensor:
    """Move tile `tiles[i]` to place i of each view [B, 1, S, S]; tiles [B, 9] are counted row by row.

    Tiles are S // 3 pixels square. If S is not a multiple of 3, they lie in the middle, and the border of one pixel
    (right and below only, or on every side) does not move.
    """
    count, _, size, _ = image.shape
    side = size // TILES
    first = (size - TILES * side) // 2
    middle = slice(first, first + TILES * side)
    cut = image[:, 0, middle, middle].view(count, TILES, side, TILES, side).transpose(2, 3).flatten(1, 2)
    moved = cut[torch.arange(count, device=image.device)[:, None], tiles]
    result = image.clone()
    result[:, 0, middle, middle] = moved.view(count, TILES, TILES, side, side).transpose(2, 3).flatten(1, 2).flatten(2)
    return result


def cutout(image: Tensor, holes: Tensor, side: int) -> Tensor:
    """Set square holes to 0 in views [B, 1, S, S]; their centres [B, holes, 2] are (row, column).

    A hole covers the pixels from centre - side // 2 (inclusive) to centre - side // 2 + side (exclusive), as far as
    they are within the view.
    """
    pixel = torch.arange(image.shape[-1], device=image.device)
    first = holes.transpose(0, 1)[..., None] - side // 2
    inside = (pixel >= first) & (pixel < first + side)  # [holes, B, 2, S]: rows, columns
    keep = torch.ones_like(image, dtype=torch.bool)
    for hole in inside:
        keep &= ~(hole[:, 0, :, None] & hole[:, 1, None, :]).unsqueeze(1)
    return image * keep


def uniform_sampler(count: int, generator: torch.Generator) -> Callable[[float, float], Tensor]:
    """A function (low, high) -> [count] that draws uniformly in [low, high), on the generator's device."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)

    return uniform
