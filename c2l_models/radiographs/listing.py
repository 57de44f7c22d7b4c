"""List the image files under a folder. A subfolder that cannot be listed is reported and skipped."""

# Paths are strings here, because pathlib is slow for a million files.
# ruff: noqa: PTH116, PTH118, PTH122, PTH208

import os
from dataclasses import dataclass
from pathlib import Path

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"}) | DICOM_SUFFIXES


@dataclass(frozen=True)
class Listing:
    """The contents of a root folder. All paths are relative to it.

    Attributes:
        images: sorted paths of the images.
        unreadable: (folder, reason) of each folder that cannot be listed.
    """

    images: list[str]
    unreadable: list[tuple[str, str]]


def list_images(root: Path) -> Listing:
    """List the images under `root`, recognized by suffix; files without a suffix, by DICOM's magic bytes.

    - Only files without a suffix are opened. A broken link with an image suffix is listed, and fails when it is read.
    - Links to folders are followed. Each folder is listed once.
    - Names such as `._image1.png` are not images: macOS stores file attributes in them.
    """
    base = os.fspath(root)
    images: list[str] = []
    unreadable: list[tuple[str, str]] = []
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
            images += [prefix + name for name in names if _is_image(folder, name)]
    return Listing(sorted(images), sorted(unreadable))


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


def _is_image(folder: str, name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("._"):
        return False
    return suffix in IMAGE_SUFFIXES if suffix else has_dicom_magic(Path(folder, name))


def has_dicom_magic(path: Path) -> bool:
    """Whether a path is a readable file with DICOM's magic bytes."""
    if not is_file(path):  # Opening a pipe would wait forever.
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a path is a file; False if its folder may not be entered, for which `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113
