"""The folder in which a store is built: for one process at a time, and never a folder of somebody else's."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from c2l_models.errors import DatasetError

from .crash_safe_array import writing

try:
    import fcntl
except ImportError:  # Windows: two calls at once are not noticed there
    fcntl = None  # type: ignore[assignment]

LOCK = "c2l.lock"
ADVICE = "Make room, or give another folder"


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Have `folder`, which need not be there, for this process alone; it is removed unless an error leaves it.

    The lock file is the first to come and the last to go: by it a folder is known for one of these.

    Raises DatasetError if another process has the folder, if it holds something and no lock file, or if it cannot
    be written to.
    """
    with writing(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / LOCK).exists():
            raise DatasetError(
                f"{folder} is where the store would be built, and holds something else; "
                "rename it, or give another folder for the store"
            )
        lock = (folder / LOCK).open("ab")
    with lock:
        _lock(lock, folder)
        yield
        with writing(folder, ADVICE):
            clear(folder)
    # Only once it is closed: neither Windows nor NFS removes an open file.
    shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove all but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _lock(file: BinaryIO, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(f"{folder} is being written by another process; wait for it, or end it") from None
    except OSError:
        pass  # a file system that knows no locks
