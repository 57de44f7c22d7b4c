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
    film.HighBit = film.BitsStored - 1
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


def grey(value: int, film: Dataset) -> float:
    """Grey level, 0 to 255, of one stored value: PS3.3 C.11.1 (rescale), C.11.2.1.2 (window) and C.7.6.3.1.2."""
    low, high = 0, 2**film.BitsStored - 1
    if film.PixelRepresentation:
        low, high = -(2 ** (film.BitsStored - 1)), 2 ** (film.BitsStored - 1) - 1
    slope, intercept = film.get("RescaleSlope", 1), film.get("RescaleIntercept", 0)
    x = value * slope + intercept
    if "WindowCenter" in film:
        c, w = (v if isinstance(v, int | float) else v[0] for v in (film.WindowCenter, film.WindowWidth))
        function = film.get("VOILUTFunction", "LINEAR")
        if function == "SIGMOID":
            y = 1 / (1 + np.exp(-4 * (x - c) / w))
        elif function == "LINEAR_EXACT":
            y = 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5
        else:
            c, w = c - 0.5, w - 1
            y = 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5
    else:
        ends = sorted([low * slope + intercept, high * slope + intercept])
        y = (x - ends[0]) / (ends[1] - ends[0])
    return 255 * (1 - y if film.PhotometricInterpretation == "MONOCHROME1" else y)


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
    expected = np.array([[grey(int(value), film) for value in row] for row in values])
    assert np.abs(shown(film) - expected).max() <= 0.501


def test_window_then_inversion_by_hand(shown: Callable[..., np.ndarray]) -> None:
    """Inversion before the window would give about [255, 255, 255, 0]."""
    values = np.array([[0, 100, 150, 200, 4095]], np.uint16)
    window = {"BitsStored": 12, "WindowCenter": 150.5, "WindowWidth": 101}
    assert shown(dicom(values, **window)).tolist() == [[0, 0, 128, 255, 255]]
    inverse = shown(dicom(values, **window, PhotometricInterpretation="MONOCHROME1"))
    assert inverse.tolist() == [[255, 255, 127, 0, 0]]


def test_without_a_window_the_range_is_bits_stored(shown: Callable[..., np.ndarray]) -> None:
    values = np.array([[0, 819, 4095]], np.uint16)
    assert shown(dicom(values, BitsStored=12)).tolist() == [[0, 51, 255]]
    assert shown(dicom(values, BitsStored=16)).tolist() == [[0, 3, 16]]
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(dicom(ramp)), ramp)
    assert np.array_equal(shown(dicom(ramp, PhotometricInterpretation="MONOCHROME1")), 255 - ramp)


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


def test_unused_upper_bits_are_ignored(shown: Callable[..., np.ndarray]) -> None:
    values = np.array([[0, 819, 4095]], np.uint16)
    assert shown(dicom(values | 0xF000, BitsStored=12)).tolist() == [[0, 51, 255]]


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
        (dicom(FILM, Rows=9), "the file ends too early"),
        (dicom(FILM, WindowCenter=-5000, WindowWidth=10), "window shows none of the film"),
        (dicom(FILM, RescaleSlope=0, RescaleIntercept=5), "shows none of the film"),
        (dicom(FILM, DeflatedExplicitVRLittleEndian), "a deflated DICOM file"),
        (dicom(FILM, VOILUTFunction="OTHER", WindowCenter=9, WindowWidth=9), "damaged or of an unknown kind"),
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
        (b"\xff\xd8\xff\xd8" + jpeg(64, 64), JPEGBaseline8Bit, "damaged or of an unknown kind"),
        (b"\0\0" + jpeg(64, 64), JPEGBaseline8Bit, "damaged or of an unknown kind"),
        (jpeg(64, 64)[:30], JPEGBaseline8Bit, "damaged or of an unknown kind"),
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
