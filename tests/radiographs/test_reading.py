"""`read_radiograph`: expected values by hand or from an oracle, and files that cannot be read."""

import io
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from film_files import tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.reading import read_file, read_radiograph

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
rng = np.random.default_rng(0)


def pixels(path: Path) -> np.ndarray:
    image = read_radiograph(path)
    assert image.mode == "L"
    assert image.info == {}
    return np.asarray(image)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Save an image, an array or bytes, and return the file's path."""

    def write(image: Image.Image | np.ndarray | bytes, name: str, **options: object) -> Path:
        path = tmp_path / name
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            image.save(path, **options)
        return path

    return write


# --- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.dat"])
def test_eight_bits_come_as_stored(write: Callable[..., Path], name: str) -> None:
    path = write(RAMP, name, format="PNG" if name == "a.dat" else None)
    assert np.array_equal(pixels(path), RAMP)


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare with real grey levels, up to rounding."""
    assert np.abs(found - expected).max() <= 0.501


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_twelve_bits_in_sixteen(write: Callable[..., Path], name: str) -> None:
    array = rng.integers(0, 4096, (7, 9)).astype(np.uint16)
    check(pixels(write(array, name)), scaled(array))


UNSIGNED, SIGNED, FLOAT = 1, 2, 3
KINDS = {
    "uint16": ("<u2", UNSIGNED, [0, 1000, 4095, 65535]),
    "uint16 big-endian": (">u2", UNSIGNED, [0, 1000, 4095, 65535]),
    "uint32 of 12 bits": ("<u4", UNSIGNED, [600, 1000, 3500]),
    "uint32 beyond 2**31": ("<u4", UNSIGNED, [0, 2**31 - 1, 2**31, 2**32 - 1]),
    "int16": ("<i2", SIGNED, [-32768, -1000, 0, 1000]),
    "int16 big-endian": (">i2", SIGNED, [-1000, 0, 1000, 32767]),
    "int32": ("<i4", SIGNED, [-(2**31), 0, 2**31 - 1]),
    "int32 big-endian": (">i4", SIGNED, [-5, 0, 100_000]),
    "float": ("<f4", FLOAT, [-7.5, 0, 1000, 3000]),
    "float big-endian": (">f4", FLOAT, [0, 5, 1000]),
}


@pytest.mark.parametrize("name", KINDS)
def test_wide_tiff(write: Callable[..., Path], name: str) -> None:
    kind, code, ends = KINDS[name]
    values = np.concatenate([rng.uniform(min(ends), max(ends), 60 - len(ends)), ends])
    array = np.rint(values).reshape(6, 10).clip(min(ends), max(ends)).astype(kind)
    check(pixels(write(tiff(array, signed=code), "a.tif")), scaled(array))


def test_tiff_with_a_nominal_scale(write: Callable[..., Path]) -> None:
    signed = np.array([[-128, -1, 0, 127]], "i1")
    assert pixels(write(tiff(signed, signed=SIGNED), "a.tif")).tolist() == [[0, 127, 128, 255]]
    assert pixels(write(np.array([[0, 0.2, 1]], "<f4"), "b.tif")).tolist() == [[0, 51, 255]]
    with pytest.raises(RadiographError, match=r"c\.tif: expected finite pixel values"):
        read_radiograph(write(np.array([[0, np.nan]], "<f4"), "c.tif"))


@pytest.mark.parametrize(("kind", "code"), [("<f8", FLOAT), ("<f2", FLOAT), ("<u8", UNSIGNED), (">u4", UNSIGNED)])
def test_kinds_of_tiff_that_are_refused_by_name(write: Callable[..., Path], kind: str, code: int) -> None:
    with pytest.raises(RadiographError, match=r"a\.tif: expected a TIFF file of a common kind of pixels"):
        read_radiograph(write(tiff(np.ones((2, 3), kind), signed=code), "a.tif"))


def test_tiff_white_is_zero(write: Callable[..., Path]) -> None:
    deep = rng.integers(0, 65536, (7, 9)).astype("<u2")
    shallow = rng.integers(0, 256, (7, 9)).astype("u1")
    check(pixels(write(tiff(deep, photometric=0), "a.tif")), 255 - scaled(deep))
    assert np.array_equal(pixels(write(tiff(shallow, photometric=0), "b.tif")), 255 - shallow)


@pytest.mark.parametrize("scale", [1, 257])
def test_tiff_palettes_of_eight_and_sixteen_bits(write: Callable[..., Path], scale: int) -> None:
    ramp = np.arange(256)
    colours = np.stack([255 - ramp, ramp, ramp // 2])
    data = bytearray(tiff(RAMP, photometric=3, more=((320, 0),)))
    entry = data.rindex(struct.pack("<HHII", 320, 4, 1, 0))
    data[entry : entry + 12] = struct.pack("<HHII", 320, 3, 768, len(data))
    data += (colours * scale).astype("<u2").tobytes()
    expected = np.tensordot([0.299, 0.587, 0.114], colours, 1)[RAMP]
    assert np.abs(pixels(write(bytes(data), "a.tif")) - expected).max() <= 0.51


def test_cmyk_and_lab_tiff(write: Callable[..., Path]) -> None:
    ink = rng.integers(0, 256, (7, 9, 4)).astype(np.uint8)
    colours = (255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:]) / 255
    expected = colours @ [0.299, 0.587, 0.114]
    assert np.abs(pixels(write(Image.fromarray(ink, "CMYK"), "a.tif")) - expected).max() <= 1.6
    lab = Image.merge("LAB", [Image.fromarray(RAMP)] * 3)
    assert np.array_equal(pixels(write(lab, "b.tif")), RAMP)


def test_one_bit_and_palettes(write: Callable[..., Path]) -> None:
    bits = rng.integers(0, 2, (7, 9)).astype(bool)
    assert np.array_equal(pixels(write(bits, "a.png")), bits * 255)
    palette = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    palette.putpalette([0, 0, 0, 200, 200, 200, 90, 90, 90])
    assert pixels(write(palette, "b.png")).tolist() == [[0, 200, 90]]
    assert pixels(write(palette, "c.png", transparency=bytes([255, 0, 255]))).tolist() == [[0, 0, 90]]
    keyed = Image.frombytes("L", (2, 1), bytes([40, 50]))
    assert pixels(write(keyed, "d.png", transparency=40)).tolist() == [[0, 50]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_transparency_is_black(write: Callable[..., Path], mode: str, name: str) -> None:
    grey, alpha = (rng.integers(0, 256, (7, 9)).astype(np.uint8) for _ in range(2))
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).convert(mode)
    expected = grey.astype(float) * alpha / 255
    assert np.abs(pixels(write(image, name)) - expected).max() < 1
    image.putalpha(255)
    assert np.array_equal(pixels(write(image, name)), grey)
    image.putalpha(0)
    with pytest.raises(RadiographError, match="expected an image with visible pixels, found one that is transparent"):
        pixels(write(image, name))


def test_colour_is_luminance(write: Callable[..., Path]) -> None:
    colours = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(write(colours, "a.png")) - expected).max() <= 0.51


def test_jpeg_and_cmyk(write: Callable[..., Path]) -> None:
    smooth = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)
    image = Image.fromarray(smooth)
    best = {"quality": 100, "subsampling": 0}
    for mode in ("L", "RGB", "CMYK"):
        # Pillow writes CMYK inverted, as Adobe does. A simple reader would return a negative.
        path = write(image.convert(mode), f"{mode}.jpg", **best)
        assert np.abs(pixels(path).astype(int) - smooth).max() <= 3, mode


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_exif_orientation(write: Callable[..., Path], name: str) -> None:
    smooth = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    shown = pixels(write(smooth, name, exif=exif)).astype(int)
    assert np.abs(shown - np.rot90(smooth, -1)).max() <= 3


def png_chunks(depth: int, colour: int, size: tuple[int, int], raw: bytes) -> bytes:
    """The bytes of a PNG file with unfiltered scan lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colour(write: Callable[..., Path]) -> None:
    def colour(values: list[int]) -> bytes:
        line = np.repeat(np.array(values, ">u2"), 3)
        return png_chunks(16, 2, (len(values), 1), b"\0" + line.tobytes())

    assert pixels(write(colour([0, 30000, 65535]), "a.png")).tolist() == [[0, 117, 255]]
    with pytest.raises(RadiographError, match=r"b\.png: 16-bit colour that uses 14 bits or fewer"):
        read_radiograph(write(colour([0, 1000, 4095]), "b.png"))


