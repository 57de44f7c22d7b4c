"""Decode a radiograph file to one 8-bit grayscale image. PNG, JPEG, TIFF and BMP here, DICOM in `dicom`.

The format is recognized by content. No text of a file (names, comments, EXIF) is kept in the image or quoted in an
error.
"""

import errno
import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, ImagePalette, UnidentifiedImageError
from PIL.TiffImagePlugin import COLORMAP, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from ..errors import MachineError, RadiographError
from .dicom import read_dicom
from .listing import TIFF_HEADS
from .pixels import MAX_PIXELS, WIDE_MODES, check_pixels, square, to_eight_bits, to_grey

MAX_BYTES = 2**29
"""Largest file that is read: eight bytes for each of `MAX_PIXELS`."""

REDUCTION = 2
"""`decode_square` decodes a JPEG at no less than this multiple of the square's side."""

FILE_ERRORS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ),
    *(errno.EACCES, errno.EPERM, errno.ENXIO),
)
"""Errors of the operating system that concern the file. All others concern the machine."""

TRUNCATED = ("truncated", "less than expected")
"""Words in Pillow's and pydicom's errors for a file that ends too early."""

NO_DECODER = "not available"
"""Words in Pillow's error if it was built without the library that a file needs."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def read_radiograph(path: str | os.PathLike[str]) -> Image.Image:
    """Read a radiograph file as a PIL image of mode "L", without metadata.

    - 8-bit values stay as stored. Values of 16 and 32 bits, signed and float values are scaled by the table of
      `pixels.to_eight_bits`.
    - Colour, palettes and CMYK become luminance, and transparent pixels black. Of 16-bit colour the upper bytes are
      read; if they are nearly empty, the file is refused.
    - EXIF orientation is applied. A white-is-zero TIFF is inverted.
    - DICOM is rendered as in `dicom.read_dicom`, whatever the file's extension.
    - A file of several frames is refused, except for a JPEG from a phone: its preview is ignored.

    Raises:
        RadiographError: the file is missing, not a regular file, empty, truncated, damaged, larger than `MAX_PIXELS`
            or `MAX_BYTES`, or of another format. The message names the file.
        MachineError: the file cannot be read on this machine: disk failure, too little memory, no decoder.
    """
    try:
        with _open(Path(path)) as file:
            return _decode(file)
    except RadiographError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of a file once, to hash them and to decode them with `decode_square`.

    Raises:
        RadiographError: the file is missing, not a regular file, not readable, larger than `MAX_BYTES`, or was written
            to during the read. The message does not name the file.
        MachineError: the file cannot be read on this machine.
    """
    with _open(Path(path)) as file:
        try:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
        except OSError as error:
            raise _system_error("cannot be read", error) from None
    if (before.st_size, before.st_mtime_ns) != (len(data), after.st_mtime_ns):
        raise RadiographError("the file changed while it was read")
    return data


def decode_square(data: bytes, size: int) -> Image.Image:
    """Decode the bytes of a radiograph file to `square(image, size)`; a large JPEG is decoded at reduced scale.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its side, the smallest that leaves `REDUCTION` times `size` on the shorter
    side. A JPEG that EXIF rotates is decoded in full. All other files give the same pixels as a full decode.

    Difference to `square` of the full decode, on 16 chest films of 1024 to 3000 pixels, qualities 75 and 95, sizes 128
    to 256: mean 0.36 grey levels or less per film; largest 14 to 18, at the edges of burnt-in letters. Bicubic instead
    of bilinear resizing would change twice as much; `REDUCTION = 1` would give a largest difference of 80.

    Raises as `read_radiograph`; the message does not name a file.
    """
    return _decode(BytesIO(data), size)


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise RadiographError("expected the file of one radiograph, found a folder")
        if path.exists() and not path.is_file():  # Opening a pipe would wait forever.
            raise RadiographError("not a regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise RadiographError(
                f"expected a file of at most {MAX_BYTES:,} bytes, found {size:,}; if the film is that large, save a "
                "smaller copy"
            )
        return path.open("rb")
    except FileNotFoundError:
        raise RadiographError("no such file") from None
    except OSError as error:
        raise _system_error("cannot be opened", error) from None
    except ValueError:
        raise RadiographError("cannot be opened: not a valid path") from None


def _system_error(problem: str, error: OSError) -> RadiographError:
    """The error to raise for an error of the operating system, either of the file or of the machine."""
    kind = RadiographError if error.errno in FILE_ERRORS else MachineError
    return kind(f"{problem}: {error.strerror}")


