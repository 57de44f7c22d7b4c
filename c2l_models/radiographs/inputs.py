"""The images that a command's arguments name: files, and folders with all images in them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import C2LError
from .listing import is_file, list_images


@dataclass(frozen=True)
class Inputs:
    """The images of some files and folders.

    Attributes:
        images: path of each image: the argument itself, or folder / path in the folder. So names are unique, and each
            can be opened from the folder in which the command ran. An image that two arguments name is listed once.
        left_out: (path, reason) of each file and folder in the folders that is left out.
    """

    images: list[Path]
    left_out: list[tuple[str, str]]


def find_images(paths: Sequence[Path]) -> Inputs:
    """List the images of files and folders, in the order of the arguments; a folder's images are sorted.

    A file of any name is accepted; reading it finds whether it is an image.

    Raises:
        C2LError: an argument does not exist or is no regular file, or there is no image.
    """
    for path in paths:
        if not path.is_dir() and not is_file(path):
            found = "something else" if os.path.lexists(path) else "nothing"
            raise C2LError(f"expected a radiograph, or a folder with radiographs, found {found} at {path}")
    images: dict[str, Path] = {}
    left_out: list[tuple[str, str]] = []
    for path in paths:
        names: list[Path] = [path]
        if path.is_dir():
            listing = list_images(path)
            names = [path / name for name in listing.images]
            folder = path if len(paths) > 1 else Path()  # with one folder, the names in it say enough
            left_out += [(str(folder / name), reason) for name, reason in listing.all_left_out()]
        for name in names:
            images.setdefault(os.path.abspath(name), name)  # noqa: PTH100 (`..` and `.` name the same file)
    if not images:
        raise C2LError(f"expected PNG, JPEG, TIFF, BMP or DICOM files in {', '.join(map(str, paths))}, found none")
    return Inputs(list(images.values()), left_out)
