"""One process per run folder: the lock that pretraining, fine-tuning, detection and `c2l reproduce` hold."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from c2l_models.errors import RunError
from c2l_models.files import is_alive, is_temporary, this_process

try:
    import fcntl
except ImportError:  # Windows: two processes in one folder are not detected
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
"""The lock file, which names host and process of its holder. It exists while the folder is in use, and after a kill."""


def names_in(folder: Path) -> set[str]:
    """Names of the files of a run's folder, without its lock and what a killed process left half written."""
    return {path.name for path in folder.iterdir() if path.name != LOCK and not is_temporary(path)}


@contextmanager
def locked_run_folder(folder: Path, resume: bool) -> Iterator[None]:
    """Create a run's folder, or accept that of an earlier run to resume it, and lock it for this process.

    On exit the lock file is removed, and the folder too if it was created here and is empty.

    Raises:
        RunError: the folder exists and `resume` is not set, or another process uses it.
    """
    new = not folder.exists() or ((folder / LOCK).exists() and len(list(folder.iterdir())) == 1)  # the latter: a kill
    if not (new or (resume and folder.is_dir())):
        raise RunError(f"{folder} exists; choose another folder, or resume that run with --resume")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            yield
    finally:
        if new:
            with suppress(OSError):  # not empty, as usual
                folder.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock an existing folder for this process. The lock of a process that has ended is taken over.

    Raises RunError, which names the holder's host and process, if another process has locked the folder.
    """
    path = folder / LOCK
    while True:
        with path.open("a+b") as file:
            _lock(file, path)
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue  # its last holder removed the file after it was opened here
            file.truncate(0)
            file.write(f"{this_process()}\n".encode())
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()
            return


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    file.seek(0)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by worker processes
        return
    except OSError as error:
        held = error.errno in (errno.EACCES, errno.EAGAIN)
    host, _, pid = file.read().decode(errors="replace").strip().rpartition("-")
    if not held and (not pid.isdecimal() or (this_process().startswith(f"{host}-") and not is_alive(int(pid)))):
        return  # a file system without locks, and the holder has ended
    holder = f"process {pid} on {host}" if host else "another process"
    todo = "wait until it ends, or stop it" if held else f"wait until it ends; if it has ended, remove {path}"
    raise RunError(f"{path.parent} is in use by {holder}; {todo}")
