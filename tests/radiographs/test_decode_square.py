"""`read_file`, and `decode_square` against a full decode with Pillow only."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs import reading
from c2l_models.radiographs.pixels import square, to_grey
from c2l_models.radiographs.reading import decode_square, read_file, read_radiograph

rng = np.random.default_rng(0)


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


NOISE = Image.fromarray(rng.integers(0, 256, (24, 20)).astype(np.uint8))
VALID = {kind: encode(NOISE, kind) for kind in ("PNG", "TIFF", "BMP")}
VALID["PNG16"] = encode(Image.fromarray(rng.integers(0, 4096, (24, 20)).astype(np.uint16)), "PNG")
VALID["RGBA"] = encode(Image.merge("RGBA", [NOISE] * 4), "PNG")


def film(width: int, height: int) -> Image.Image:
    """A smooth film with grain, a bright letter and a bright frame on the left and at the top."""
    x, y = np.arange(width) / width, np.arange(height)[:, None] / height
    grey = 110 + 60 * np.sin(5 * x + 2 * y) + 30 * np.cos(9 * y - x) + rng.normal(0, 6, (height, width))
    grey[:, : width // 16] = grey[: height // 16] = 230
    grey[height // 3 : height // 2, width // 3 : width // 3 + width // 20] = 255
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def full(data: bytes, size: int) -> np.ndarray:
    """The square of the full decode with Pillow only."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(square(image.convert("L"), size)).astype(int)


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of decoded images, recorded at each load."""
    from PIL import ImageFile

    seen = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (seen.append(self.size), load(self))[1])
    return seen


@pytest.mark.parametrize(
    ("side", "size", "reduced"),
    [(1024, 128, 256), (1024, 129, 512), (1024, 256, 512), (1024, 257, 1024), (1030, 64, 129), (256, 200, 256)],
)
def test_a_jpeg_is_decoded_as_coarsely_as_leaves_twice_the_size(
    reductions: list[tuple[int, int]], side: int, size: int, reduced: int
) -> None:
    data = encode(film(side, side + 8), "JPEG")
    reductions.clear()
    assert decode_square(data, size).size == (size, size)
    assert reductions[0][0] == reduced


@pytest.mark.parametrize("shape", [(1024, 1024), (1021, 1543), (1203, 1017)])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 75, "progressive": True}])
def test_reduced_it_is_what_the_full_decode_shows(shape: tuple[int, int], mode: str, options: dict) -> None:
    buffer = io.BytesIO()
    film(*shape).convert(mode).save(buffer, "JPEG", **options)
    for size in (64, 128):
        shown = decode_square(buffer.getvalue(), size)
        assert (shown.mode, shown.info) == ("L", {})
        difference = np.abs(np.asarray(shown) - full(buffer.getvalue(), size))
        assert difference.mean() < 0.7
        assert np.percentile(difference, 99) <= 8
        assert difference.max() <= 24


def test_a_reduced_film_stays_where_it_was() -> None:
    """With sides that 8 does not divide, the decoder's last column is partly empty; it must not shift the others."""
    sharp = np.zeros((1017, 1017), np.uint8)
    sharp[:, 509:] = 200  # an edge one pixel right of the middle
    data = encode(Image.fromarray(sharp), "JPEG")
    row = np.asarray(decode_square(data, 60)).astype(int)[30]
    assert abs(row.sum() - full(data, 60)[30].sum()) <= 10  # a shift by a tenth of a pixel would give 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    film(300, 420).save(path, exif=exif, quality=95)
    expected = np.asarray(square(read_radiograph(path), 64)).astype(int)
    difference = np.abs(np.asarray(decode_square(path.read_bytes(), 64)) - expected)
    assert difference.mean() < 0.7
    assert orientation == 1 or difference.max() == 0


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "RGBA", "TIFF", "BMP"])
def test_other_formats_give_the_same_pixels(tmp_path: Path, kind: str) -> None:
    (tmp_path / "film").write_bytes(VALID[kind])
    for size in (6, 20, 50):
        expected = square(read_radiograph(tmp_path / "film"), size)
        assert np.array_equal(decode_square(VALID[kind], size), expected)


def test_a_square_of_real_films(real_data: Path) -> None:
    for path in sorted((real_data / "chestxray14-fullsize" / "images").glob("*.png"))[:6]:
        with Image.open(path) as image:
            data = encode(image.convert("L"), "JPEG")
        assert np.array_equal(decode_square(path.read_bytes(), 128), square(read_radiograph(path), 128))
        for size in (128, 256):
            difference = np.abs(np.asarray(decode_square(data, size)) - full(data, size))
            assert difference.mean() < 0.5
            assert difference.max() <= 20


def test_wholly_opaque_colour_is_its_luminance() -> None:
    colours = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
    opaque = colours.convert("RGBA")
    assert np.array_equal(to_grey(opaque), colours.convert("L"))
    opaque.putpixel((3, 4), (255, 255, 255, 0))
    assert to_grey(opaque).getpixel((3, 4)) == 0


def test_the_bytes_of_a_file_and_what_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.png").write_bytes(VALID["PNG"])
    assert read_file(tmp_path / "film.png") == VALID["PNG"]
    for path, says in (
        (tmp_path, "^expected the file of one radiograph, found a folder$"),
        (tmp_path / "missing", "^no such file$"),
    ):
        with pytest.raises(RadiographError, match=says):
            read_file(path)
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    with pytest.raises(RadiographError, match=r"^expected a file of at most 10 bytes, found \d+"):
        read_file(tmp_path / "film.png")
    with pytest.raises(RadiographError, match=r"^the file is empty$"):
        decode_square(b"", 8)


def test_a_file_that_is_written_to_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.png"

    class Torn(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            start = super().read(100)
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data + extra)
            os.utime(path, ns=(1, 1))
            return start + super().read()

    monkeypatch.setattr(reading, "_open", Torn)
    for extra in (b"", b"more"):  # noqa: B007
        path.write_bytes(VALID["PNG"])
        with pytest.raises(RadiographError, match=r"^the file changed while it was read$"):
            read_file(path)
