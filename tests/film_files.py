"""Random image files in every format that is read, each with the grey levels that numpy computes from its pixels."""

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from oracles.eight_bits import scaled
from PIL import Image

LUMINANCE = np.array([0.299, 0.587, 0.114])
ORIENTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}
"""What EXIF's orientations do to the stored array."""


class FilmFile(NamedTuple):
    """A file, the grey levels 0 to 255 of its pixels, [H, W], and the largest error of its compression."""

    kind: str
    data: bytes
    levels: np.ndarray
    tolerance: float = 0.501

    def __repr__(self) -> str:
        return f"{self.kind} of {self.levels.shape}"


@st.composite
def pixels(draw: st.DrawFn, kind: str, side: int | None = None) -> np.ndarray:
    """An array [H, W] of this dtype: noise between two values, a ramp, two values, or one, perhaps in a border."""
    shape = (side, side) if side else draw(st.tuples(st.integers(1, 33), st.integers(1, 33)))
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        low, high = sorted(draw(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2)))
    else:
        limits = np.iinfo(dtype)
        low, high = sorted(draw(st.tuples(*[st.integers(limits.min, limits.max)] * 2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = {
        "noise": rng.random(shape),
        "ramp": np.linspace(0, 1, shape[0] * shape[1]).reshape(shape),
        "two values": rng.integers(0, 2, shape).astype(float),
        "constant": np.zeros(shape),
    }[draw(st.sampled_from(["noise", "noise", "ramp", "two values", "constant"]))]
    if draw(st.booleans()):
        share[: shape[0] // 5] = share[:, : shape[1] // 4] = draw(st.sampled_from([0.0, 1.0]))
    values = low * (1 - share) + high * share
    return (values if dtype.kind == "f" else np.rint(values).clip(low, high)).astype(kind)


def tiff(array: np.ndarray, photometric: int = 1, bits: int | None = None, signed: int = 1, more: tuple = ()) -> bytes:
    """The bytes of an uncompressed TIFF file with one strip, in the byte order of the array."""
    big = array.dtype.byteorder == ">"
    order, data = (">" if big else "<"), array.tobytes()
    tags = [
        (256, array.shape[1]),
        (257, array.shape[0]),
        (258, bits or array.dtype.itemsize * 8),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, array.shape[0]),
        (279, len(data)),
        (339, signed),
    ]
    tags += more
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    header = struct.pack(f"{order}2sHI", b"MM" if big else b"II", 42, 8 + len(data))
    return header + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(array: np.ndarray) -> np.ndarray:
    """The levels of an array as `pixels.to_eight_bits` describes them, without rounding."""
    if array.dtype == np.uint8:
        return array.astype(float)
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return array * 255.0
    return scaled(array)


@st.composite
def png(draw: st.DrawFn, side: int | None = None) -> FilmFile:
    mode = draw(st.sampled_from(["L", "I;16", "1", "P", "RGB", "RGBA", "LA"]))
    if mode == "I;16":
        array = draw(pixels("uint16", side))
        return FilmFile("PNG I;16", saved(Image.fromarray(array), "PNG"), grey(array))
    return _eight_bits(draw, "PNG", mode, side)


@st.composite
def bmp(draw: st.DrawFn, side: int | None = None) -> FilmFile:
    return _eight_bits(draw, "BMP", draw(st.sampled_from(["L", "1", "P", "RGB"])), side)


def _eight_bits(draw: st.DrawFn, kind: str, mode: str, side: int | None, **options: object) -> FilmFile:
    first = draw(pixels("uint8", side))
    channels = [first, *(np.roll(first, 7 * i, i % 2) ^ np.uint8(37 * i) for i in (1, 2, 3))]
    name = f"{kind} {mode} {options.get('compression', '')}".strip()
    if mode == "1":
        return FilmFile(name, saved(Image.fromarray(first > 99), kind, **options), (first > 99) * 255.0)
    if mode == "L":
        return FilmFile(name, saved(Image.fromarray(first), kind, **options), first.astype(float))
    if mode == "P":
        palette = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 3], 1).astype(np.uint8)
        image = Image.frombytes("P", first.shape[::-1], first.tobytes())
        image.putpalette(palette.tobytes())
        return FilmFile(name, saved(image, kind, **options), palette[first] @ LUMINANCE, 1)
    stacked = np.stack(channels[: len(mode)], -1)
    colour = stacked[..., :3] @ LUMINANCE if mode.startswith("RGB") else first.astype(float)
    alpha = stacked[..., -1] / 255 if mode.endswith("A") else 1.0
    return FilmFile(name, saved(Image.fromarray(stacked), kind, **options), colour * alpha, 1.6)


@st.composite
def jpeg(draw: st.DrawFn, side: int | None = None) -> FilmFile:
    array, turn = draw(pixels("uint8", side)), draw(st.integers(1, 8))
    options: dict[str, object] = {"quality": 100, "subsampling": 0, "progressive": draw(st.booleans())}
    exif = Image.Exif()
    exif[274] = turn
    colour = draw(st.booleans())
    image = Image.fromarray(np.stack([array, array, array], -1) if colour else array)
    data = saved(image, "JPEG", exif=exif.tobytes(), **options)
    return FilmFile(f"JPEG {'RGB' if colour else 'L'}, turn {turn}", data, ORIENTATIONS[turn](array).astype(float), 3)


@st.composite
def tiff_file(draw: st.DrawFn, side: int | None = None) -> FilmFile:
    kind = draw(st.sampled_from(["u1", "<u2", ">u2", "<i2", ">i2", "<i4", ">i4", "<u4", "<f4", ">f4", "i1", "packed"]))
    if kind == "packed":
        compression = draw(st.sampled_from(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
        mode = draw(st.sampled_from(["L", "RGB", "RGBA", "I;16"]))
        if mode != "I;16":
            return _eight_bits(draw, "TIFF", mode, side, compression=compression)
        array = draw(pixels("uint16", side))
        data = saved(Image.fromarray(array), "TIFF", compression=compression)
        return FilmFile(f"TIFF I;16 {compression}", data, grey(array))
    array = draw(pixels(kind, side))
    inverse = kind in ("u1", "<u2") and draw(st.booleans())  # Pillow reads no big-endian ones
    sample = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    levels = array + 128.0 if kind == "i1" else grey(array)
    return FilmFile(
        f"TIFF {kind}{', white is zero' * inverse}",
        tiff(array, 0 if inverse else 1, signed=sample),
        255 - levels if inverse else levels,
    )


@st.composite
def dicom(draw: st.DrawFn, side: int | None = None) -> FilmFile:
    """8 or 9 to 16 bits, signed or not, native, RLE, JPEG 2000 or JPEG; with or without window and preamble."""
    from pydicom import Dataset, FileMetaDataset, uid
    from pydicom.encaps import encapsulate

    syntaxes = (
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "RLELossless",
        "JPEG2000Lossless",
        "JPEGBaseline8Bit",
    )
    name = draw(st.sampled_from(syntaxes))
    bits = 8 if name == "JPEGBaseline8Bit" else draw(st.sampled_from([8, 10, 12, 16]))
    signed = name.endswith("LittleEndian") and bits > 8 and draw(st.booleans())
    if name == "JPEG2000Lossless":
        side = side or 35  # the encoder takes no smaller ones
    drawn = draw(pixels("uint8" if bits == 8 else "int16" if signed else "uint16", side))
    array = drawn >> (8 * drawn.itemsize - bits) if bits > 8 else drawn
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = uid.SecondaryCaptureImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientName = film.PatientID = "Doe^Jane"
    inverse = draw(st.booleans())
    syntax = getattr(uid, name)
    if name == "JPEGBaseline8Bit":
        film.set_pixel_data(array, "MONOCHROME2", bits)
        film.PixelData = encapsulate([saved(Image.fromarray(array), "JPEG", quality=100)])
        film["PixelData"].VR = "OB"
    else:
        film.set_pixel_data(array, "MONOCHROME2", bits)
    film.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    levels = array.astype(float) if bits == 8 else scaled(array)
    if draw(st.booleans()) and np.ptp(array) > 1:
        centre, width = (int(array.min()) + int(array.max())) / 2, float(np.ptp(array))
        film.WindowCenter, film.WindowWidth = centre, width
        if width == 1:
            levels = np.where(array <= centre - 0.5, 0, 255.0)
        else:
            levels = (((array - (centre - 0.5)) / (width - 1)) + 0.5).clip(0, 1) * 255
    if name in ("RLELossless", "JPEG2000Lossless"):
        film.compress(syntax)
    else:
        film.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    # An 8-bit film with a window stretches the error of lossy compression.
    lossy = 2 * max(1.0, 255 / max(np.ptp(array), 1)) + 1 if name == "JPEGBaseline8Bit" else 0.501
    return FilmFile(f"DICOM {name} {bits}{', signed' * signed}", data, 255 - levels if inverse else levels, lossy)


FORMATS: dict[str, Callable[..., st.SearchStrategy[FilmFile]]] = {
    "PNG": png,
    "JPEG": jpeg,
    "TIFF": tiff_file,
    "BMP": bmp,
    "DICOM": dicom,
}


def films(side: int | None = None) -> st.SearchStrategy[FilmFile]:
    """A film of any format; with `side`, a square."""
    return st.one_of(*(strategy(side) for strategy in FORMATS.values()))