def _decode(file: BinaryIO, size: int | None = None) -> Image.Image:
    """Decode an open file; with a size, to the square of this side."""
    # On damaged input Pillow and pydicom raise errors of any type (struct.error, SyntaxError, KeyError, ...), which may
    # quote the file's text. So every error is caught, and only its type is reported.
    try:
        head = file.read(132)
        file.seek(0)
        if not head:
            raise RadiographError("the file is empty")
        if _is_dicom(head):
            image = Image.fromarray(read_dicom(file))
            return image if size is None else square(image, size)
        return _decode_image(file, size)
    except RadiographError:
        raise
    except UnidentifiedImageError:
        if head[:4] in TIFF_HEADS:
            raise RadiographError(
                "expected a TIFF file of a common kind of pixels, found another or a damaged header; save it as 8-bit "
                "or 16-bit grayscale"
            ) from None
        raise RadiographError("not a PNG, JPEG, TIFF, BMP or DICOM file, or one whose header is damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RadiographError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise MachineError("not enough memory to decode it") from None
    except ImportError as error:
        raise MachineError(f"the library that decodes it cannot be loaded: {error.name}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise _system_error("cannot be read", error) from None
        if isinstance(error, OSError) and NO_DECODER in str(error):
            raise MachineError("this machine's Pillow was built without the library that decodes it") from None
        truncated = isinstance(error, EOFError) or any(words in str(error).lower() for words in TRUNCATED)
        name = type(error).__name__
        if _is_dicom(head) and not truncated:  # such a file may be whole
            raise RadiographError(
                f"expected a DICOM file whose elements agree, found a contradiction or damaged data ({name}); export "
                "it again, or copy it again if the copy is not complete"
            ) from None
        reason = "the file ends too early" if truncated else "its data are damaged or of an unknown kind"
        raise RadiographError(f"{reason} ({name}). Copy or download it again, or save it as PNG") from None


def _is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM, with or without a preamble.

    Without a preamble, the file starts with its first element, of group 0002 or 0008, little endian. None of the other
    formats starts with these bytes.
    """
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def _decode_image(file: BinaryIO, size: int | None) -> Image.Image:
    """Decode a file in one of `FORMATS`."""
    with _open_image(file) as image:
        extent = _reduce(image, size) if size else None
        layout = str(image.tile[0][3]) if image.tile else ""
        _correct_palette(image)
        image.load()
        if ";16" in layout and image.mode not in WIDE_MODES:
            _check_upper_bytes(image)
        ImageOps.exif_transpose(image, in_place=True)
        values = _misread_values(image)
        grey = to_grey(image) if values is None else Image.fromarray(to_eight_bits(values))
        if _is_still_negative(image):
            grey = ImageOps.invert(grey)
    grey = grey if size is None else square(grey, size, extent)
    grey.info = {}
    return grey


def _open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image without decoding it, after checks of its size, frames and, for a PNG, checksums."""
    image = Image.open(file, formats=FORMATS)
    check_pixels(*image.size)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # Counting the frames could take minutes.
        raise RadiographError("expected one frame, found several; save the frame that you need as a separate file")
    if image.format == "JPEG":
        return image
    if image.format == "PNG":
        image.verify()  # Decoding alone does not check the checksums.
    file.seek(0)  # Verifying moves the position and ends the use of the image.
    return Image.open(file, formats=FORMATS)


def _reduce(image: ImageFile.ImageFile, size: int) -> tuple[float, float] | None:
    """Set a JPEG to be decoded at the coarsest scale that a square of `size` allows.

    Returns the width and height that the image content will have in the decoded image; None for a full decode.
    """
    if image.format != "JPEG" or image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    reduced = image.draft(None, (REDUCTION * size, REDUCTION * size))
    return (reduced[1][2], reduced[1][3]) if reduced else None


def _misread_values(image: Image.Image) -> np.ndarray | None:
    """The values of a TIFF that Pillow reads with the wrong sign: uint32 as int32, int8 as uint8. None for others."""
    if not isinstance(image, TiffImageFile) or image.mode not in ("I", "L"):
        return None
    signed = image.tag_v2.get(SAMPLEFORMAT, (1,)) == (2,)
    if signed == (image.mode == "I"):
        return None
    return np.asarray(image).view(np.int8 if signed else np.uint32)


def _correct_palette(image: Image.Image) -> None:
    """Replace a TIFF's palette if its colours have 8 bits: Pillow reads the upper byte of 16, so all would be black."""
    colours = image.tag_v2.get(COLORMAP, ()) if isinstance(image, TiffImageFile) and image.mode == "P" else ()
    if 0 < max(colours, default=0) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _is_still_negative(image: Image.Image) -> bool:
    """Whether the image is a white-is-zero TIFF that Pillow did not invert; Pillow inverts only 1 to 8 bits."""
    white_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    return white_is_zero and image.mode in WIDE_MODES


def _check_upper_bytes(image: Image.Image) -> None:
    """Refuse 16-bit colour of 14 bits or fewer: Pillow keeps the upper byte only, so it would be nearly black."""
    if max(np.asarray(image.getchannel(band)).max() for band in image.getbands() if band != "A") < 2**6:
        raise RadiographError(
            "16-bit colour that uses 14 bits or fewer, of which only the upper 8 can be read. "
            "Save it as 16-bit grayscale or as 8-bit"
        )
