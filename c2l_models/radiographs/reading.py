"""Any radiograph file -> one eight-bit channel: PNG, JPEG, TIFF, BMP and DICOM, told apart by content.

No text of a file (names, comments, EXIF) leaves this module: not in the image, not in an error.
"""

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from ..errors import RadiographError
from .dicom import read_dicom
from .failures import MachineError, system_error
from .pixels import MAX_PIXELS, WIDE_MODES, check_pixels, square, to_grey

MAX_BYTES = 2**29
"""The largest file whose bytes `read_file` gives: eight for each of `MAX_PIXELS`."""

REDUCTION = 2
"""A JPEG that `decode_square` reduces keeps at least this many pixels to one of the square."""


CUT_OFF = ("truncated", "less than expected")
"""Words of Pillow's and of pydicom's errors for a file that ends too early."""

NO_DECODER = "not available"
"""Words of Pillow's error where it was built without the library that a file needs."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def read_radiograph(path: str | os.PathLike[str]) -> Image.Image:
    """Read one film as a PIL image of mode "L", without metadata.

    8-bit values come as they are stored; 16-bit, float and signed ones through `to_eight_bits`.
    Colour becomes luminance, transparency shows black, EXIF orientation is applied, white-is-zero
    TIFF is inverted. DICOM is shown as `c2l_models.radiographs.dicom.read_dicom` says; the file's extension
    does not matter. A file of several frames is refused, for a radiograph has one (the preview
    inside a phone's JPEG is ignored).

    Raises `RadiographError`, which names the file and what is wrong: missing, not a file, empty,
    truncated, damaged, above `MAX_PIXELS`, or none of the formats; `MachineError` where the machine, not the
    file, is to blame.
    """
    try:
        with _open(Path(path)) as file:
            return _read(file)
    except RadiographError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of one file, read once, for a caller who also hashes what `decode_square` shows.

    Raises `RadiographError`, which does not name the file: missing, no regular file, not to be read, larger
    than `MAX_BYTES`, or written to meanwhile; `MachineError` where the machine, not the file, is to blame.
    """
    with _open(Path(path)) as file:
        try:
            before = os.fstat(file.fileno())
            if before.st_size > MAX_BYTES:
                raise RadiographError(f"a file of {before.st_size:,} bytes is above the limit of {MAX_BYTES:,}")
            data = file.read()
            after = os.fstat(file.fileno())
        except OSError as error:
            raise system_error("cannot be read", error) from None
    if (before.st_size, before.st_mtime_ns) != (len(data), after.st_mtime_ns):
        raise RadiographError("the file changed while it was read")
    return data


def decode_square(data: bytes, size: int) -> Image.Image:
    """`square(image, size)` of the radiograph in a file's bytes; a large JPEG is decoded at reduced scale.

    Of a JPEG the decoder makes 1/2, 1/4 or 1/8 of the pixels a side, as few as leave `REDUCTION` times `size`
    on the shorter side (one that EXIF turns is decoded in full). Against `square` of the full decode, on 16
    chest films of 1024 to 3000 pixels at qualities 75 and 95 and sizes 128 to 256: a film's mean difference is
    0.36 grey levels at most, its largest 14 to 18, at the edges of burnt-in letters; half of what resizing
    bicubically instead would change. With one pixel to one it would be 80. Every other file gives the same pixels.

    Raises `RadiographError` as `read_radiograph` does, without the name of a file.
    """
    return _read(BytesIO(data), size)


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise RadiographError("a folder, where the file of one radiograph was wanted")
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise RadiographError("not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        raise RadiographError("no such file") from None
    except OSError as error:
        raise system_error("cannot be opened", error) from None
    except ValueError:
        raise RadiographError("cannot be opened: not a valid path") from None


def _read(file: BinaryIO, size: int | None = None) -> Image.Image:
    """The film in a file; given a size, as the square of this side."""
    # What Pillow and pydicom raise on damaged input is open-ended (struct.error, SyntaxError,
    # KeyError, ...) and may quote the file's text: so all of it is caught, and only its kind told.
    try:
        head = file.read(132)
        file.seek(0)
        if not head:
            raise RadiographError("the file is empty")
        if _is_dicom(head):
            film = Image.fromarray(read_dicom(file))
            return film if size is None else square(film, size)
        return _read_image(file, size)
    except RadiographError:
        raise
    except UnidentifiedImageError:
        raise RadiographError("not a PNG, JPEG, TIFF, BMP or DICOM file, or one whose header is damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RadiographError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise MachineError("not enough memory to decode it") from None
    except ImportError as error:
        raise MachineError(f"the library that decodes it cannot be loaded: {error.name}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise system_error("cannot be read", error) from None
        if isinstance(error, OSError) and NO_DECODER in str(error):
            raise MachineError("this machine's Pillow was built without the library that decodes it") from None
        cut_off = isinstance(error, EOFError) or any(sign in str(error).lower() for sign in CUT_OFF)
        reason = "the file ends too early" if cut_off else "its data are damaged or of an unknown kind"
        raise RadiographError(
            f"{reason} ({type(error).__name__}). Copy or download it again, or save it as PNG"
        ) from None


def _is_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are DICOM's, with or without the preamble.

    Without it a file starts with its first element, of group 0002 or 0008, little endian; no
    other format here starts so.
    """
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def _read_image(file: BinaryIO, size: int | None) -> Image.Image:
    with _open_image(file) as image:
        extent = _reduce(image, size) if size else None
        layout = str(image.tile[0][3]) if image.tile else ""
        image.load()
        if ";16" in layout and image.mode not in WIDE_MODES:
            _check_upper_bytes(image)
        ImageOps.exif_transpose(image, in_place=True)
        grey = to_grey(image)
        if _is_still_negative(image):
            grey = ImageOps.invert(grey)
    grey = grey if size is None else square(grey, size, extent)
    grey.info = {}
    return grey


def _open_image(file: BinaryIO) -> ImageFile.ImageFile:
    image = Image.open(file, formats=FORMATS)
    check_pixels(*image.size)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise RadiographError(f"holds {frames} frames; save the wanted one as a file of its own")
    if image.format == "JPEG":
        return image
    if image.format == "PNG":
        image.verify()  # decoding alone does not look at the checksums
    file.seek(0)  # verifying and counting frames leave an image elsewhere
    return Image.open(file, formats=FORMATS)


def _reduce(image: ImageFile.ImageFile, size: int) -> tuple[float, float] | None:
    """Have a JPEG decoded no finer than a square of `size` needs; the film's width and height in the result."""
    if image.format != "JPEG" or image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    reduced = image.draft(None, (REDUCTION * size, REDUCTION * size))
    return (reduced[1][2], reduced[1][3]) if reduced else None


def _is_still_negative(image: Image.Image) -> bool:
    """Whether it is a white-is-zero TIFF that Pillow left so: it inverts 1 to 8 bits only."""
    white_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    return white_is_zero and image.mode in WIDE_MODES


def _check_upper_bytes(image: Image.Image) -> None:
    """Of 16-bit colour Pillow keeps the upper bytes: right at full scale, nearly black below 14 bits."""
    if np.asarray(image.convert("RGB")).max() < 2**6:
        raise RadiographError(
            "16-bit colour that uses 14 bits or fewer, of which only the upper 8 can be read. "
            "Save it as 16-bit grayscale or as 8-bit"
        )
