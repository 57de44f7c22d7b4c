"""DICOM files: against the formulas of the standard, one value at a time, small arrays by hand, and pydicom's files."""

import csv
import io
import logging
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.jpeg_header import frame_size
from c2l_models.radiographs.pixels import MAX_PIXELS
from c2l_models.radiographs.reading import read_radiograph

pydicom = pytest.importorskip("pydicom")
from pydicom import Dataset, FileMetaDataset, Sequence  # noqa: E402
from pydicom.encaps import encapsulate, get_frame  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

NAME = "Doe^John"
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Turn warnings into errors, because a warning could quote the text of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def dicom(array: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DICOM data set with the pixels `array`, a patient, and the given elements."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientName = film.PatientComments = NAME
    film.Rows, film.Columns = array.shape[:2]
    film.SamplesPerPixel = 1 if array.ndim == 2 else 3
    film.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    if array.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = film.BitsStored = array.dtype.itemsize * 8
    film.PixelRepresentation = int(array.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    film.PixelData = array.astype(array.dtype.newbyteorder(order)).tobytes()
    film.PixelData += b"\0" * (len(film.PixelData) % 2)
    film["PixelData"].VR = "OW" if film.BitsAllocated > 8 else "OB"
    for name, value in elements.items():
        if value is None and name in film:
            delattr(film, name)
        else:
            setattr(film, name, value)
    film.HighBit = elements.get("HighBit", film.BitsStored - 1)
    return film


def encode(film: Dataset) -> bytes:
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Write a file with a wrong extension and return the pixels that `read_radiograph` reads."""

    def shown(film: Dataset | bytes) -> np.ndarray:
        path = tmp_path / "film.png"
        path.write_bytes(film if isinstance(film, bytes) else encode(film))
        image = read_radiograph(path)
        assert image.mode == "L"
        assert image.info == {}
        return np.asarray(image)

    return shown


def grey(values: np.ndarray, film: Dataset) -> np.ndarray:
    """Grey levels, 0 to 255, of stored values: PS3.3 C.11.1 (rescale), C.11.2.1.2 (window) and C.7.6.3.1.2."""
    rescaled = values * float(film.get("RescaleSlope", 1)) + float(film.get("RescaleIntercept", 0))
    levels = np.array([[windowed(x, film) for x in row] for row in rescaled]) if "WindowCenter" in film else None
    levels = scaled(rescaled) if levels is None else 255 * levels
    return 255 - levels if film.PhotometricInterpretation == "MONOCHROME1" else levels


def windowed(x: float, film: Dataset) -> float:
    c, w = (v if isinstance(v, int | float) else v[0] for v in (film.WindowCenter, film.WindowWidth))
    function = film.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR":
        c, w = c - 0.5, w - 1
    return 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5


WINDOWS: list[dict[str, Any]] = [
    {},
    {"WindowCenter": 1000, "WindowWidth": 800},
    {"WindowCenter": [1000, 500], "WindowWidth": [800, 100]},
    {"WindowCenter": 1000, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 1000.5, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 1000, "WindowWidth": 1},
]
RESCALES: list[dict[str, Any]] = [
    {},
    {"RescaleSlope": 2, "RescaleIntercept": -1024},
    {"RescaleSlope": -1, "RescaleIntercept": 2100},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rescale", RESCALES)
@pytest.mark.parametrize("kind", ["uint16", "int16"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_every_step_by_the_standard(
    shown: Callable[..., np.ndarray], photometric: str, kind: str, rescale: dict, window: dict
) -> None:
    low = -2048 if kind == "int16" else 0
    edges = [low, low + 4095, 999, 1000, 1001, 1012]
    values = np.append(rng.integers(low, low + 4096, 60), edges).reshape(6, 11)
    film = dicom(values.astype(kind), BitsStored=12, PhotometricInterpretation=photometric, **rescale, **window)
    assert np.abs(shown(film) - grey(values, film)).max() <= 0.501


def test_window_then_inversion_by_hand(shown: Callable[..., np.ndarray]) -> None:
    """Inversion before the window would give about [255, 255, 255, 0]."""
    values = np.array([[0, 100, 150, 200, 4095]], np.uint16)
    window = {"BitsStored": 12, "WindowCenter": 150.5, "WindowWidth": 101}
    assert shown(dicom(values, **window)).tolist() == [[0, 0, 128, 255, 255]]
    inverse = shown(dicom(values, **window, PhotometricInterpretation="MONOCHROME1"))
    assert inverse.tolist() == [[255, 255, 127, 0, 0]]


def test_eight_bits_without_a_window_are_shown_as_stored(shown: Callable[..., np.ndarray]) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(dicom(ramp)), ramp)
    assert np.array_equal(shown(dicom(ramp, PhotometricInterpretation="MONOCHROME1")), 255 - ramp)
    assert np.array_equal(shown(dicom(ramp.astype(np.uint16), BitsStored=8)), ramp)
    assert np.array_equal(shown(dicom(ramp.view(np.int8))), ramp ^ 128)
    assert np.array_equal(shown(dicom(ramp // 16, BitsStored=4)), ramp // 16 * 17)


def exposure(low: float, high: float, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A smooth bright spot with noise, from `low` to `high`: int64 [H, W]."""
    y, x = np.mgrid[-1 : 1 : 1j * shape[0], -1 : 1 : 1j * shape[1]]
    spot = np.exp(-2 * (x**2 + y**2)) + np.random.default_rng(1).normal(0, 0.01, shape)
    return np.rint(low + (high - low) * spot.clip(0, 1)).astype(np.int64)


def bordered(film: np.ndarray, value: int) -> np.ndarray:
    film = film.copy()
    film[:12], film[:, -9:] = value, value
    return film


def with_defects(film: np.ndarray) -> np.ndarray:
    film = film.copy()
    film.flat[::401] = 65535  # a quarter percent
    return film


WITHOUT_SCALE = {
    "12 bits": exposure(600, 3500),
    "faint": exposure(20000, 20060),
    "dark": exposure(3, 100),
    "black border": bordered(exposure(9000, 12000), 0),
    "white border": bordered(exposure(900, 3000), 65535),
    "saturated": exposure(0, 6000).clip(0, 4095),
    "defects": with_defects(exposure(600, 3500)),
    "few values": exposure(0, 2) * 900,
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("coding", ["uint16", "int16", "12 in 16 bits", RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("name", WITHOUT_SCALE)
def test_a_film_without_a_window_is_scaled_by_its_own_values(
    shown: Callable[..., np.ndarray], tmp_path: Path, name: str, coding: str, photometric: str
) -> None:
    values = WITHOUT_SCALE[name]
    bits = 12 if coding == "12 in 16 bits" and values.max() < 4096 else 16
    kind, low = ("int16", 32768) if coding == "int16" else ("uint16", 0)
    film = dicom((values - low).astype(kind), BitsStored=bits, PhotometricInterpretation=photometric)
    if coding in (RLELossless, JPEG2000Lossless):
        pytest.importorskip("openjpeg")
        film.compress(coding)
    found = shown(film)
    found = 255 - found if photometric == "MONOCHROME1" else found
    assert np.abs(found - scaled(values)).max() <= 0.501
    assert (found.min(), found.max()) == (0, 255)
    for suffix in ("png", "tif"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"same.{suffix}")
        assert np.array_equal(read_radiograph(tmp_path / f"same.{suffix}"), found)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bits_sign_coding_window_and_polarity(data: st.DataObject) -> None:
    """Random films in random descriptions against numpy on the same pixels."""
    bits = data.draw(st.integers(9, 16))
    signed, inverse = data.draw(st.booleans()), data.draw(st.booleans())
    high = data.draw(st.integers(bits - 1, 15)) if not signed else bits - 1
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, top = sorted(data.draw(st.tuples(st.integers(least, most), st.integers(least, most))))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(low, top + 1, (9, 11))
    window = {}
    if data.draw(st.booleans()):
        window = {"WindowCenter": (low + top) / 2, "WindowWidth": max((top - low) / 2, 1)}
    rescale = data.draw(st.sampled_from([{}, *RESCALES]))
    stored = (values << (high + 1 - bits)).astype(np.int16 if signed else np.uint16)
    film = dicom(stored, BitsStored=bits, HighBit=high, **({} if window else rescale), **window)
    film.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    expected = grey(values, film)
    if data.draw(st.booleans()):
        film.compress(RLELossless)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "film").write_bytes(encode(film))
        found = attempt(Path(folder, "film"))
    if isinstance(found, str):
        assert "shows none of the film" in found
        assert np.ptp(np.rint(expected)) == 0
    else:
        assert np.abs(found - expected).max() <= 0.501


def test_padding_is_not_part_of_the_scale(shown: Callable[..., np.ndarray]) -> None:
    values = exposure(600, 3500)
    padded = values.copy()
    padded[0] = np.arange(60000, 60080)
    found = shown(dicom(padded.astype(np.uint16), PixelPaddingValue=60000, PixelPaddingRangeLimit=60100))
    assert np.abs(found[1:] - scaled(values[1:])).max() <= 0.501
    assert (found[0] == 255).all()
    flat = np.full((4, 4), 7, np.uint16)
    assert not shown(dicom(flat, PixelPaddingValue=7)).any()


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


def test_values_of_more_than_sixteen_bits_are_refused(tmp_path: Path) -> None:
    film = dicom((exposure(0, 100_000)).astype(np.uint32), BitsStored=16)
    (tmp_path / "film").write_bytes(encode(film))
    with pytest.raises(RadiographError, match="expected DICOM pixel values of 16 bits"):
        read_radiograph(tmp_path / "film")


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


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("depth", [12, 8])
def test_a_table_shorter_than_its_descriptor(shown: Callable[..., np.ndarray], words: bool, depth: int) -> None:
    entries = list(range(0, 4096, 2))[:1500] if depth == 12 else [v // 16 for v in range(1500)]
    values = np.array([[0, 100, 1499, 1500, 4095]], np.uint16)
    voi = table(0, depth, entries, words)
    voi[0].LUTDescriptor[0] = 2048
    last = entries[-1] / (4095 if depth == 12 else 255) * 255
    expected = [[0, entries[100] * last / entries[-1], last, last, last]]
    assert np.abs(shown(dicom(values, BitsStored=12, VOILUTSequence=voi)) - expected).max() <= 0.501
    del voi[0].LUTData
    with pytest.raises(RadiographError, match="expected LUTDescriptor and LUTData"):
        shown(dicom(values, BitsStored=12, VOILUTSequence=voi))


@pytest.mark.parametrize("header", [b"", encode(dicom(np.zeros((9, 9), np.uint16)))[132:-200]])
def test_a_file_filled_with_zeros_is_refused_early(shown: Callable[..., np.ndarray], header: bytes) -> None:
    """Parsing one element per 8 zeros would take minutes for these 40 MB."""
    data = bytes(128) + b"DICM" + header[: header.find(b"\x28\x00\x10\x00")] + bytes(40_000_000)
    with pytest.raises(RadiographError, match="its end is zeros"):
        shown(data)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 50, "WindowWidth": 0},
        {"WindowCenter": 50, "WindowWidth": -5},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 50},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"VOILUTFunction": ""},
    ],
)
def test_steps_that_are_empty_or_not_allowed_are_left_out(shown: Callable[..., np.ndarray], window: dict) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(dicom(ramp, **window)), ramp)


