"""Two augmented views of a batch, drawn image by image, computed on the batch's own device (Algorithm 1, line 1).

The list is the released code's: random resized crop, rotation, colour jitter, horizontal flip, normalisation,
cutout. On one grey channel its random grayscale and its hue and saturation jitter change nothing (the tests show
it), so they are not here. Crop, rotation and flip are one affine map and one bilinear resampling; film from outside
the crop therefore shows in the corners that crop-then-rotate would leave black. Bilinear resampling does not smooth
before it shrinks: keep a store's side within twice the view's, or fine detail aliases.

What is random is drawn first, as a `Draw`, and then applied: so every process of a job draws for the whole batch and
applies its own part, and views can be drawn once and applied at each step. Nothing here waits for the device.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from .distributed import ALONE, World
from .recipe import Augment, Recipe

TILES = 3
"""Jigsaw cuts a view into so many rows and columns of tiles."""


class View(Protocol):
    """What a view is drawn and made by: a recipe, or the settings of another run."""

    @property
    def size(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def augment(self) -> Augment: ...


@dataclass(frozen=True)
class _Rows:
    """A dataclass of tensors with one row an image, or of such dataclasses, that is indexed as a tensor is."""

    def __getitem__(self, rows: Tensor | slice) -> Self:
        own: dict[str, object] = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return replace(self, **own)


@dataclass(frozen=True)
class Geometry(_Rows):
    """How each of B images is cropped, turned and mirrored.

    Attributes:
        centre: [B, 2] crop centre (x, y) in the image's [-1, 1] coordinates.
        half_side: [B, 2] half the crop's width and height in the same coordinates.
        angle: [B] rotation of the crop about its centre, radians, counter-clockwise as seen.
        flip: [B] bool, mirrored left to right after the rotation.
    """

    centre: Tensor
    half_side: Tensor
    angle: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Draw(_Rows):
    """All that is random in one view of each of B images.

    Attributes:
        geometry: crop, rotation and flip.
        brightness: [B] brightness factor.
        contrast: [B] contrast factor.
        brightness_first: [B] bool, brightness before contrast or after it.
        tiles: int64 [B, 9], which tile comes to each place, row by row; 0 to 8 where nothing moves.
        holes: int64 [B, holes, 2], each hole's centre (row, column), pixels of the view.
    """

    geometry: Geometry
    brightness: Tensor
    contrast: Tensor
    brightness_first: Tensor
    tiles: Tensor
    holes: Tensor


@dataclass(frozen=True)
class Draws(_Rows):
    """The draws of both views of each of B images."""

    first: Draw
    second: Draw


def two_views(
    batch: Tensor, recipe: Recipe, generator: torch.Generator, world: World = ALONE, fixed: Draws | None = None
) -> tuple[Tensor, Tensor]:
    """X_1^A and X_2^A (Algorithm 1, line 1).

    Args:
        batch: uint8 [B, 1, S, S], this process's images.
        recipe: gives the output size, the normalisation and the augmentation's ranges.
        generator: on the batch's device, in the same state on every process; the only source of randomness.
        world: the processes; draws are made for all W B images, so that their number changes no image's views.
        fixed: draws made earlier for these B images; nothing is drawn then.

    Returns:
        Two float32 tensors [B, 1, size, size], normalised; cutout's holes are 0, the mean.
    """
    if fixed is None:
        own = slice(world.rank * len(batch), (world.rank + 1) * len(batch))
        fixed = draw_two(world.size * len(batch), recipe, generator)[own]
    image = batch.float() / 255
    return apply(image, fixed.first, recipe), apply(image, fixed.second, recipe)


def clean_view(batch: Tensor, size: int, mean: float, std: float) -> Tensor:
    """The unaugmented view that probes, batch-norm recalibration and users see.

    uint8 [B, 1, S, S] -> float32 [B, 1, size, size]: the whole image, resized with antialiasing, normalised.
    """
    image = batch.float() / 255
    if image.shape[-1] != size:
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (image - mean) / std


def draw_two(count: int, recipe: Recipe, generator: torch.Generator) -> Draws:
    """Draw both views of `count` images, on the generator's device."""
    return Draws(draw_view(count, recipe, generator), draw_view(count, recipe, generator))


def draw_view(count: int, view: View, generator: torch.Generator) -> Draw:
    """Draw one view of `count` images, on the generator's device."""
    augment, uniform = view.augment, _Uniform(count, generator)
    holes = (count, augment.cutout_holes, 2)
    return Draw(
        geometry=draw_geometry(count, augment, generator),
        brightness=uniform(1 - augment.brightness, 1 + augment.brightness),
        contrast=uniform(1 - augment.contrast, 1 + augment.contrast),
        brightness_first=uniform(0, 1) < 0.5,
        tiles=draw_tiles(count, augment.jigsaw, generator),
        holes=torch.randint(view.size, holes, generator=generator, device=generator.device),
    )


