"""Small DICOM files that would fill the memory: refused before anything is inflated or expanded."""

import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from dicom_files import FILM, dicom, encode

from c2l_models.errors import RadiographError

pydicom = pytest.importorskip("pydicom")
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless  # noqa: E402

pytestmark = pytest.mark.usefixtures("quiet")


def element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of the file meta information, explicit VR, little endian."""
    length = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 2, number) + vr + length + value


@pytest.mark.parametrize("preamble", [bytes(128) + b"DICM", b""])
@pytest.mark.parametrize("before", [2, 5000])
def test_a_deflated_file_is_refused_wherever_its_transfer_syntax_is(
    shown: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, preamble: bytes, before: int
) -> None:
    deflated = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    elements = deflated.compress(bytes(10_000_000)) + deflated.flush()
    monkeypatch.setattr(zlib, "decompress", lambda *_, **__: pytest.fail("was inflated"))
    meta = element(1, b"OB", bytes(before)) + element(0x10, b"UI", DeflatedExplicitVRLittleEndian.encode())
    with pytest.raises(RadiographError, match="a deflated DICOM file, which is not supported"):
        shown(preamble + meta + elements)


def test_the_name_of_the_transfer_syntax_in_another_element_refuses_nothing(shown: Callable[..., np.ndarray]) -> None:
    film = dicom(FILM, StudyDescription=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(shown(film), shown(dicom(FILM)))


def rle(runs: bytes, side: int) -> bytes:
    film = dicom(np.zeros((side, side), np.uint8))
    film.PixelData = encapsulate([struct.pack("<16L", 1, 64, *[0] * 14) + runs])
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = RLELossless
    return encode(film)


def test_an_rle_frame_longer_than_any_encoding_of_its_pixels_is_refused(
    shown: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest encoding has a run of one byte per pixel: two bytes."""
    values = np.arange(64, dtype=np.uint8)
    longest = b"".join(bytes([0, value]) for value in values)
    np.testing.assert_array_equal(shown(rle(longest, 8)), values.reshape(8, 8))
    import pydicom.pixels

    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *_, **__: pytest.fail("was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bomb = rle(b"\x81\x00" * 500_000, 8)
    with pytest.raises(RadiographError, match=r"expected a compressed image of at most 192 bytes .*, found 1,000,064"):
        shown(bomb)
