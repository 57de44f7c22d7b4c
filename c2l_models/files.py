"""Write files so that a crash or a full disk leaves the old content intact; check a path before long work."""

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import C2LError

NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""Errors of file systems that cannot flush a folder."""


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, as `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; at the end flush it to the disk, and rename it to `path`.

    A reader sees the complete old content or the complete new content. A link keeps pointing to its file, whose content
    is replaced. A file keeps its mode, so a private one stays private. Temporary files that killed processes left for
    this path are removed.

    Raises OSError, which names `path`, if the file cannot be written; the old file is then unchanged.
    """
    target = path.resolve() if path.is_symlink() else path
    temporary = temporary_beside(target)
    try:
        remove_stale(target)
        with temporary.open("wb") as file:
            with suppress(OSError):  # a new file, or a file system without modes
                shutil.copymode(target, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


_PROCESS_AND_END = r"(?:(.+)-)?(\d+)\.(?:part|old)"
"""The end of a name of `temporary_beside`. Groups: host, which may be missing, and process."""


def temporary_beside(path: Path, end: str = "part") -> Path:
    """The name under which this process writes a file or folder before it is renamed to `path`."""
    return path.with_name(f".{path.name}.{this_process()}.{end}")


def is_temporary(path: Path) -> bool:
    """Whether a path has a name of `temporary_beside`: being written, or left by a killed process."""
    return re.fullmatch(rf"\..+\.{_PROCESS_AND_END}", path.name) is not None


def remove_stale(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path` under a name of `temporary_beside`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{_PROCESS_AND_END}")
    with os.scandir(path.parent) as entries:
        matches = [(entry.path, pattern.fullmatch(entry.name)) for entry in entries]
    for name, match in matches:
        if match and match[1] in (None, socket.gethostname()) and not is_alive(int(match[2])):
            if os.path.isdir(name):  # noqa: PTH112
                shutil.rmtree(name, ignore_errors=True)
            else:
                Path(name).unlink(missing_ok=True)


def this_process() -> str:
    """Host and number of this process, such as `gpu7-4711`."""
    return f"{socket.gethostname()}-{os.getpid()}"


def is_alive(pid: int) -> bool:
    """Whether a process runs on this machine. On Windows, where asking would end it, every process is alive."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def check_file(path: Path, option: str = "--out") -> None:
    """Check, before long work, that a file can be written. Raises C2LError, which names the option and the reason."""
    if path.is_dir():
        raise C2LError(f"{option} {path}: expected a file, found a folder; name a file in it")
    target = Path(os.path.realpath(path))  # of a link, the file that `atomic_file` writes
    for folder in (path.parent, target.parent):
        if not os.path.isdir(folder):  # noqa: PTH112 - as below
            raise C2LError(f"{option} {path}: {folder} is no folder; create it, or choose another {option}")
    if path.exists() and not _is_writable(path):
        raise C2LError(
            f"{option} {path}: expected a file that can be written, found a read-only or special one; choose another "
            f"{option}"
        )
    for folder in dict.fromkeys((path.absolute().parent, target.parent)):
        _check_folder(folder, f"{option} {path}")


def check_folder(folder: Path, option: str = "--out") -> None:
    """Check, before long work, that files can be written to a folder; one that does not exist is not created here.

    Raises C2LError, which names the option and the reason.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):  # noqa: PTH112 - pathlib's method raises if a parent folder may not be entered
        raise C2LError(f"{option} {folder}: expected a folder, found the file {there}; choose another {option}")
    _check_folder(there, f"{option} {folder}")


def _is_writable(path: Path) -> bool:
    if not path.is_file():  # opening a pipe would wait for its reader
        return False
    try:
        path.open("ab").close()
    except OSError:
        return False
    return True


def _check_folder(folder: Path, what: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise C2LError(
            f"{what}: no file can be written to {folder}: {error.strerror}; check its permissions and free space, or "
            "choose another place"
        ) from None


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
