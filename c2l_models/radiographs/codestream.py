"""The size that a compressed frame states in itself, read before anything of it is decoded."""

import struct

SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""JPEG's and JPEG-LS's markers of a frame header, SOF0 to SOF15 and SOF55."""

UNEXPECTED = {0x00, 0x01, *range(0xD0, 0xDB), 0xDE}
"""Before a frame header: markers without a length, the start of a scan, a hierarchy of frames."""


def frame_size(frame: bytes) -> tuple[int, int, int]:
    """Width, height and channels of a JPEG, JPEG-LS or JPEG 2000 (bare or in JP2 boxes) frame.

    Raises `ValueError`, `IndexError` or `struct.error` for other bytes.
    """
    if frame.startswith(b"\xff\xd8"):
        return _jpeg(frame)
    return _jpeg_2000(frame, _unboxed(frame))


def _jpeg(frame: bytes) -> tuple[int, int, int]:
    """From SOF: length, precision, height, width, channels (ITU-T T.81, B.2.2)."""
    place = 2
    while True:
        prefix, marker = frame[place], frame[place + 1]
        if prefix != 0xFF or marker in UNEXPECTED:
            raise ValueError("a JPEG without a frame header at its start")
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in SIZES:
            height, width, channels = struct.unpack_from(">HHB", frame, place + 5)
            return width, height, channels
        else:
            place += 2 + struct.unpack_from(">H", frame, place + 2)[0]


def _jpeg_2000(frame: bytes, start: int) -> tuple[int, int, int]:
    """From SIZ, which comes first: the far corner less the near one (ITU-T T.800, A.5.1)."""
    if frame[start : start + 4] != b"\xff\x4f\xff\x51":
        raise ValueError("neither JPEG nor JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (channels,) = struct.unpack_from(">H", frame, start + 40)
    return right - left, bottom - top, channels


def _unboxed(frame: bytes) -> int:
    """Where the codestream starts: at once, or in a JP2 file's box `jp2c` (ITU-T T.800, I.4)."""
    place = 0
    if frame[4:8] != b"jP  ":
        return place
    while frame[place + 4 : place + 8] != b"jp2c":
        (length,) = struct.unpack_from(">I", frame, place)
        if length < 8:
            raise ValueError("a JP2 file whose boxes have no length")
        place += length
    return place + 8
