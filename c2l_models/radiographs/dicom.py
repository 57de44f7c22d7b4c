"""Decode a DICOM file to uint8, as a viewer shows it: modality transform, window, polarity."""

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import MachineError, RadiographError
from .dicom_levels import OVERLAYS, find_window, grey_table, stored_values
from .jpeg_header import frame_size
from .pixels import check_pixels, scale, to_eight_bits
from .quiet_pydicom import quiet_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

REQUIRED = [
    *("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
]
NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")

TAGS: list[Any] = [
    *REQUIRED,
    *("HighBit", "NumberOfFrames", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction"),
    *NUMBERS,
    *OVERLAYS,
]
"""The only elements that are parsed. None is about the patient, so no patient data can appear in an error."""

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
MAX_READS = 100_000
"""Short reads that parsing may need. A film needs a few hundred; a file filled with zeros needs one per 8 bytes."""

RLE_HEADER = 64
"""Bytes before the runs of an RLE frame."""

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue of ITU-R BT.601, as in Pillow."""

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
INSTALL = "to read it, run: pip install 'c2l-models[dicom]'"


def read_dicom(file: BinaryIO) -> np.ndarray:
    """Decode a DICOM file, open at its start, to uint8 [H, W].

    Grayscale, in this order:

    1. Stored values, as in `stored_values`.
    2. Modality LUT; without one, rescale slope and intercept.
    3. First VOI LUT; without one, first valid window. The full scale of a VOI LUT is found from its values, because
       the bit depth in its descriptor is often wrong.
    4. Scale to 0 to 255. Without a window, up to 8 bits: the full range of BitsStored. Without a window, more bits:
       `pixels.own_range` without the padding that the file declares, so the image equals a 16-bit PNG of its values.
    5. Invert if the file is MONOCHROME1.

    RGB and YBR: luminance, from the full range of BitsStored; above 8 bits, scaled as grayscale without a window.

    Raises:
        RadiographError: no pixel data, several frames, a compressed frame whose size differs from the header,
            palette colour, more than 16 bits, a window in which all pixels come out equal, elements that contradict
            each other, or a deflated file, whose inflated size has no limit. The message does not name the file.
        MachineError: pydicom or a decoder is not installed.
        Exception: any error of pydicom for a damaged file.
    """
    try:
        from pydicom.pixels import pixel_array
    except ImportError:
        raise MachineError(f"a DICOM file; {INSTALL}") from None
    dataset = _parse(file)
    _check_elements(dataset)
    _check_frame(dataset)
    pixels = pixel_array(dataset, index=0, correct_unused_bits=False)  # the frame that was checked
    pixels, bits = stored_values(pixels, dataset)
    if dataset.SamplesPerPixel == 3:
        if bits > 8:
            return to_eight_bits(np.rint(pixels @ LUMINANCE).astype(np.int64))
        rgb = scale(pixels, 0, 2**bits - 1)
        return np.asarray(Image.fromarray(rgb).convert("L"))
    # Each step maps single values, so it is computed once per possible value, not once per pixel.
    shown = grey_table(dataset, pixels, bits)[pixels]
    if shown.min() == shown.max() and pixels.min() != pixels.max():
        has_window = find_window(dataset) is not None
        cause = "VOI LUT" if "VOILUTSequence" in dataset else "window" if has_window else "rescale or LUT"
        raise RadiographError(
            f"a DICOM file whose {cause} shows none of the film: all pixels come out equal; export it with another "
            f"{cause}"
        )
    return shown


def _parse(file: BinaryIO) -> "Dataset":
    """Parse the elements of `TAGS`, drop the empty ones, and set the transfer syntax if the file has none."""
    from pydicom import dcmread, uid

    quiet_pydicom()
    dataset = dcmread(LimitedReads(file), force=True, specific_tags=TAGS)
    _correct_decimal_commas(dataset)
    for element in list(dataset):
        if element.is_empty:
            del dataset[element.tag]
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little_endian = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


class LimitedReads:
    """A file that raises `RadiographError` after `MAX_READS` short reads, or if it is read to its end at once.

    pydicom takes zeros for empty elements and reads them one by one, a second for 2 MB. It reads to the end only to
    inflate the elements, after it has parsed a deflated transfer syntax.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As the file's `read`."""
        if size < 0:
            raise RadiographError("a deflated DICOM file, which is not supported; export it uncompressed")
        if size < 64:
            self.left -= 1
            if self.left < 0:
                raise RadiographError(
                    f"expected a DICOM header of a few hundred elements, found more than {MAX_READS // 2:,}; the file "
                    "was probably not written completely, and its end is zeros. Copy it again"
                )
        return self.file.read(size)


def _correct_decimal_commas(dataset: "Dataset") -> None:
    """Write decimal commas as points, and drop empty values at the end (`4096\\`), neither of which pydicom can read.

    Raises `RadiographError` for text that is no number.
    """
    for name in (*NUMBERS, "NumberOfFrames"):
        if name in dataset:
            raw: Any = dataset.get_item(name)
            if isinstance(raw.value, bytes):
                dataset[name] = raw._replace(value=raw.value.replace(b",", b".").rstrip(b"\\ \0"))
            try:
                if not dataset[name].is_empty:
                    np.asarray(dataset[name].value).astype(np.float64)
            except (TypeError, ValueError):
                raise RadiographError(
                    f"expected a number as {name} of a DICOM file, found other text; correct or remove the element"
                ) from None


def _check_elements(dataset: "Dataset") -> None:
    """Raise `RadiographError` unless the file has one frame of 1 to 16 bits that can be decoded on this machine."""
    from pydicom.pixels import get_decoder

    missing = [name for name in REQUIRED if name not in dataset]
    if missing:
        raise RadiographError(
            f"expected a DICOM image, found no {missing[0]}; choose another file, export it again, or copy it again if "
            "the copy is not complete"
        )
    check_pixels(dataset.Columns, dataset.Rows)
    if dataset.get("NumberOfFrames") == 0:  # Some writers use 0 for a single frame.
        del dataset.NumberOfFrames
    if dataset.get("NumberOfFrames", 1) != 1:
        raise RadiographError(
            "expected a DICOM file of one frame, found several; save the frame that you need as a separate file"
        )
    if not 1 <= dataset.BitsStored <= 16:
        raise RadiographError(
            f"expected a DICOM file of 1 to 16 bits per pixel, found {dataset.BitsStored}; export it again"
        )
    allowed = {
        "BitsAllocated": [n for n in (1, 8, 16, 32) if n >= dataset.BitsStored],
        "SamplesPerPixel": [1, 3],
        "PixelRepresentation": [0, 1],
    }
    for name, values in allowed.items():
        if dataset[name].value not in values:
            raise RadiographError(
                f"expected {' or '.join(map(str, values))} as {name} of a DICOM file whose BitsStored is "
                f"{dataset.BitsStored}, found {dataset[name].value}; export it again"
            )
    if dataset.get("VOILUTFunction", "LINEAR").upper() not in FUNCTIONS:
        raise RadiographError(
            f"expected {', '.join(FUNCTIONS)} or nothing as VOILUTFunction of a DICOM file, found another; export it "
            "again"
        )
    if dataset.SamplesPerPixel == 3 and "PlanarConfiguration" not in dataset:
        dataset.PlanarConfiguration = 0
    greys = ("MONOCHROME1", "MONOCHROME2")
    if dataset.PhotometricInterpretation not in (greys if dataset.SamplesPerPixel == 1 else COLOURS):
        raise RadiographError(
            "expected a DICOM file in grayscale, RGB or YBR, found palette or other colours; save it as grayscale"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise RadiographError(
            "expected a DICOM file in a standard image compression, found video or a private one; export it again"
        ) from None
    if not decoder.is_available:
        raise MachineError(f"a DICOM file compressed with {syntax.name}; {INSTALL}")


def _check_frame(dataset: "Dataset") -> None:
    """Raise `RadiographError` if the frame differs in size from the file's header.

    Decoders allocate the size that the frame states, so a file of a few bytes could fill the memory. An RLE frame
    states no size, and its decoder expands all runs, up to 64 times, before it compares. A run is at most twice as long
    as its pixels, so a longer frame is refused.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
        if dataset.PhotometricInterpretation == "YBR_FULL_422":
            bits = bits * 2 // 3
        if (found := len(dataset.PixelData)) < (expected := (bits + 7) // 8):
            raise RadiographError(
                f"the file ends too early, or its header states too many pixels: expected {expected:,} bytes of "
                f"pixels, found {found:,}; copy it again if the copy is not complete, or export it again"
            )
        return
    # The offset table is dropped: a single frame needs none, and some writers fill it with wrong offsets.
    data, table = dataset.PixelData, 8 + int.from_bytes(dataset.PixelData[4:8], "little")
    if table > 8 and len(data) > table:
        dataset.PixelData = data[:4] + bytes(4) + data[table:]
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        plain = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        if len(frame) > (most := 2 * plain + RLE_HEADER):
            raise RadiographError(
                f"expected a compressed image of at most {most:,} bytes for the size in the DICOM header, found "
                f"{len(frame):,}; export it again"
            )
        return
    width, height, channels = frame_size(frame)
    check_pixels(width, height)
    if (width, height, channels) != (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel):
        raise RadiographError(
            f"expected {dataset.Columns} x {dataset.Rows} x {dataset.SamplesPerPixel} pixels, as in the DICOM header, "
            f"found a compressed image of {width} x {height} x {channels}; export it again"
        )
