"""Checkpoints: all or nothing on disk, checked when read, and everything that the next step depends on.

A file's name holds its step and the start of its sha256, so a torn or changed one is noticed without a second file.
"""

import errno
import hashlib
import io
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from c2l_models.errors import RunError
from c2l_models.files import sync_folder, write_atomically

FOLDER = "checkpoints"
BEST = "best-"

_NAME = re.compile(rf"({BEST})?step-(\d+)-([0-9a-f]{{12}})\.pt")


class CheckpointNotWritten(RunError):
    """The disk did not take a checkpoint; those before it are as they were."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint read from disk.

    Attributes:
        state: tensors on the CPU and plain values, as they were saved.
        path: its file.
        passed_over: what is wrong with each newer file that was damaged.
    """

    state: dict[str, Any]
    path: Path
    passed_over: tuple[str, ...]


def save(run_folder: Path, state: dict[str, Any], step: int, keep: int) -> Path:
    """Write `checkpoints/step-000001200-<sha256>.pt`, then remove all but the last `keep` and the best.

    Written beside, synced and renamed: a process killed at any moment leaves the older ones as they were, and the
    new one whole or not at all. It takes as much memory as the file on disk.

    Args:
        run_folder: its folder of checkpoints is made where there is none.
        state: tensors, on any device, and plain values.
        step: the steps done; files of this step or a later one are damaged ones that were passed over, and go too.
        keep: how many of the newest to keep.

    Returns:
        The file.

    Raises:
        CheckpointNotWritten: disk full, over quota, read-only; nothing of the file is left.
    """
    content = io.BytesIO()
    torch.save(state, content)
    data = content.getbuffer()
    path = run_folder / FOLDER / f"step-{step:09d}-{_short_hash(data)}.pt"
    try:
        path.parent.mkdir(exist_ok=True)
        _remove(list(path.parent.glob(".*.part")))  # left by killed processes
        write_atomically(path, data)
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointNotWritten(_advice(run_folder, f"the checkpoint of step {step}", error)) from error
    before = [file for file in _files(run_folder) if file != path and _step(file) < step]
    _remove([file for file in _files(run_folder) if file not in (path, *before[: keep - 1])])
    return path


def mark_best(run_folder: Path, path: Path) -> Path:
    """Keep a checkpoint as the best so far, in place of the one before; marking it again changes nothing.

    Raises:
        CheckpointNotWritten: the disk took neither a hard link nor a copy; the best before is still there.
    """
    best = path.with_name(BEST + path.name.removeprefix(BEST))
    beside = path.with_name(f".{best.name}.part")
    try:
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(path)
        except OSError:  # a file system without hard links
            write_atomically(beside, path.read_bytes())
        beside.replace(best)
        beside.unlink(missing_ok=True)  # renaming one name of a file to another of its names leaves both
        sync_folder(best.parent)
    except OSError as error:
        raise CheckpointNotWritten(_advice(run_folder, f"the best checkpoint, {best.name},", error)) from error
    _remove([file for file in _files(run_folder, BEST) if file != best])
    return best


def exists(run_folder: Path) -> bool:
    """Whether there is any checkpoint, sound or not."""
    return bool(_files(run_folder) or _files(run_folder, BEST))


def newest(run_folder: Path) -> str:
    """The name of a run's newest checkpoint, which holds its step and its hash; "" where there is none."""
    files = _files(run_folder)
    return files[0].name if files else ""


def load(run_folder: Path, best: bool = False) -> Loaded:
    """Read a run's newest sound checkpoint, or the best by probe; never runs code that a file may hold.

    Raises:
        RunError: there is none, or none is sound; says what is wrong with each.
    """
    files = _files(run_folder, BEST)
    if not best:  # the best one is a checkpoint like any other where the last ones are lost
        files = sorted(_files(run_folder) + files, key=_step, reverse=True)
    if not files:
        why = "none was marked yet by a probe" if best and exists(run_folder) else "is it one of `c2l pretrain`?"
        raise RunError(f"{run_folder} holds no {'best ' if best else ''}checkpoint: {why}")
    passed_over: list[str] = []
    for file in files:
        try:
            return Loaded(_read(file), file, tuple(passed_over))
        except RunError as error:
            passed_over.append(str(error))
    raise RunError(
        f"no checkpoint in {run_folder / FOLDER} is sound ({'; '.join(passed_over)}); "
        "put back a copy of one, or start the run again in a new folder"
    )


def _read(path: Path) -> dict[str, Any]:
    """A file's state. Raises RunError, with the file's name and what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}") from error
    if not path.stem.endswith(found := _short_hash(data)):
        raise RunError(f"{path.name} is torn or was changed: {len(data):,} bytes whose sha256 begins with {found}")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]  # torch's advice, to load it unsafely, is not for us
        raise RunError(f"{path.name} is no checkpoint: {reason}") from error
    return state


def _files(run_folder: Path, kind: str = "") -> list[Path]:
    """The newest first: the plain ones, or those of kind BEST."""
    named = [(path, _NAME.fullmatch(path.name)) for path in (run_folder / FOLDER).glob("*.pt")]
    return sorted((path for path, match in named if match and (match[1] or "") == kind), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[-2])


def _short_hash(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _remove(files: list[Path]) -> None:
    """What cannot be removed now is tried again at the next save, and no reason to stop a run."""
    for file in files:
        with suppress(OSError):
            file.unlink()


def _advice(run_folder: Path, what: str, error: OSError) -> str:
    """What failed, what is left, what to do."""
    files = _files(run_folder)
    left = f"{files[0].name} is the newest there" if files else "there is none before it"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    todo = "free some room, or keep fewer (a recipe's keep_checkpoints)" if full else "mend the disk or its permissions"
    return f"{what} could not be written to {run_folder / FOLDER} ({error.strerror or error}); {left}; {todo}"
