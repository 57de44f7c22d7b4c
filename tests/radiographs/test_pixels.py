"""`to_eight_bits` against exact arithmetic, `square` against resizing and cropping, and the limit of pixels."""

import numpy as np
import pytest
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.pixels import MAX_PIXELS, check_pixels, square, to_eight_bits

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
rng = np.random.default_rng(0)

# --- eight bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize("factor", [1, 3, -3, 40_000, 0.01])
def test_other_values_are_scaled_by_half_a_percent_at_each_end(kind: str, factor: float) -> None:
    array = rng.normal(1000, 200, (50, 40)) * factor
    array[:3], array[3] = array.min(), array.max()
    if kind[0] != "f":
        array = np.rint(array).clip(np.iinfo(kind).min, np.iinfo(kind).max)
    array = array.astype(kind)
    assert np.abs(to_eight_bits(array) - scaled(array)).max() <= 0.501


def test_scale_by_hand() -> None:
    def one(*values: float, dtype: str) -> list[int]:
        return to_eight_bits(np.array([values], dtype))[0].tolist()

    assert one(0, 819, 4095, dtype="uint16") == [0, 51, 255]
    assert one(1000, 1200, 2000, dtype="uint16") == [0, 51, 255]
    assert one(7, 7, dtype="uint16") == [0, 0]
    assert one(0, 65535, dtype="int32") == [0, 255]
    assert one(-100, 0, 100, dtype="int16") == [0, 128, 255]
    assert one(-(2**15), 2**15 - 1, dtype="int16") == [0, 255]
    assert one(-128, 0, 127, dtype="int8") == [0, 128, 255]
    assert one(0, 2**64 - 1, dtype="uint64") == [0, 255]
    assert one(0, 0.5, dtype="float32") == [0, 128]
    assert one(0, 0.5, 1, dtype="float64") == [0, 128, 255]
    assert one(100, 150, 300, dtype="float32") == [0, 64, 255]
    assert one(7.5, 7.5, dtype="float32") == [0, 0]
    assert one(-1e308, 1e308, dtype="float64") == [0, 255]
    assert one(False, True, dtype="bool") == [0, 255]


def test_a_border_and_defects_do_not_darken_the_image() -> None:
    film = np.arange(1000, 2000).reshape(25, 40)
    expected = (film - 1004) / (1994 - 1004) * 255  # the 5th and the 995th of 1000 values
    for border, defect in ((0, 60_000), (60_000, 0)):
        array = np.pad(film, 9, constant_values=border).astype(np.uint16)
        array[0, 0] = defect
        found = to_eight_bits(array)[9:-9, 9:-9]
        assert np.abs(found - expected.clip(0, 255)).max() < 1  # the defect is one of 1001 pixels


def test_big_endian_is_read_like_little_endian() -> None:
    array = rng.integers(0, 4096, (5, 6)).astype("<u2")
    assert np.array_equal(to_eight_bits(array.astype(">u2")), to_eight_bits(array))


def test_eight_bits_stay() -> None:
    assert to_eight_bits(RAMP) is RAMP


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 3, 3), np.uint8), r"shape \[2, 3, 3\]"),
        (np.zeros((0, 3), np.uint8), r"shape \[0, 3\]"),
        (np.zeros((2, 3), complex), "complex128"),
        (np.array([[0, np.nan]]), "expected finite pixel values, found NaN"),
        (np.array([[0, np.inf]]), "expected finite pixel values, found NaN or infinity"),
    ],
)
def test_eight_bits_refuses(array: np.ndarray, says: str) -> None:
    with pytest.raises(RadiographError, match=says):
        to_eight_bits(array)


# --- square --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(96, 96), (96, 144), (288, 96), (24, 30)])
def test_square_is_shorter_side_then_centre_crop(shape: tuple[int, int]) -> None:
    """Against resizing the whole image and then cropping it, for sizes whose longer side becomes whole pixels."""
    noise = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
    height, width = (side * 32 // min(shape) for side in shape)
    top, left = (height - 32) // 2, (width - 32) // 2
    whole = noise.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[top : top + 32, left : left + 32].astype(int)
    assert np.abs(np.asarray(square(noise, 32)) - expected).max() <= 1


def test_square_of_the_right_size_is_unchanged() -> None:
    image = Image.fromarray(rng.integers(0, 256, (32, 32)).astype(np.uint8))
    assert square(image, 32) is image


def test_square_of_a_very_long_film_stays_small() -> None:
    assert square(Image.new("L", (1_000_000, 1), 9), 64).getextrema() == (9, 9)


# --- limits ---


def test_the_limit_itself_is_allowed() -> None:
    check_pixels(8192, MAX_PIXELS // 8192)
    with pytest.raises(RadiographError, match="above the limit"):
        check_pixels(8192, MAX_PIXELS // 8192 + 1)
