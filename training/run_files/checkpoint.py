"""Checkpoints: written atomically, checked when read.

A file's name contains its step and the start of its sha256, so a truncated or changed file is detected.
"""

import errno
import hashlib
import io
import re
import shutil
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


class CheckpointDamaged(RunError):
    """A checkpoint's file is truncated, changed, gone or no checkpoint."""


class CheckpointNotWritten(RunError):
    """A checkpoint could not be written to the disk. Earlier checkpoints are unchanged."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint read from disk.

    Attributes:
        state: tensors on the CPU and plain values, as they were saved.
        path: the checkpoint's file.
        passed_over: one message for each newer file that is damaged.
    """

    state: dict[str, Any]
    path: Path
    passed_over: tuple[str, ...]


def save(run_folder: Path, state: dict[str, Any], step: int, keep: int) -> Path:
    """Write `checkpoints/step-000001200-<sha256>.pt`, then remove all but the last `keep` and the best.

    The file is written under another name, flushed and renamed. If the process is killed, older checkpoints are
    unchanged, and the new one is complete or absent. The call takes as much memory as the file.

    Args:
        run_folder: the run's folder. Its folder of checkpoints is created if it does not exist.
        state: tensors, on any device, and plain values.
        step: number of finished steps. Existing files of this step or a later one are damaged, and are removed too.
        keep: number of newest files to keep.

    Returns:
        The file.

    Raises:
        CheckpointNotWritten: for example if the disk is full or read-only; no part of the file is left.
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
    """Keep a checkpoint as the best so far, and remove the previous best. A second call changes nothing.

    Raises:
        CheckpointNotWritten: neither a hard link nor a copy could be made; the previous best is still there.
    """
    best = path.with_name(BEST + path.name.removeprefix(BEST))
    beside = path.with_name(f".{best.name}.part")
    try:
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(path)
        except OSError:  # the file system has no hard links
            write_atomically(beside, path.read_bytes())
        beside.replace(best)
        beside.unlink(missing_ok=True)  # renaming a file to another hard link of itself keeps both names
        sync_folder(best.parent)
    except OSError as error:
        raise CheckpointNotWritten(_advice(run_folder, f"the best checkpoint, {best.name},", error)) from error
    _remove([file for file in _files(run_folder, BEST) if file != best])
    return best


def exists(run_folder: Path) -> bool:
    """Whether the run has any checkpoint, sound or damaged."""
    return bool(_files(run_folder) or _files(run_folder, BEST))


def newest(run_folder: Path) -> str:
    """The name of a run's newest checkpoint, which contains its step and hash; "" if there is no checkpoint."""
    files = _files(run_folder)
    return files[0].name if files else ""


def load(run_folder: Path, best: bool = False) -> Loaded:
    """Read a run's newest sound checkpoint, or the best by probe. Code in a file is never run.

    Raises:
        RunError: there is no checkpoint, each one is damaged, or one cannot be read; the message says how. A file that
            cannot be read is not passed over: it may be sound, and the next save would remove it.
    """
    files = _files(run_folder, BEST)
    if not best:  # if the newest files are lost, the best one can be resumed too
        files = sorted(_files(run_folder) + files, key=_step, reverse=True)
    if not files:
        why = "no probe has marked one yet" if best and exists(run_folder) else "is it a run folder of `c2l pretrain`?"
        raise RunError(f"{run_folder} holds no {'best ' if best else ''}checkpoint: {why}")
    passed_over: list[str] = []
    for file in files:
        try:
            return Loaded(_read(file), file, tuple(passed_over))
        except CheckpointDamaged as error:
            passed_over.append(str(error))
    raise RunError(
        f"no checkpoint in {run_folder / FOLDER} is sound ({'; '.join(passed_over)}). Restore a copy of one, or start "
        "the run again in a new folder"
    )


def remove(run_folder: Path) -> None:
    """Remove all checkpoints of a finished run, which are many times larger than its network."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    """A file's state.

    Raises:
        CheckpointDamaged: the message names the file and the damage.
        RunError: the disk does not answer.
    """
    if path.is_dir():
        raise CheckpointDamaged(f"{path.name} is a folder")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:  # the run has removed it by now
        raise CheckpointDamaged(f"{path.name} is gone") from error
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}. It may be sound: check the disk and its permissions and repeat "
            "the command, or move the file away to resume from the checkpoint before it"
        ) from error
    if not path.stem.endswith(found := _short_hash(data)):
        raise CheckpointDamaged(
            f"{path.name} is truncated or changed: {len(data):,} bytes, whose sha256 begins with {found}"
        )
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]  # without torch's advice to load the file unsafely
        raise CheckpointDamaged(f"{path.name} is not a checkpoint: {reason}") from error
    return state


def _files(run_folder: Path, kind: str = "") -> list[Path]:
    """Checkpoint files, the newest first: regular ones, or with kind BEST the best."""
    named = [(path, _NAME.fullmatch(path.name)) for path in (run_folder / FOLDER).glob("*.pt")]
    return sorted((path for path, match in named if match and (match[1] or "") == kind), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[-2])


def _short_hash(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _remove(files: list[Path]) -> None:
    """Remove files. Failures are ignored, because the next save tries again."""
    for file in files:
        with suppress(OSError):
            file.unlink()


def _advice(run_folder: Path, what: str, error: OSError) -> str:
    """An error message: what failed, what is left, what to do."""
    files = _files(run_folder)
    left = f"{files[0].name} is the newest checkpoint" if files else "there is no earlier checkpoint"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    todo = "free some space, or lower the recipe's keep_checkpoints" if full else "check the disk and its permissions"
    return f"{what} could not be written to {run_folder / FOLDER} ({error.strerror or error}); {left}; {todo}"
