"""What files there are. What cannot be listed is told and passed over: one folder must not stop a million files."""

# A million paths are walked as strings.
# ruff: noqa: PTH116, PTH118, PTH122, PTH208

import os
from dataclasses import dataclass
from pathlib import Path

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"}) | DICOM_SUFFIXES


@dataclass(frozen=True)
class Listing:
    """Paths under a root: sorted ones of images, and (folder, reason) of the folders that cannot be listed."""

    images: list[str]
    unreadable: list[tuple[str, str]]


def list_images(root: Path) -> Listing:
    """The images under `root`, by suffix, or by DICOM's magic if without one; only the latter are opened.

    Links to folders are followed, each folder is listed once. A name with a suffix of images counts whatever it
    is, such as a link to a file that is gone: whoever reads it will see. `._image1.png` and the like are no images:
    macOS keeps attributes in them.
    """
    base = os.fspath(root)
    images: list[str] = []
    unreadable: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()

    def relative(path: str) -> str:
        return path[len(base) :].lstrip(os.sep).replace(os.sep, "/")

    def pass_over(error: OSError) -> None:
        unreadable.append((relative(error.filename or base) or ".", error.strerror or "unknown"))

    tops = [base]
    for top in tops:  # links come last: a folder under the root goes by its own name, not by that of a link
        for folder, folders, names in os.walk(top, onerror=pass_over):
            try:
                status = os.stat(folder)
            except OSError as error:
                pass_over(error)
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
    """Sorted paths under `root` of its images; see `list_images`."""
    return list_images(root).images


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder; none if there is no such folder, or none that can be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def as_utf8(name: str) -> str:
    r"""A file's name as text that UTF-8 can hold: bytes that are no UTF-8 become `\xe9` and the like."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_image(folder: str, name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("._"):
        return False
    return suffix in IMAGE_SUFFIXES if suffix else has_dicom_magic(Path(folder, name))


def has_dicom_magic(path: Path) -> bool:
    """Whether it is a file that can be read and has DICOM's magic."""
    if not is_file(path):  # opening a pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - pathlib's raises where the folder may not be entered
