"""Write files so that a crash or a full disk leaves the old content intact."""

import errno
import os
from pathlib import Path

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""Errors of file systems that cannot flush a folder."""


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a temporary file beside `path`, flush it to the disk, and rename it to `path`.

    A reader sees the complete old content or the complete new content. Raises OSError if the file cannot be written;
    the old file is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, such as a renamed file, to the disk, if the file system supports it.

    Does nothing on Windows, where a folder cannot be opened as a file.
    """
    if os.name == "posix":
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise
