"""DICOM files that are refused: contradictions, bombs, video, missing decoders, damage."""

import io
import logging
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import FILM, NAME, attempt, dicom, encode, exposure, table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from c2l_models.errors import RadiographError
from c2l_models.radiographs.jpeg_header import frame_size
from c2l_models.radiographs.pixels import MAX_PIXELS
from c2l_models.radiographs.reading import read_radiograph

pydicom = pytest.importorskip("pydicom")
from pydicom import Dataset  # noqa: E402
from pydicom.encaps import encapsulate, get_frame  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

pytestmark = pytest.mark.usefixtures("quiet")


def test_values_of_more_than_sixteen_bits_are_refused(tmp_path: Path) -> None:
    film = dicom((exposure(0, 100_000)).astype(np.uint32), BitsStored=16)
    (tmp_path / "film").write_bytes(encode(film))
    with pytest.raises(RadiographError, match="expected DICOM pixel values of 16 bits"):
        read_radiograph(tmp_path / "film")


@pytest.mark.parametrize("header", [b"", encode(dicom(np.zeros((9, 9), np.uint16)))[132:-200]])
def test_a_file_filled_with_zeros_is_refused_early(shown: Callable[..., np.ndarray], header: bytes) -> None:
    """Parsing one element per 8 zeros would take minutes for these 40 MB."""
    data = bytes(128) + b"DICM" + header[: header.find(b"\x28\x00\x10\x00")] + bytes(40_000_000)
    with pytest.raises(RadiographError, match="its end is zeros"):
        shown(data)


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
