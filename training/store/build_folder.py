"""The folder in which a store is built: one process locks it, and it never contains the user's own files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from c2l_models.errors import DatasetError

try:
    import fcntl
except ImportError:  # Windows: two processes in one folder are not detected
    fcntl = None  # type: ignore[assignment]

LOCK = "c2l.lock"
STORE_FOLDER = "store"
"""Subfolder that is renamed to the store when it is complete."""
ADVICE = "Check its permissions and the free disk space, or choose another folder"


@contextmanager
def locked_build_folder(folder: Path) -> Iterator[None]:
    """Create `folder` if necessary and lock it for this process; remove it on success, keep it after an error.

    The lock file is created first and removed last, so that it identifies a build folder.

    Raises DatasetError if another process has locked the folder, if it contains files but no lock file, or if it
    cannot be written to.
    """
    with write_errors(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / LOCK).exists():
            raise DatasetError(
                f"{folder} is needed to build the store, but contains other files; rename it, or choose another "
                "folder for the store"
            )
        lock = (folder / LOCK).open("ab")
    with lock:
        _lock(lock, folder)
        yield
        with write_errors(folder, ADVICE):
            clear(folder)
    # The lock file is closed first, because neither Windows nor NFS removes an open file.
    shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove everything except the lock file."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def write_errors(folder: Path, advice: str) -> Iterator[None]:
    """Turn an OSError into a DatasetError that names the folder and says what to do."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written to: {error.strerror or error}. {advice}") from error


def _lock(file: BinaryIO, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(f"{folder} is in use by another process; wait until it ends, or stop it") from None
    except OSError:
        pass  # the file system does not support locks
