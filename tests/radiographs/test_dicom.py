"""DICOM files: against the formulas of the standard, one value at a time, and small arrays by hand."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import attempt, dicom, encode, exposure, grey, table
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.eight_bits import scaled
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.reading import read_radiograph

pydicom = pytest.importorskip("pydicom")
from pydicom.uid import (  # noqa: E402
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

pytestmark = pytest.mark.usefixtures("quiet")
rng = np.random.default_rng(0)


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


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("representation", ["SS", "US"])
def test_padding_may_be_written_with_the_other_sign(
    shown: Callable[..., np.ndarray], dtype: type, representation: str
) -> None:
    values = exposure(600, 3500)
    padded = values.astype(dtype)
    padded[0] = np.arange(-2000, -1920).astype(dtype)
    film = dicom(padded)
    for tag, end in ((0x00280120, -2000), (0x00280121, -1900)):
        film.add_new(tag, representation, end if representation == "SS" else end + 2**16)
    assert np.abs(shown(film)[1:] - scaled(values[1:])).max() <= 0.501


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


def test_the_first_valid_window_is_applied(shown: Callable[..., np.ndarray]) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = shown(dicom(ramp, WindowCenter=100, WindowWidth=50))
    assert not np.array_equal(expected, ramp)
    assert np.array_equal(shown(dicom(ramp, WindowCenter=["100", ""], WindowWidth=["50", "", ""])), expected)
    two = {"WindowCenter": [0, 100, 9], "WindowWidth": [0, 50, 9]}
    assert np.array_equal(shown(dicom(ramp, **two)), expected)
    assert np.array_equal(shown(dicom(ramp, WindowCenter=[100, 9], WindowWidth=[50, 9])), expected)


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


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_negative_start_without_a_sign(shown: Callable[..., np.ndarray], syntax: str) -> None:
    """The pixels have no sign, so pydicom reads an implicit VR without one, although the rescaled values have one."""
    values = np.array([[0, 1, 2, 3]], np.uint16)
    voi = table(2**16 - 2, 8, [10, 20, 255], words=True)
    film = dicom(values, syntax, BitsStored=12, RescaleSlope=1, RescaleIntercept=-3, VOILUTSequence=voi)
    assert shown(film).tolist() == [[10, 10, 20, 255]]
