"""DICOM files of every encoding: stored bits, syntaxes, compression and real films show what pydicom decodes."""

import csv
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import FILM, NAME, dicom, encode, exposure, grey, table
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.reading import read_radiograph

pydicom = pytest.importorskip("pydicom")
from pydicom import Dataset  # noqa: E402
from pydicom.encaps import encapsulate, get_frame  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

pytestmark = pytest.mark.usefixtures("quiet")
rng = np.random.default_rng(0)


WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
OVERLAY = Dataset()
OVERLAY.add_new((0x6000, 0x0102), "US", 15)
BITS = {
    "as declared": (lambda v: v, 12, 11, 0),
    "more than BitsStored": (lambda v: v, 10, 9, 0),
    "HighBit 15": (lambda v: v << 4, 12, 15, 0),
    "HighBit 13": (lambda v: v << 2, 12, 13, 0),
    "HighBit 15, but not shifted": (lambda v: v | 1, 12, 15, 1),
    "HighBit below BitsStored": (lambda v: v, 12, 7, 0),
    "same upper bits": (lambda v: v | 0xF000, 12, 11, 0),
    "overlay above": (lambda v: v | (v % 2 << 15), 12, 11, "overlay"),
    "overlay below": (lambda v: v << 4 | (v % 3 == 0), 12, 15, "overlay"),
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("window", [{}, WINDOW])
@pytest.mark.parametrize("name", BITS)
def test_stored_bits(shown: Callable[..., np.ndarray], name: str, window: dict, syntax: str) -> None:
    store, bits, high, more = BITS[name]
    values = exposure(600, 3500)
    stored = store(values).astype(np.uint16)
    film = dicom(stored, BitsStored=16, **window)
    if syntax != ExplicitVRLittleEndian:
        pytest.importorskip("openjpeg")
        film.compress(syntax)
    film.BitsStored, film.HighBit = bits, high
    if more == "overlay":
        film.update(OVERLAY)
    expected = grey(values | 1 if more == 1 else values, film)
    assert np.abs(shown(film) - expected).max() <= 0.501


@pytest.mark.parametrize(("bits", "high"), [(12, 11), (10, 9), (16, 15)])
@pytest.mark.parametrize("extended", [True, False])
def test_signed_stored_bits(shown: Callable[..., np.ndarray], bits: int, high: int, extended: bool) -> None:
    values = exposure(-1500, 1500)
    unsigned = values % 65536 if extended or bits != 12 else values % 4096  # without the sign's copies
    film = dicom(unsigned.astype(np.uint16).view(np.int16), BitsStored=bits, HighBit=high)
    assert np.abs(shown(film) - grey(values, film)).max() <= 0.501


def test_jpeg_2000_of_fewer_bits_than_stored(shown: Callable[..., np.ndarray]) -> None:
    pytest.importorskip("openjpeg")
    values = exposure(600, 3500)
    film = dicom(values.astype(np.uint16), BitsStored=12)
    film.compress(JPEG2000Lossless)
    film.BitsStored, film.HighBit = 16, 15
    assert np.abs(shown(film) - scaled(values)).max() <= 0.501


@pytest.mark.parametrize("bits", [12, 16])
def test_colour_of_more_than_eight_bits(shown: Callable[..., np.ndarray], bits: int) -> None:
    red, green, blue = exposure(600, 3500), exposure(300, 800), exposure(0, 4000)[::-1]
    film = dicom(np.stack([red, green, blue], 2).astype(np.uint16), BitsStored=bits)
    luminance = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    assert np.abs(shown(film) - scaled(luminance)).max() <= 0.501


# --- whole files that contradict themselves -------------------------------------------------------


def test_decimal_commas_are_read(shown: Callable[..., np.ndarray]) -> None:
    values = exposure(600, 3500).astype(np.uint16)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        data = encode(dicom(values, syntax, WindowCenter="2048.5", WindowWidth="900.25", RescaleSlope="1.5"))
        commas = data.replace(b"2048.5", b"2048,5").replace(b"900.25", b"900,25").replace(b"1.5 ", b"1,5 ")
        assert commas != data
        assert np.array_equal(shown(commas), shown(data))
    with pytest.raises(RadiographError, match="expected a number as WindowWidth of a DICOM file, found other text"):
        shown(data.replace(b"900.25", b"narrow"))


def test_no_frames_are_one_frame(shown: Callable[..., np.ndarray]) -> None:
    assert np.array_equal(shown(dicom(FILM, NumberOfFrames=0)), shown(dicom(FILM)))


@pytest.mark.parametrize("offset", [1, 8, 999, 2**32 - 1])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_wrong_offset_table_does_not_matter(shown: Callable[..., np.ndarray], offset: int, syntax: str) -> None:
    pytest.importorskip("openjpeg")
    film = dicom(exposure(600, 3500).astype(np.uint16))
    plain = shown(film)
    film.compress(syntax)
    frame = get_frame(film.PixelData, 0, number_of_frames=1)
    table = b"\xfe\xff\x00\xe0" + struct.pack("<II", 4, offset)
    film.PixelData = table + encapsulate([frame], has_bot=False)[8:]
    assert np.array_equal(shown(film), plain)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_encodings_with_a_table(shown: Callable[..., np.ndarray], syntax: str) -> None:
    values = np.array([[10, 11, 12, 13]], np.uint16)
    film = dicom(values, syntax, BitsStored=12, VOILUTSequence=table(10, 12, [0, 819, 1638, 4095]))
    assert shown(film).tolist() == [[0, 51, 102, 255]]


@pytest.mark.parametrize("planar", [0, 1])
def test_colour(shown: Callable[..., np.ndarray], planar: int) -> None:
    colours = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    film = dicom(colours, PlanarConfiguration=planar)
    if planar:
        film.PixelData = colours.transpose(2, 0, 1).tobytes()
    assert np.abs(shown(film) - colours @ np.array([0.299, 0.587, 0.114])).max() <= 0.51


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_without_preamble(shown: Callable[..., np.ndarray], syntax: str) -> None:
    whole = encode(dicom(np.array([[0, 51, 255]], np.uint8), syntax))
    assert shown(whole[132:]).tolist() == [[0, 51, 255]]  # starts with group 0002
    length = int.from_bytes(whole[140:144], "little")
    assert shown(whole[144 + length :]).tolist() == [[0, 51, 255]]  # starts with group 0008


def test_bare_number_ages_are_no_matter(shown: Callable[..., np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = encode(dicom(np.array([[0, 51, 255]], np.uint8), PatientAge="57"))
    assert shown(data).tolist() == [[0, 51, 255]]


def test_nothing_about_the_patient_is_parsed() -> None:
    from c2l_models.radiographs.dicom import _parse

    data = encode(dicom(FILM, PatientID=NAME, PatientAge="057Y"))
    assert data.count(NAME.encode()) == 3
    assert not [element for element in _parse(io.BytesIO(data)) if element.tag.group == 0x0010]
    assert NAME not in str(_parse(io.BytesIO(data)))


def test_jpeg_2000_lossless(shown: Callable[..., np.ndarray]) -> None:
    pytest.importorskip("openjpeg")
    film = dicom(rng.integers(0, 4096, (64, 64)).astype(np.uint16), BitsStored=12)
    plain = shown(film)
    film.compress(JPEG2000Lossless)
    assert np.array_equal(shown(film), plain)


SAMPLES = {
    "MR_small.dcm": ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"],
    "SC_rgb_small_odd.dcm": ["SC_rgb_small_odd_big_endian.dcm"],
}


@pytest.mark.parametrize(("plain", "packed"), [(a, b) for a, many in SAMPLES.items() for b in many])
def test_compressed_films_show_the_same(plain: str, packed: str) -> None:
    """pydicom includes the same small image in several transfer syntaxes."""
    pytest.importorskip("libjpeg")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    if not (folder / packed).exists():
        pytest.skip(f"this pydicom carries no {packed}")
    assert np.array_equal(read_radiograph(folder / plain), read_radiograph(folder / packed))


def test_jpeg_lossless_is_decodable_here() -> None:
    pytest.importorskip("libjpeg")
    from pydicom.pixels import get_decoder

    assert get_decoder(JPEGLosslessSV1).is_available


def test_real_films_against_pydicom(real_data: Path) -> None:
    """8-bit files without a window show the stored values, or their inverse."""
    samples = sorted((real_data / "dicom-samples").glob("*.dcm"))
    challenge = sorted((real_data / "rsna-pneumonia" / "stage_2_train_images").glob("*.dcm"))[:10]
    seen = set()
    for path in samples + challenge:
        film = pydicom.dcmread(path)
        stored = film.pixel_array
        seen.add(film.PhotometricInterpretation)
        expected = 255 - stored if film.PhotometricInterpretation == "MONOCHROME1" else stored
        assert np.array_equal(read_radiograph(path), expected)
    assert seen == {"MONOCHROME1", "MONOCHROME2"}


def test_real_polarities_show_the_same_film(real_data: Path) -> None:
    """The two samples are one film in both polarities; air is dark in both."""
    first, second = (read_radiograph(p) for p in sorted((real_data / "dicom-samples").glob("*.dcm")))
    assert first.size == second.size
    assert isinstance(first, Image.Image)
    correlation = np.corrcoef(np.asarray(first).ravel(), np.asarray(second).ravel())[0, 1]
    assert abs(correlation) > 0.99


def test_challenge_film_is_the_original(real_data: Path) -> None:
    """The challenge's DICOM file and the original PNG of the same film agree, except for JPEG loss."""
    with (real_data / "rsna-pneumonia" / "nih_image_index.csv").open() as file:
        films = {row["Image Index"]: row["patientId"] for row in csv.DictReader(file)}
    originals = (real_data / "chestxray14-fullsize" / "images").glob("*.png")
    pairs = [(path, films[path.name]) for path in originals if path.name in films]
    if not pairs:
        pytest.skip("no film is in both samples")
    for original, film in pairs:
        path = real_data / "rsna-pneumonia" / "stage_2_train_images" / f"{film}.dcm"
        difference = np.subtract(read_radiograph(path), read_radiograph(original), dtype=np.float64)
        assert np.abs(difference).mean() < 3