def test_several_frames_are_refused(write: Callable[..., Path]) -> None:
    frame = Image.fromarray(RAMP)
    path = write(frame, "a.tif", save_all=True, append_images=[frame])
    with pytest.raises(RadiographError, match=r"a\.tif: expected one frame, found several; save"):
        read_radiograph(path)


def test_a_tiff_of_many_pages_is_refused_at_once(write: Callable[..., Path]) -> None:
    """Counting these pages would take minutes: Pillow compares each with all before."""
    data = bytearray(tiff(RAMP))
    first = len(data)
    data[-4:] = struct.pack("<I", first)
    data += b"".join(struct.pack("<HI", 0, first + 6 * page) for page in range(1, 100_000)) + bytes(6)
    with pytest.raises(RadiographError, match="expected one frame, found several"):
        read_radiograph(write(bytes(data), "a.tif"))


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.dcm").open("wb") as file:
        file.write(bytes(128) + b"DICM")
        file.truncate(2**40)
    for read in (read_radiograph, read_file):
        with pytest.raises(RadiographError, match=r"at most 536,870,912 bytes, found 1,099,511,627,776"):
            read(tmp_path / "a.dcm")


def test_preview_in_a_phones_jpeg_is_ignored(write: Callable[..., Path]) -> None:
    flat = Image.new("L", (16, 16), 77)
    path = write(flat, "a.jpg", format="MPO", save_all=True, append_images=[Image.new("L", (16, 16), 200)])
    assert (pixels(path) == 77).all()


