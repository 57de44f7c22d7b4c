"""`Transform`: every form of an image gives the network the same input."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.eight_bits import scaled
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from c2l_models.errors import RadiographError
from c2l_models.radiographs.transform import Transform

SIZE = 64
TRANSFORM = Transform(size=SIZE, mean=0.4, std=0.2, in_chans=1)
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
PIXELS.flat[0] = 255
EXPECTED = torch.from_numpy((PIXELS.astype(np.float64) / 255 - 0.4) / 0.2).float()[None]
DEEP = PIXELS.astype(np.uint16) * 257
DEEP_EXPECTED = torch.from_numpy((np.rint(scaled(DEEP)) / 255 - 0.4) / 0.2).float()[None]


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(PIXELS), id="L"),
        pytest.param(Image.fromarray(PIXELS).convert("RGB"), id="RGB"),
        pytest.param(Image.fromarray(PIXELS).convert("RGBA"), id="RGBA"),
        pytest.param(Image.fromarray(PIXELS).convert("P"), id="P"),
        pytest.param(Image.fromarray(PIXELS.astype(np.float32) / 255), id="F"),
        pytest.param(PIXELS, id="uint8 array"),
        pytest.param(PIXELS[None], id="uint8 array 1HW"),
        pytest.param(np.stack([PIXELS] * 3), id="uint8 array 3HW"),
        pytest.param(torch.from_numpy(PIXELS), id="uint8 tensor"),
        pytest.param(torch.from_numpy(PIXELS).float()[None] / 255, id="float tensor"),
    ],
)
def test_every_form_of_a_film_gives_the_same_input(image: Any) -> None:
    found = TRANSFORM(image)
    assert (found.dtype, found.shape) == (torch.float32, (1, SIZE, SIZE))
    torch.testing.assert_close(found, EXPECTED, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(DEEP), id="I;16"),
        pytest.param(Image.fromarray(DEEP.astype(np.int32)), id="I"),
        pytest.param(DEEP, id="uint16 array"),
        pytest.param(np.stack([DEEP] * 3), id="uint16 array 3HW"),
        pytest.param(torch.from_numpy(DEEP), id="uint16 tensor"),
        pytest.param(PIXELS.astype(np.uint16) * 16 + 80, id="12 bits"),
    ],
)
def test_every_form_of_a_deep_film_is_scaled_by_its_own_values(image: Any) -> None:
    torch.testing.assert_close(TRANSFORM(image), DEEP_EXPECTED, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "step"), [("float64", 1e-5), ("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1.6e-2)]
)
def test_rounding_is_accepted_but_not_a_normalised_image(dtype: str, step: float) -> None:
    film = torch.from_numpy(PIXELS).double()[None] / 255
    for low, high in ((0, 1 + step * 0.9), (-step * 0.9, 1)):
        rounded = film.clone().to(getattr(torch, dtype))
        rounded[0, 0, :2] = torch.tensor([low, high])
        expected = TRANSFORM(rounded.float().clip(0, 1))
        assert torch.equal(TRANSFORM(rounded), expected)
        if dtype != "bfloat16":
            assert torch.equal(TRANSFORM(rounded.numpy()), expected)
    for low, high in ((0, 1 + step * 2), (-step * 2, 1)):
        normalised = film.clone().to(getattr(torch, dtype))
        normalised[0, 0, :2] = torch.tensor([low, high])
        with pytest.raises(RadiographError, match="from 0 to 1, found"):
            TRANSFORM(normalised)


def test_a_resized_film_is_accepted() -> None:
    film = torch.rand(1, 200, 180, generator=torch.Generator().manual_seed(0))
    film[:, :120] = 1
    resized = v2.Resize(97, antialias=True)(film)
    assert resized.max() > 1
    assert torch.equal(TRANSFORM(resized), TRANSFORM(resized.clip(0, 1)))


def test_a_path_is_read(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "film.png")
    torch.testing.assert_close(TRANSFORM(str(tmp_path / "film.png")), EXPECTED, rtol=0, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_a_path_and_its_opened_image_give_the_same(tmp_path: Path, orientation: int, depth: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = PIXELS if depth == 8 else DEEP
    film = Image.fromarray(stored)
    film.save(tmp_path / "film.png", exif=exif)
    with Image.open(tmp_path / "film.png") as opened:
        assert torch.equal(TRANSFORM(opened), TRANSFORM(tmp_path / "film.png"))
    as_stored = torch.equal(TRANSFORM(tmp_path / "film.png"), TRANSFORM(stored))
    assert as_stored == (orientation == 1)


def test_colour_becomes_pillows_luminance() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    expected = TRANSFORM(Image.fromarray(colour.transpose(1, 2, 0)).convert("L"))
    for image in (colour, torch.from_numpy(colour), Image.fromarray(colour.transpose(1, 2, 0))):
        torch.testing.assert_close(TRANSFORM(image), expected, rtol=0, atol=1.01 / 255 / 0.2)  # one grey level


@pytest.mark.parametrize("shape", [(200, 150), (90, 333), (40, 50)])
def test_geometry_is_shorter_side_then_centre(shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = (128 + 100 * np.sin(x / 17) * np.cos(y / 23)).astype(np.uint8)
    resized = F.resize(torch.from_numpy(smooth)[None], [SIZE], v2.InterpolationMode.BILINEAR, antialias=True)
    expected = (F.center_crop(resized, [SIZE, SIZE]).float() / 255 - 0.4) / 0.2
    # One resampling of the central square against torchvision's two steps: they differ by less than a pixel.
    difference = (TRANSFORM(smooth) - expected).abs()
    assert difference.mean() < 3 / 255 / 0.2
    assert difference.max() < 12 / 255 / 0.2


def test_channels_are_repeated() -> None:
    for channels in (1, 2, 3, 5):
        found = Transform(SIZE, 0.4, 0.2, channels)(PIXELS)
        assert found.is_contiguous()
        torch.testing.assert_close(found, EXPECTED.repeat(channels, 1, 1), rtol=0, atol=1e-6)


def test_it_travels_to_a_data_loaders_workers() -> None:
    assert torch.equal(pickle.loads(pickle.dumps(TRANSFORM))(PIXELS), TRANSFORM(PIXELS))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), "pixels from 0 to 1, found"),
        (torch.rand(1, SIZE, SIZE) * 255, "pixels from 0 to 1, found"),
        (torch.full((SIZE, SIZE), torch.nan), "pixels from 0 to 1, found"),
        (torch.zeros(SIZE, SIZE, dtype=torch.int64), "int64"),
        (np.zeros((SIZE, SIZE), bool), "bool"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), "channels first"),
        (np.zeros((2, 1, SIZE, SIZE), np.uint8), "one image at a time"),
        (np.zeros((0, SIZE), np.uint8), "shape"),
        (Image.new("L", (0, SIZE)), "found one of 0 x 64"),
        (Image.new("RGB", (SIZE, 0)), "found one of 64 x 0"),
        (Image.fromarray(np.full((SIZE, SIZE), -1, np.int32)), "from 0 to 65535, found -1 to"),
        (Image.fromarray(np.full((SIZE, SIZE), 70000, np.int32)), "from 0 to 65535, found .* to 70000"),
        (Image.fromarray(np.full((SIZE, SIZE), 200.0, np.float32)), "pixels from 0 to 1, found"),
        ([[0, 1]], "list"),
    ],
)
def test_what_is_no_film_is_refused(image: Any, message: str) -> None:
    with pytest.raises(RadiographError, match=message):
        TRANSFORM(image)
