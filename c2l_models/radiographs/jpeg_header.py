"""The size stated in the header of a JPEG, JPEG-LS or JPEG 2000 image, read without decoding it."""

import struct

FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header: SOF0 to SOF15 of JPEG, SOF55 of JPEG-LS."""

UNEXPECTED = {0x00, 0x01, *range(0xD0, 0xDB), 0xDE}
"""Markers that cannot precede a frame header: without a length, start of a scan, hierarchical frames."""


def frame_size(frame: bytes) -> tuple[int, int, int]:
    """Width, height and channels of a JPEG, JPEG-LS or JPEG 2000 image; JPEG 2000 bare or in JP2 boxes.

    Raises `ValueError`, `IndexError` or `struct.error` for other bytes.
    """
    if frame.startswith(b"\xff\xd8"):
        return _jpeg_size(frame)
    return _jpeg_2000_size(frame, _codestream_offset(frame))


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """From the frame header: length, precision, height, width, channels (ITU-T T.81, B.2.2)."""
    offset = 2
    while True:
        prefix, marker = frame[offset], frame[offset + 1]
        if prefix != 0xFF or marker in UNEXPECTED:
            raise ValueError("expected a frame header at the start of the JPEG data, found another marker")
        if marker == 0xFF:  # a fill byte
            offset += 1
        elif marker in FRAME_HEADERS:
            height, width, channels = struct.unpack_from(">HHB", frame, offset + 5)
            return width, height, channels
        else:
            offset += 2 + struct.unpack_from(">H", frame, offset + 2)[0]


def _jpeg_2000_size(frame: bytes, start: int) -> tuple[int, int, int]:
    """From the first marker segment, SIZ: the image area's far corner minus its near corner (ITU-T T.800, A.5.1)."""
    if frame[start : start + 4] != b"\xff\x4f\xff\x51":
        raise ValueError("expected JPEG or JPEG 2000 data, found neither")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (channels,) = struct.unpack_from(">H", frame, start + 40)
    return right - left, bottom - top, channels


def _codestream_offset(frame: bytes) -> int:
    """The offset of the JPEG 2000 codestream: 0, or the content of a JP2 file's `jp2c` box (ITU-T T.800, I.4)."""
    offset = 0
    if frame[4:8] != b"jP  ":
        return offset
    while frame[offset + 4 : offset + 8] != b"jp2c":
        (length,) = struct.unpack_from(">I", frame, offset)
        if length < 8:
            raise ValueError(f"expected JP2 boxes of 8 bytes or more, found one of {length}")
        offset += length
    return offset + 8
