"""List the image files under a folder. A subfolder that cannot be listed is reported and skipped."""

# Paths are strings here, because pathlib is slow for a million files.
# ruff: noqa: PTH116, PTH118, PTH122, PTH208

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp"}) | DICOM_SUFFIXES
OTHER_SUFFIXES = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".md", ".rst", ".log", ".json", ".jsonl", ".toml", ".yaml", ".yml", ".xml", ".html"),
        *(".pdf", ".doc", ".docx", ".xls", ".xlsx", ".zip", ".gz", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar"),
        *(".parquet", ".npy", ".npz", ".h5", ".db", ".py", ".ipynb", ".sh", ".safetensors", ".pt", ".pth"),
    }
)
"""Files of these names are left out unopened. A file of any other name, such as a DICOM UID, is judged by content."""

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *TIFF_HEADS)
"""First bytes of PNG, JPEG and TIFF."""

NOT_BY_NAME = "not an image by its name"

SHOWN = 10
"""Number of left-out files that are named; the others are counted by reason."""


@dataclass(frozen=True)
class Listing:
    """The contents of a root folder. All paths are relative to it.

    Attributes:
        images: sorted paths of the images.
        unreadable: (folder, reason) of each folder that cannot be listed.
        left_out: (file, reason) of each file that is no image by its content, then of each by its name.
    """

    images: list[str]
    unreadable: list[tuple[str, str]]
    left_out: list[tuple[str, str]]

    def all_left_out(self) -> list[tuple[str, str]]:
        """(path, reason) of each folder and file left out."""
        return [(folder, f"folder cannot be read: {reason}") for folder, reason in self.unreadable] + self.left_out


def left_out_lines(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each of the first `SHOWN` of (path, reason), and one line for each reason of the others."""
    lines = [f"left out {as_utf8(path)!r}: {reason}" for path, reason in left_out[:SHOWN]]
    others = Counter(reason for _, reason in left_out[SHOWN:])
    return lines + [f"left out {count:,} more: {reason}" for reason, count in others.most_common()]


def left_out_count(count: int) -> str:
    """The end of the last line of a command that left files out; empty if it left none out."""
    return f"; {count:,} {'file' if count == 1 else 'files'} left out" if count else ""


def list_images(root: Path) -> Listing:
    """List the images under `root`, recognized by suffix, and files with an unknown suffix by their content.

    - Only files whose suffix is in neither list are opened. A broken link with an image suffix is listed, and fails
      when it is read.
    - Links to folders are followed. Each folder is listed once.
    - Names such as `._image1.png` are not images: macOS stores file attributes in them.
    """
    base = os.fspath(root)
    images: list[str] = []
    unreadable: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()

    def relative(path: str) -> str:
        return path[len(base) :].lstrip(os.sep).replace(os.sep, "/")

    def skip(error: OSError) -> None:
        unreadable.append((relative(error.filename or base) or ".", error.strerror or "unknown"))

    tops = [base]
    for top in tops:  # Links come last, so that a folder under the root keeps its own name.
        for folder, folders, names in os.walk(top, onerror=skip):
            try:
                status = os.stat(folder)
            except OSError as error:
                skip(error)
                continue
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            tops += filter(os.path.islink, (os.path.join(folder, name) for name in folders))
            prefix = f"{relative(folder)}/".lstrip("/")
            for name in names:
                if reason := _reason_to_leave_out(folder, name):
                    left_out.append((prefix + name, reason))
                else:
                    images.append(prefix + name)
    left_out.sort(key=lambda file: (file[1].startswith(NOT_BY_NAME), file))
    return Listing(sorted(images), sorted(unreadable), left_out)


def image_files(root: Path) -> list[str]:
    """The sorted paths of the images under `root`, relative to it; see `list_images`."""
    return list_images(root).images


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder; empty if the folder does not exist or cannot be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def as_utf8(name: str) -> str:
    r"""A file name as valid UTF-8 text: other bytes become escapes such as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def from_utf8(text: str) -> str:
    """The file name that a UTF-8 table states, for this process's locale: on POSIX a name is bytes."""
    return os.fsdecode(text.encode("utf-8")) if os.name == "posix" else text


def _reason_to_leave_out(folder: str, name: str) -> str:
    """Why a file is no image; empty for an image."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("._"):
        return "file attributes of macOS"
    if name.upper() == "DICOMDIR":
        return "a table of DICOM files, without pixels"
    if suffix in IMAGE_SUFFIXES:
        return ""
    if suffix in OTHER_SUFFIXES:
        return f"{NOT_BY_NAME} ({suffix})"
    path = Path(folder, name)
    if not is_file(path):  # Opening a pipe would wait forever.
        return "not a regular file, or a link to none"
    try:
        head = _head(path)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return "" if _is_image(head) else "not a PNG, JPEG, TIFF, BMP or DICOM file by its content"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)


def _is_image(head: bytes) -> bool:
    is_bmp = head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:18] == bytes(3)
    return head.startswith(HEADS) or is_bmp or _is_dicom(head)


def _is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are DICOM: with its magic bytes, or an element of group 0002 or 0008 first.

    The second element number's upper byte is 0, and a VR of two letters or a length below 256 follows.
    """
    element = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0"
    return head[128:] == b"DICM" or (element and (head[4:6].isupper() or head[5:8] == bytes(3)))


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its name, or by its content if its name does not say."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES | OTHER_SUFFIXES or not is_file(path):
        return suffix in DICOM_SUFFIXES
    try:
        return _is_dicom(_head(path))
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a path is a file; False if its folder may not be entered, for which `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113