def test_no_text_of_the_file_comes_out(write: Callable[..., Path]) -> None:
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Comment", "Doe^John")
    path = write(RAMP, "a.png", pnginfo=notes)
    image = read_radiograph(path)
    assert b"Doe" in path.read_bytes()
    assert "Doe" not in repr(vars(image))
    assert not image.getexif()


# --- files that cannot be read --------------------------------------------------------


def encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


NOISE = Image.fromarray(rng.integers(0, 256, (24, 20)).astype(np.uint8))
VALID = {kind: encode(NOISE, kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")}
VALID["PNG16"] = encode(Image.fromarray(rng.integers(0, 4096, (24, 20)).astype(np.uint16)), "PNG")
VALID["RGBA"] = encode(NOISE.convert("RGBA"), "PNG")
VALID["CMYK"] = encode(NOISE.convert("CMYK"), "JPEG")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"name,finding\n1,none\n", "not a PNG, JPEG, TIFF, BMP or DICOM file"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG, JPEG, TIFF, BMP or DICOM file, or one whose header is damaged"),
        (encode(NOISE, "GIF"), "not a PNG, JPEG, TIFF, BMP or DICOM file"),
        (VALID["JPEG"][:-200], "the file ends too early"),
        (VALID["BMP"][:-200], "the file ends too early"),
        (VALID["TIFF"][:-200], "ends too early|damaged"),
        (VALID["PNG"][:-200], "the file ends too early|damaged"),
        (png_chunks(8, 0, (40000, 40000), b""), "more pixels than the limit of 67,108,864"),
        (png_chunks(8, 0, (9000, 8000), b""), r"9000 x 8000 pixels is above the limit"),
    ],
)
def test_bad_files(write: Callable[..., Path], data: bytes, says: str) -> None:
    path = write(data, "film.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(RadiographError, match=says) as caught:
            read_radiograph(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_changed_pixel_that_still_decodes_is_seen_by_its_checksum(write: Callable[..., Path]) -> None:
    raw = b"".join(b"\0" + bytes(RAMP[i]) for i in range(3))
    stored = png_chunks(8, 0, (4, 3), raw)
    assert np.array_equal(pixels(write(stored, "a.png")), RAMP)
    header, rest = stored[:33], stored[33:]
    damaged = header + rest.replace(zlib.compress(raw), zlib.compress(raw[:-1] + b"\x07"))
    with pytest.raises(RadiographError, match="damaged"):
        read_radiograph(write(damaged, "b.png"))


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(RadiographError, match=r"missing\.png: no such file"):
        read_radiograph(tmp_path / "missing.png")
    with pytest.raises(RadiographError, match="expected the file of one radiograph, found a folder"):
        read_radiograph(tmp_path)
    with pytest.raises(RadiographError, match="cannot be opened"):
        read_radiograph("film\0.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RadiographError, match="not a regular file"):
            read_radiograph(tmp_path / "pipe")


def test_not_allowed_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.png").write_bytes(VALID["PNG"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RadiographError, match=r"film\.png: cannot be opened: Permission denied"):
        read_radiograph(tmp_path / "film.png")


def damage(data: bytes, flips: list[tuple[float, int]], keep: float) -> bytes:
    """`data` with bytes replaced at relative positions, cut to the relative length `keep`."""
    changed = bytearray(data)
    for place, byte in flips:
        changed[int(place * len(data))] = byte
    return bytes(changed[: round(keep * len(data))])


places = st.floats(0, 1, exclude_max=True)
damages = st.builds(
    damage,
    st.sampled_from(list(VALID.values())),
    st.lists(st.tuples(st.one_of(places, places.map(lambda x: x / 20)), st.integers(0, 255)), max_size=4),
    st.one_of(st.just(1.0), places),
)


@settings(max_examples=400, deadline=None)
@given(damages)
def test_damaged_files_give_an_image_or_a_radiograph_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "film")
        path.write_bytes(data)
        outcome = attempt(path)
    if isinstance(outcome, str):
        assert outcome.startswith(f"{path}: ")
    else:
        assert outcome.mode == "L"
        assert outcome.info == {}


def attempt(path: Path) -> Image.Image | str:
    try:
        return read_radiograph(path)
    except RadiographError as error:
        return str(error)


# --- real films, and imports --------------------------------------------------------------


def test_real_originals(real_data: Path) -> None:
    files = sorted((real_data / "chestxray14-fullsize" / "images").glob("*.png"))
    modes = {}
    for path in files:
        shown = pixels(path)
        with Image.open(path) as image:
            modes[image.mode] = path
            stored = np.asarray(image)
        assert np.array_equal(shown, stored if stored.ndim == 2 else stored[..., 0])
    assert set(modes) == {"L", "RGBA"}


def test_real_knees(real_data: Path) -> None:
    for path in sorted((real_data / "knee-kl" / "images").glob("*.jpg"))[:20]:
        assert read_radiograph(path).size == (128, 128)


def test_neither_torch_nor_pydicom_is_loaded_for_a_png(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "film.png").write_bytes(VALID["PNG"])
    code = (
        "import sys; from c2l_models.radiographs.reading import read_radiograph; read_radiograph(sys.argv[1]);"
        "assert not {'torch', 'timm', 'pydicom'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "film.png")], check=True)