def table(first: int, bits: int, entries: list[int], words: bool = False) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    if words:
        item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", entries)
    return Sequence([item])


@pytest.mark.parametrize("words", [False, True])
def test_lookup_tables(shown: Callable[..., np.ndarray], words: bool) -> None:
    values = np.array([[0, 9, 10, 11, 12, 13, 4095]], np.uint16)
    voi = table(10, 12, [0, 819, 1638, 4095], words)
    film = dicom(values, BitsStored=12, VOILUTSequence=voi)
    assert shown(film).tolist() == [[0, 0, 0, 51, 102, 255, 255]]
    film.ModalityLUTSequence = table(0, 12, [10, 11, 12, 13], words)
    assert shown(film).tolist() == [[0] + [255] * 6]
    film.PhotometricInterpretation = "MONOCHROME1"
    assert shown(film).tolist() == [[255] + [0] * 6]


def test_a_long_table_of_eight_bits(shown: Callable[..., np.ndarray]) -> None:
    """An index stored in the table's 8 bits would overflow."""
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    film = dicom(values, BitsStored=12, VOILUTSequence=table(0, 8, [v // 16 for v in range(4096)]))
    assert np.array_equal(shown(film), values // 16)


def test_a_tables_depth_is_not_believed(shown: Callable[..., np.ndarray]) -> None:
    values = np.array([[0, 1, 2]], np.uint16)
    film = dicom(values, BitsStored=12, VOILUTSequence=table(0, 16, [0, 819, 4095]))
    assert shown(film).tolist() == [[0, 51, 255]]


def test_table_with_a_negative_start(shown: Callable[..., np.ndarray]) -> None:
    values = np.array([[-3, -2, -1, 0]], np.int16)
    film = dicom(values, VOILUTSequence=table(-2, 8, [10, 20, 255]))
    assert shown(film).tolist() == [[10, 10, 20, 255]]


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


# --- refused files -----------------------------------------------------------------------------

FILM = rng.integers(0, 4096, (8, 8)).astype(np.uint16)


@pytest.mark.parametrize(
    ("film", "says"),
    [
        (dicom(FILM, PixelData=None), "expected a DICOM image, found no PixelData"),
        (dicom(FILM, Rows=None), "expected a DICOM image, found no Rows"),
        (dicom(FILM, Rows=60000, Columns=60000), "60000 x 60000 pixels is above the limit"),
        (dicom(FILM, NumberOfFrames=2), "expected a DICOM file of one frame, found several"),
        (dicom(FILM, PhotometricInterpretation="PALETTE COLOR"), "found palette or other colours"),
        (dicom(FILM.astype(np.uint32)), "1 to 16 bits per pixel, found 32"),
        (dicom(FILM, Rows=9), r"ends too early, or its header states too many pixels: expected \d+ bytes"),
        (dicom(FILM, Columns=9, BitsAllocated=32), "its header states too many pixels"),
        (dicom(FILM, WindowCenter=-5000, WindowWidth=10), "window shows none of the film"),
        (dicom(FILM, RescaleSlope=0, RescaleIntercept=5), "shows none of the film"),
        (dicom(FILM, DeflatedExplicitVRLittleEndian), "a deflated DICOM file"),
        (dicom(FILM, VOILUTFunction="OTHER", WindowCenter=9, WindowWidth=9), "expected LINEAR, .*, found another"),
        (dicom(FILM, BitsAllocated=24), "expected 16 or 32 as BitsAllocated .* BitsStored is 16, found 24"),
        (dicom(FILM, SamplesPerPixel=2, PhotometricInterpretation="RGB"), "expected 1 or 3 as SamplesPerPixel"),
        (dicom(FILM, PixelRepresentation=7), "expected 0 or 1 as PixelRepresentation"),
        (dicom(FILM, PhotometricInterpretation="CMYK"), "found palette or other colours"),
    ],
)
def test_refused(tmp_path: Path, film: Dataset, says: str) -> None:
    path = tmp_path / "film.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(encode(film))
        with pytest.raises(RadiographError, match=says) as caught:
            read_radiograph(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "Doe" not in str(caught.value)
    assert caught.value.__suppress_context__


CONTRADICTIONS = {
    "Rows": [1, 7, 9, 64, 4000],
    "Columns": [1, 9, 64],
    "BitsAllocated": [8, 12, 32],
    "BitsStored": [1, 7, 13, 20],
    "HighBit": [0, 3, 15, 40],
    "SamplesPerPixel": [3],
    "PixelRepresentation": [1],
    "PlanarConfiguration": [0, 1, 5],
    "PhotometricInterpretation": ["RGB", "YBR_FULL_422", "MONOCHROME1", "PALETTE COLOR", "YBR_ICT", ""],
    "NumberOfFrames": [0, 1, 3],
    "WindowCenter": [[1, 2], [3]],
    "WindowWidth": [0, -4, [5, 6], 1e300],
    "RescaleSlope": [0, -1, 1e300],
    "RescaleIntercept": ["-1e300"],
    "PixelPaddingValue": [0, 4000],
    "PixelPaddingRangeLimit": [9],
    "VOILUTFunction": ["SIGMOID", "LINEAR_EXACT", "x"],
}
"""Values of elements, most of which contradict the other elements of `FILM`."""


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_whole_file_of_contradictions_is_not_to_be_downloaded_again(data: st.DataObject) -> None:
    film = dicom(np.tile(FILM, (5, 5)), BitsStored=12)
    if (syntax := data.draw(st.sampled_from([None, RLELossless, JPEG2000Lossless]))) is not None:
        film.compress(syntax)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        for name in data.draw(st.lists(st.sampled_from(sorted(CONTRADICTIONS)), min_size=1, max_size=3, unique=True)):
            setattr(film, name, data.draw(st.sampled_from(CONTRADICTIONS[name])))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "film").write_bytes(encode(film))
            found = attempt(Path(folder, "film"))
    if isinstance(found, str):
        assert "download" not in found
        assert any(advice in found for advice in ("export it again", "export it with", "save")), found
    else:
        assert np.asarray(found).dtype == np.uint8


def test_video_is_refused(tmp_path: Path) -> None:
    data = encode(dicom(FILM)).replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.9\0")
    (tmp_path / "film").write_bytes(data)
    with pytest.raises(
        RadiographError, match="DICOM file in a standard image compression, found video or a private one"
    ):
        read_radiograph(tmp_path / "film")


def test_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom.pixels

    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *_: pytest.fail("was decoded"))
    (tmp_path / "film").write_bytes(encode(dicom(FILM, Rows=8193, Columns=MAX_PIXELS // 8192)))
    with pytest.raises(RadiographError, match="above the limit"):
        read_radiograph(tmp_path / "film")


OVERWRITTEN = "JPEG2000-embedded-sequence-delimiter.dcm"


def flat_jpeg_2000(width: int, height: int) -> bytes:
    """A complete codestream of 64 x 64 pixels whose header states another size, for the image and its only tile."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG2000", no_jp2=True)
    return restated(buffer.getvalue(), width, height)


def restated(codestream: bytes, width: int, height: int) -> bytes:
    """Replace Xsiz and Ysiz (offset 8) and XTsiz and YTsiz (offset 24) of the SIZ marker segment."""
    size = struct.pack(">II", width, height)
    return codestream[:8] + size + codestream[16:24] + size + codestream[32:]


def jpeg(width: int, height: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def packed(frame: bytes, syntax: str, size: int = 64) -> bytes:
    film = dicom(np.zeros((size, size), np.uint8), PixelData=encapsulate([frame]))
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = syntax
    return encode(film)


@pytest.mark.parametrize(
    ("frame", "syntax", "says"),
    [
        (flat_jpeg_2000(9000, 9000), JPEG2000Lossless, "9000 x 9000 pixels is above the limit"),
        (
            flat_jpeg_2000(100, 64),
            JPEG2000Lossless,
            "expected 64 x 64 x 1 pixels, as in the DICOM header, found a compressed image of 100 x 64 x 1",
        ),
        (jpeg(9000, 9000), JPEGBaseline8Bit, "9000 x 9000 pixels is above the limit"),
        (
            jpeg(64, 100),
            JPEGBaseline8Bit,
            "expected 64 x 64 x 1 pixels, as in the DICOM header, found a compressed image of 64 x 100 x 1",
        ),
        (jpeg(9000, 9000), JPEG2000Lossless, "9000 x 9000 pixels is above the limit"),
        (b"\xff\xd8\xff\xd8" + jpeg(64, 64), JPEGBaseline8Bit, "found a contradiction or damaged data"),
        (b"\0\0" + jpeg(64, 64), JPEGBaseline8Bit, "found a contradiction or damaged data"),
        (jpeg(64, 64)[:30], JPEGBaseline8Bit, "found a contradiction or damaged data"),
    ],
)
def test_a_compressed_bomb_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: bytes, syntax: str, says: str
) -> None:
    import pydicom.pixels

    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *_, **__: pytest.fail("was decoded"))
    (tmp_path / "film").write_bytes(packed(frame, syntax))
    with pytest.raises(RadiographError, match=says):
        read_radiograph(tmp_path / "film")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": "a" * 999}, {"exif": b"Exif\0\0" + jpeg(9, 9)}]
)
def test_a_jpegs_own_size_is_found(shown: Callable[..., np.ndarray], options: dict[str, Any]) -> None:
    assert frame_size(jpeg(70, 30, **options)) == (70, 30, 1)
    assert not shown(packed(jpeg(64, 64, **options), JPEGBaseline8Bit)).any()


@pytest.mark.parametrize("no_jp2", [True, False])
def test_a_jpeg_2000s_own_size_is_found(no_jp2: bool) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (70, 30)).save(buffer, "JPEG2000", no_jp2=no_jp2, offset=(5, 6), tile_size=(80, 40))
    assert frame_size(buffer.getvalue()) == (70, 30, 3)


def test_a_films_frame_is_of_the_size_it_tells() -> None:
    """On the sample files of pydicom. One is skipped: its size was overwritten, and no decoder can read it."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    syntaxes = {*JPEGTransferSyntaxes, *JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes}
    found = 0
    for path in sorted(folder.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            film = pydicom.dcmread(path, force=True)
        syntax = film.get("file_meta", {}).get("TransferSyntaxUID", "")
        if "PixelData" not in film or syntax not in syntaxes or path.name == OVERWRITTEN:
            continue
        frame = get_frame(film.PixelData, 0, number_of_frames=int(film.get("NumberOfFrames", 1)))
        assert frame_size(frame) == (film.Columns, film.Rows, film.SamplesPerPixel), path.name
        found += 1
    assert found or not list(folder.glob("*jp2k*"))


def test_missing_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film").write_bytes(encode(dicom(FILM)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(RadiographError, match=r"film: a DICOM file; .*pip install 'c2l-models\[dicom\]'"):
        read_radiograph(tmp_path / "film")


def test_missing_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels import get_decoder

    data = encode(dicom(FILM)).replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.5\0")
    (tmp_path / "film").write_bytes(data)
    monkeypatch.setattr(get_decoder("1.2.840.10008.1.2.5"), "_available", {})
    with pytest.raises(RadiographError, match=r"compressed with RLE Lossless; .*c2l-models\[dicom\]"):
        read_radiograph(tmp_path / "film")


def test_no_text_comes_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "film"
    path.write_bytes(encode(dicom(FILM, BitsStored=12)))
    with caplog.at_level(logging.DEBUG):
        image = read_radiograph(path)
    assert NAME.encode() in path.read_bytes()
    assert "Doe" not in caplog.text + repr(vars(image))


# --- compressed ----------------------------------------------------------------------------------


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


# --- damaged and real files ---------------------------------------------------------------------------


def _valid() -> list[bytes]:
    plain = dicom(FILM, BitsStored=12, WindowCenter=2000, WindowWidth=900, RescaleSlope=1, RescaleIntercept=0)
    lut = dicom(FILM, ImplicitVRLittleEndian, BitsStored=12, VOILUTSequence=table(0, 12, list(range(64))))
    films = [encode(plain), encode(lut), encode(plain)[132:]]
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ("SC_rgb_small_odd_jpeg.dcm", "MR_small_RLE.dcm", "JPEGLSNearLossless_08.dcm")
    return films + [(folder / name).read_bytes() for name in names if (folder / name).exists()]


VALID = _valid()
places = st.floats(0, 1, exclude_max=True)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(places, st.integers(0, 255)), max_size=5),
    st.one_of(st.just(1.0), places),
)
def test_damaged_files_give_an_image_or_a_radiograph_error(
    data: bytes, flips: list[tuple[float, int]], keep: float
) -> None:
    changed = bytearray(data)
    for place, byte in flips:
        changed[int(place * len(data))] = byte
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "film")
        path.write_bytes(changed[: round(keep * len(data))])
        outcome = attempt(path)
    if isinstance(outcome, str):
        assert outcome.startswith(f"{path}: ")
        assert "Doe" not in outcome
    else:
        assert outcome.mode == "L"


def attempt(path: Path) -> Image.Image | str:
    try:
        return read_radiograph(path)
    except RadiographError as error:
        return str(error)


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
