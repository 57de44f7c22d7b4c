"""The one frame of a DICOM radiograph -> uint8, as a viewer shows it: modality, window, polarity."""

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from ..errors import MachineError, RadiographError
from .jpeg_header import frame_size
from .pixels import check_pixels, container_maximum, scale

if TYPE_CHECKING:
    from pydicom import Dataset

NEEDED = [
    *("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
]
TAGS = [
    *NEEDED,
    *("HighBit", "NumberOfFrames", "PlanarConfiguration"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
]
"""All that is read of a file: nothing about the patient is parsed, so nothing of it can be shown."""

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
DEFLATED = b"1.2.840.10008.1.2.1.99"
INSTALL = "to read it, run: pip install 'c2l-models[dicom]'"


def read_dicom(file: BinaryIO) -> np.ndarray:
    """Decode a DICOM file, open at its start, to uint8 [H, W] as a viewer shows it.

    Grey: stored value -> modality LUT, or rescale slope and intercept -> the first VOI LUT, or the
    first window -> 0 to 255 -> inverted where MONOCHROME1. Without a window (or with one narrower
    than the standard allows) the full range of BitsStored is shown. The full scale of a VOI LUT
    follows the rule of `to_eight_bits`, for the depth written beside it is often wrong. RGB and
    YBR: luminance of the stored range.

    Raises `RadiographError`, without the file's name, for what cannot be shown rightly: no pixel
    data, several frames, a compressed frame of another size than is told, palette colour, more than
    16 bits, a window that shows nothing, a deflated file (it inflates without limit); `MachineError` where
    pydicom or a decoder is missing. What pydicom raises on damaged files passes through.
    """
    try:
        from pydicom.pixels import pixel_array
    except ImportError:
        raise MachineError(f"a DICOM file; {INSTALL}") from None
    dataset = _parse(file)
    _check(dataset)
    _check_frame(dataset)
    pixels = pixel_array(dataset, index=0)  # the frame that was checked
    if dataset.SamplesPerPixel == 3:
        rgb = scale(pixels, 0, 2**dataset.BitsStored - 1)
        return np.asarray(Image.fromarray(rgb).convert("L"))
    # Each of DICOM's grey steps acts on one value at a time: so once a value, not once a pixel.
    try:
        shown = _grey_table(dataset)[pixels]
    except IndexError:
        raise RadiographError("a DICOM file with pixel values beyond its own BitsStored") from None
    if shown.min() == shown.max() and pixels.min() != pixels.max():
        raise RadiographError("a DICOM file whose window shows none of the film: all pixels come out alike")
    return shown


def _parse(file: BinaryIO) -> "Dataset":
    """The elements of `TAGS` that hold something, with a transfer syntax (implied where none is written)."""
    from pydicom import dcmread, uid

    if DEFLATED in file.read(4096):
        raise RadiographError("a deflated DICOM file, which is not supported; write it uncompressed")
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


def _check(dataset: "Dataset") -> None:
    """Raise `RadiographError` for what is not one frame of at most 16 bits that can be decoded here."""
    from pydicom.pixels import get_decoder

    missing = [name for name in NEEDED if name not in dataset]
    if missing:
        raise RadiographError(f"a DICOM file that lacks {missing[0]}: not an image, or the file ends too early")
    check_pixels(dataset.Columns, dataset.Rows)
    if dataset.get("NumberOfFrames", 1) != 1:
        raise RadiographError("a DICOM file of several frames; save the wanted one as a file of its own")
    if not 1 <= dataset.BitsStored <= 16:
        raise RadiographError(f"a DICOM file of {dataset.BitsStored} bits a pixel, where 1 to 16 were wanted")
    greys = ("MONOCHROME1", "MONOCHROME2")
    if dataset.PhotometricInterpretation not in (greys if dataset.SamplesPerPixel == 1 else COLOURS):
        raise RadiographError("a DICOM file in palette or another unusual colour; save it as grayscale")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise RadiographError("a DICOM file compressed as a video or in a maker's own way") from None
    if not decoder.is_available:
        raise MachineError(f"a DICOM file compressed with {syntax.name}; {INSTALL}")


def _check_frame(dataset: "Dataset") -> None:
    """Raise `RadiographError` where a compressed frame is of another size than the elements tell.

    Decoders give what the frame states: a file of a few bytes could fill the memory.
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
            f"a DICOM file that tells {dataset.Columns} x {dataset.Rows} x {dataset.SamplesPerPixel}, where its "
            f"compressed image is {width} x {height} x {channels}; export it again"
        )


def _grey_table(dataset: "Dataset") -> np.ndarray:
    """The grey of each stored value: uint8 [2**BitsStored], negative values counted from the end."""
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
        # Its own ends, which a negative slope swaps.
        low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset)
    if not np.isfinite([low, high]).all():
        raise RadiographError("a DICOM file whose rescale slope, intercept or window is not finite")
    greys = scale(values, low, high)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = 255 - greys
    return np.roll(greys, lowest)


def _look_up(values: np.ndarray, item: "Dataset") -> np.ndarray:
    """Values through a DICOM lookup table; those outside it take its first or its last entry.

    pydicom's own loses the upper bits of the index where the table's depth is 8, and knows modality
    tables of 8 and 16 bits only.
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
    """Whether the first window is one: finite, and as wide as its function needs."""
    from pydicom.multival import MultiValue

    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return False
    centre, width = (
        float(value[0] if isinstance(value, MultiValue) else value)
        for value in (dataset.WindowCenter, dataset.WindowWidth)
    )
    linear = dataset.get("VOILUTFunction", "LINEAR").upper() == "LINEAR"
    return bool(np.isfinite([centre, width]).all()) and (width >= 1 if linear else width > 0)
