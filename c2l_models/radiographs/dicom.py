"""Decode a DICOM file to uint8, as a viewer shows it: modality transform, window, polarity."""

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from ..errors import MachineError, RadiographError
from .jpeg_header import frame_size
from .pixels import check_pixels, container_maximum, scale

if TYPE_CHECKING:
    from pydicom import Dataset

REQUIRED = [
    *("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
]
TAGS = [
    *REQUIRED,
    *("HighBit", "NumberOfFrames", "PlanarConfiguration"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
]
"""The only elements that are parsed. None is about the patient, so no patient data can appear in an error."""

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
DEFLATED = b"1.2.840.10008.1.2.1.99"
INSTALL = "to read it, run: pip install 'c2l-models[dicom]'"


def read_dicom(file: BinaryIO) -> np.ndarray:
    """Decode a DICOM file, open at its start, to uint8 [H, W].

    Grayscale, in this order:

    1. Modality LUT; without one, rescale slope and intercept.
    2. First VOI LUT; without one, first window; without a valid window, the full range of BitsStored. The full scale of
       a VOI LUT is found as in `to_eight_bits`, because the bit depth in its descriptor is often wrong.
    3. Scale to 0 to 255, and invert if the file is MONOCHROME1.

    RGB and YBR: luminance, from the full range of BitsStored.

    Raises:
        RadiographError: no pixel data, several frames, a compressed frame whose size differs from the header,
            palette colour, more than 16 bits, a window in which all pixels come out equal, or a deflated file, whose
            inflated size has no limit. The message does not name the file.
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
    pixels = pixel_array(dataset, index=0)  # the frame that was checked
    if dataset.SamplesPerPixel == 3:
        rgb = scale(pixels, 0, 2**dataset.BitsStored - 1)
        return np.asarray(Image.fromarray(rgb).convert("L"))
    # Each step maps single values, so it is computed once per possible value, not once per pixel.
    try:
        shown = _grey_table(dataset)[pixels]
    except IndexError:
        raise RadiographError(
            "expected DICOM pixel values of BitsStored bits, found others; export the file again"
        ) from None
    if shown.min() == shown.max() and pixels.min() != pixels.max():
        raise RadiographError(
            "a DICOM file whose window shows none of the film: all pixels come out equal; export it with another window"
        )
    return shown


def _parse(file: BinaryIO) -> "Dataset":
    """Parse the elements of `TAGS`, drop the empty ones, and set the transfer syntax if the file has none."""
    from pydicom import dcmread, uid

    if DEFLATED in file.read(4096):
        raise RadiographError("a deflated DICOM file, which is not supported; export it uncompressed")
    file.seek(0)
    dataset = dcmread(file, force=True, specific_tags=TAGS)
    for element in list(dataset):
        if element.is_empty:
            del dataset[element.tag]
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little_endian = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_elements(dataset: "Dataset") -> None:
    """Raise `RadiographError` unless the file has one frame of 1 to 16 bits that can be decoded on this machine."""
    from pydicom.pixels import get_decoder

    missing = [name for name in REQUIRED if name not in dataset]
    if missing:
        raise RadiographError(f"expected a DICOM image, found no {missing[0]}; choose another file, or copy it again")
    check_pixels(dataset.Columns, dataset.Rows)
    if dataset.get("NumberOfFrames", 1) != 1:
        raise RadiographError(
            "expected a DICOM file of one frame, found several; save the frame that you need as a separate file"
        )
    if not 1 <= dataset.BitsStored <= 16:
        raise RadiographError(f"expected a DICOM file of 1 to 16 bits per pixel, found {dataset.BitsStored}")
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
    """Raise `RadiographError` if the size of a compressed frame differs from the size in the file's header.

    Decoders allocate the size that the frame states, so a file of a few bytes could fill the memory.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLELossless:
        return
    width, height, channels = frame_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
    check_pixels(width, height)
    if (width, height, channels) != (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel):
        raise RadiographError(
            f"expected {dataset.Columns} x {dataset.Rows} x {dataset.SamplesPerPixel} pixels, as in the DICOM header, "
            f"found a compressed image of {width} x {height} x {channels}; export it again"
        )


def _grey_table(dataset: "Dataset") -> np.ndarray:
    """Grey level of each stored value: uint8 [2**BitsStored], with negative values indexed from the end."""
    from pydicom.pixels import apply_rescale, apply_windowing

    lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    values = np.arange(lowest, lowest + 2**dataset.BitsStored)
    if "ModalityLUTSequence" in dataset:
        values = _look_up(values, dataset.ModalityLUTSequence[0])
    else:
        values = apply_rescale(values, dataset)
    low, high = values.min(), values.max()
    if "VOILUTSequence" in dataset:
        values = _look_up(values, dataset.VOILUTSequence[0])
        low, high = 0, container_maximum(int(values.max()))
    elif _has_window(dataset):
        values = apply_windowing(values, dataset)
        # The grey levels far below and far above the window. A negative slope swaps them.
        low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset)
    if not np.isfinite([low, high]).all():
        raise RadiographError(
            "expected a finite rescale slope, intercept and window in a DICOM file, found NaN or infinity"
        )
    greys = scale(values, low, high)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = 255 - greys
    return np.roll(greys, lowest)


def _look_up(values: np.ndarray, item: "Dataset") -> np.ndarray:
    """Map values through a DICOM lookup table. Values outside the table take its first or last entry.

    pydicom's function is not used, because it loses the upper bits of the index if the table's depth is 8, and supports
    modality tables of 8 and 16 bits only.
    """
    first = item.LUTDescriptor[1]
    entries = item.LUTData
    if isinstance(entries, bytes):
        width = len(entries) // (item.LUTDescriptor[0] or 2**16)
        order = "<" if item.is_little_endian is not False else ">"
        entries = np.frombuffer(entries, np.uint8 if width == 1 else f"{order}u2")
    table = np.asarray(entries, np.uint16).reshape(-1)
    return table.take(np.rint(values).astype(np.int64) - first, mode="clip").astype(np.int64)


def _has_window(dataset: "Dataset") -> bool:
    """Whether the first window is valid: finite, and as wide as its function requires."""
    from pydicom.multival import MultiValue

    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return False
    centre, width = (
        float(value[0] if isinstance(value, MultiValue) else value)
        for value in (dataset.WindowCenter, dataset.WindowWidth)
    )
    linear = dataset.get("VOILUTFunction", "LINEAR").upper() == "LINEAR"
    return bool(np.isfinite([centre, width]).all()) and (width >= 1 if linear else width > 0)