def apply(image: Tensor, draw: Draw, view: View) -> Tensor:
    """Make the views that were drawn: float [B, 1, S, S] in [0, 1] -> normalised [B, 1, size, size].

    Jigsaw comes before cutout, so that the holes are squares of the view that the network sees.
    """
    seen = resample(image, draw.geometry, view.size)
    seen = jitter(seen, draw.brightness, draw.contrast, draw.brightness_first)
    seen = (seen - view.mean) / view.std
    if view.augment.jigsaw:
        seen = jigsaw(seen, draw.tiles)
    return cutout(seen, draw.holes, round(view.augment.cutout_side * view.size))


def draw_geometry(count: int, augment: Augment, generator: torch.Generator) -> Geometry:
    """Draw crop, rotation and flip for each image of a square-image batch.

    Crop: area U(crop_scale) of the image, aspect ratio log-uniform in crop_ratio. A side longer than the image is
    shortened to it (torchvision redraws up to ten times, then falls back to a centre crop).
    """
    uniform = _Uniform(count, generator)
    area = uniform(*augment.crop_scale)
    ratio = uniform(math.log(augment.crop_ratio[0]), math.log(augment.crop_ratio[1])).exp()
    half_side = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
    where = torch.stack([uniform(-1, 1), uniform(-1, 1)], dim=1)
    angle = uniform(-augment.rotation, augment.rotation) * (math.pi / 180)
    return Geometry((1 - half_side) * where, half_side, angle, uniform(0, 1) < augment.flip)


def draw_tiles(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """An order of the nine tiles for each image, int64 [B, 9]: a random one with `probability`, else their own."""
    own = torch.arange(TILES**2, device=generator.device).expand(count, -1)
    if not probability:
        return own
    drawn = torch.rand(count, TILES**2 + 1, generator=generator, device=generator.device)
    return torch.where(drawn[:, :1] < probability, drawn[:, 1:].argsort(dim=1), own)


def resample(image: Tensor, geometry: Geometry, size: int) -> Tensor:
    """Crop, rotate and flip in one bilinear resampling: float [B, 1, S, S] -> [B, 1, size, size].

    An output point p is looked up at centre + half_side * R(angle) F p, with F the flip: the inverse of crop, then
    rotate, then flip. What lies outside the film is 0 (black).
    """
    # Spelled out, for `affine_grid` multiplies matrices: with TF32 it would be a tenth of a pixel off.
    pixel = (2 * torch.arange(size, device=image.device) + 1) / size - 1
    cos, sin = geometry.angle.cos(), geometry.angle.sin()
    mirror = torch.where(geometry.flip, -1.0, 1.0)
    right = geometry.half_side * torch.stack([cos * mirror, sin * mirror], dim=1)  # one step to the right, in the film
    down = geometry.half_side * torch.stack([-sin, cos], dim=1)
    centre, right, down = (point[:, None, None] for point in (geometry.centre, right, down))
    grid = (centre + right * pixel[:, None]) + down * pixel[:, None, None]  # [B, size, size, 2]
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1)
    view = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return view * inside  # zero padding would also darken the film's own last row of pixels


def jitter(image: Tensor, by_brightness: Tensor, by_contrast: Tensor, brightness_first: Tensor) -> Tensor:
    """Brightness and contrast, each by its own factor [B], in each image's order; [0, 1] float [B, 1, H, W]."""
    by_brightness, by_contrast, first = (
        values.view(-1, 1, 1, 1) for values in (by_brightness, by_contrast, brightness_first)
    )
    for brightens, factor in (
        (first, torch.where(first, by_brightness, by_contrast)),
        (~first, torch.where(first, by_contrast, by_brightness)),
    ):
        image = _stretch(image, factor, _mean(image) * ~brightens)
    return image


def jigsaw(image: Tensor, tiles: Tensor) -> Tensor:
    """Put tile `tiles[i]` in place i of each view, [B, 1, S, S]; tiles [B, 9] count row by row.

    Tiles are S // 3 pixels square. Where 3 does not divide S, they lie in the middle, and the one pixel about them
    (on one side, right and below, or on each) stays.
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
    """Zero square holes [B, 1, S, S] about centres [B, holes, 2] (row, column), cut off at the border.

    A hole covers the pixels from centre - side // 2 (inclusive) to centre - side // 2 + side (exclusive).
    """
    pixel = torch.arange(image.shape[-1], device=image.device)
    first = holes.transpose(0, 1)[..., None] - side // 2
    inside = (pixel >= first) & (pixel < first + side)  # [holes, B, 2, S]: rows, columns
    keep = torch.ones_like(image, dtype=torch.bool)
    for hole in inside:
        keep &= ~(hole[:, 0, :, None] & hole[:, 1, None, :]).unsqueeze(1)
    return image * keep


class _Uniform:
    """Draws [B] numbers uniformly in [low, high) on the generator's device."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def __call__(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self.count, generator=self.generator, device=self.generator.device)
        return low + (high - low) * drawn


def _mean(image: Tensor) -> Tensor:
    return image.mean(dim=(1, 2, 3), keepdim=True)


def _stretch(image: Tensor, factor: Tensor, about: Tensor) -> Tensor:
    return ((image - about) * factor + about).clamp(0, 1)
