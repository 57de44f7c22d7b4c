"""Checkpoints: atomic writes, detected damage, and the newest few and the best kept."""

import errno
import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from c2l_models.errors import RunError
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.checkpoint import (
    CheckpointDamaged,
    CheckpointNotWritten,
    exists,
    load,
    mark_best,
    save,
)

STATE = {"step": 7, "method": {"weight": torch.arange(1000.0)}, "recipe": {"name": "x", "sources": ["a", "b"]}}


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def steps(run):
    """The steps of all files; the best one's as "best 7"."""
    return [("best " if name.startswith("best") else "") + str(int(name.split("-")[-2])) for name in names(run)]


def write(run, *numbers, keep=3):
    return [save(run, {"step": n, "x": torch.full((1000,), float(n))}, n, keep) for n in numbers]


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


# Whole


def test_round_trip(tmp_path):
    assert not exists(tmp_path)
    path = save(tmp_path, STATE, 1200, keep=3)
    assert path == tmp_path / "checkpoints" / f"step-000001200-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.pt"
    assert exists(tmp_path)
    found = load(tmp_path)
    assert (found.path, found.passed_over) == (path, ())
    assert torch.equal(found.state["method"].pop("weight"), torch.arange(1000.0))
    assert found.state == {"step": 7, "method": {}, "recipe": {"name": "x", "sources": ["a", "b"]}}
    assert names(tmp_path) == [path.name]


def test_the_same_state_is_the_same_file(tmp_path):
    assert write(tmp_path, 5) == write(tmp_path, 5)


def test_synced_before_it_is_named_and_its_name_after(tmp_path, monkeypatch):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc")
    seen = []
    sync = os.fsync

    def watched(descriptor):
        seen.append(((descriptors / str(descriptor)).readlink(), names(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    (path,) = write(tmp_path, 1)
    (file, before), (folder, after) = seen
    assert file.suffix == ".part"
    assert path.name not in before
    assert folder == path.parent
    assert after == [path.name]


# The last few, and the best


def test_the_last_few_are_kept(tmp_path):
    write(tmp_path, 1, 2, 9, 10, keep=3)
    assert steps(tmp_path) == ["2", "9", "10"]
    write(tmp_path, 100, keep=1)
    assert steps(tmp_path) == ["100"]


def test_older_ones_go_only_after_the_new_one_is_in_place(tmp_path, monkeypatch):
    write(tmp_path, 1, 2, keep=2)
    at_removal = []
    remove = checkpoint._remove
    monkeypatch.setattr(checkpoint, "_remove", lambda files: (at_removal.append(steps(tmp_path)), remove(files)))
    write(tmp_path, 3, keep=2)
    assert at_removal[-1] == ["1", "2", "3"]
    assert steps(tmp_path) == ["2", "3"]


def test_the_best_outlives_the_last_few(tmp_path):
    mark_best(tmp_path, write(tmp_path, 1)[0])
    write(tmp_path, 2, 3, 4, keep=2)
    assert steps(tmp_path) == ["best 1", "3", "4"]
    assert load(tmp_path, best=True).state["step"] == 1
    assert load(tmp_path).state["step"] == 4
    mark_best(tmp_path, next(tmp_path.glob("checkpoints/step-*4-*.pt")))
    assert steps(tmp_path) == ["best 4", "3", "4"]


def test_the_best_is_a_name_of_the_same_file(tmp_path):
    (path,) = write(tmp_path, 1)
    assert mark_best(tmp_path, path).samefile(path)
    assert mark_best(tmp_path, path).samefile(path)  # as a run that was killed after marking
    assert steps(tmp_path) == ["best 1", "1"]


def test_the_best_may_be_marked_by_its_own_name(tmp_path):
    """As when a run resumes from the best one because the newest ones are lost."""
    best = mark_best(tmp_path, write(tmp_path, 1)[0])
    assert mark_best(tmp_path, best) == best
    assert steps(tmp_path) == ["best 1", "1"]


def test_a_copy_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refused(*arguments, **keywords):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    (path,) = write(tmp_path, 1)
    best = mark_best(tmp_path, path)
    assert not best.samefile(path)
    assert best.read_bytes() == path.read_bytes()
    flip(best, 50)
    mark_best(tmp_path, path)  # a damaged copy is replaced
    assert load(tmp_path, best=True).passed_over == ()
    assert steps(tmp_path) == ["best 1", "1"]


def test_no_best_yet(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(RunError, match=r"holds no best checkpoint: no probe has marked"):
        load(tmp_path, best=True)


# Killed


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from c2l_models.training.run_files import checkpoint
run, moment = Path(sys.argv[1]), sys.argv[2]
checkpoint.save(run, {"step": 1, "x": torch.zeros(100000)}, 1, 1)
def die(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "write":
    class Dying:
        def __init__(self, *arguments): self.file = open(*arguments)
        def __enter__(self): return self
        def __exit__(self, *error): self.file.close()
        def write(self, data):
            self.file.write(data[:1000])
            self.file.flush()
            die()
    Path.open = lambda path, mode: Dying(path, mode)
elif moment == "sync":
    os.fsync = die
elif moment == "rename":
    Path.replace = die
elif moment == "named":
    checkpoint.sync_folder = die
checkpoint.save(run, {"step": 2, "x": torch.ones(100000)}, 2, 1)
"""


@pytest.mark.parametrize(("moment", "survivor"), [("write", 1), ("sync", 1), ("rename", 1), ("named", 2)])
def test_killed_while_it_saves(tmp_path, moment, survivor):
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    partial = list((tmp_path / "checkpoints").glob(".*.part"))
    assert len(partial) == (moment != "named")
    found = load(tmp_path)
    assert (found.state["step"], found.passed_over) == (survivor, ())
    write(tmp_path, 3, keep=1)
    assert steps(tmp_path) == ["3"]  # the killed process's partial file is gone


# Not written


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_refuses_leaves_the_old_ones(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            CheckpointNotWritten, match=r"step 1 could not .*No space left.*no earlier checkpoint.*free some"
        ):
            write(tmp_path, 1)
    write(tmp_path, 1, 2)
    before = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            CheckpointNotWritten, match=r"step 8 could not be written .*step-000000002-.* is the newest"
        ):
            write(tmp_path, 8)
        with pytest.raises(CheckpointNotWritten, match="best checkpoint, best-step-000000002"):
            mark_best(tmp_path, load(tmp_path).path)
    assert before == [name for name in names(tmp_path) if "best" not in name]  # no partial file is left
    write(tmp_path, 9)
    assert load(tmp_path).state["step"] == 9


def test_an_old_one_that_cannot_be_removed_is_no_failure(tmp_path, monkeypatch):
    write(tmp_path, 1)
    unlink = type(tmp_path).unlink

    def refused(path, missing_ok=False):
        if not missing_ok:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", refused)
        write(tmp_path, 2, keep=1)
    assert steps(tmp_path) == ["1", "2"]
    write(tmp_path, 3, keep=1)
    assert steps(tmp_path) == ["3"]


# Damaged


@pytest.mark.parametrize("position", [0, 1, 40, -200, -1, None])
def test_a_flipped_byte_anywhere(tmp_path, position):
    _, path = write(tmp_path, 1, 2)
    flip(path, len(path.read_bytes()) // 2 if position is None else position)
    found = load(tmp_path)
    assert found.state["step"] == 1
    (reason,) = found.passed_over
    assert reason.startswith(f"{path.name} is truncated or changed")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_torn(tmp_path, share):
    _, path = write(tmp_path, 1, 2)
    size = path.stat().st_size
    os.truncate(path, int(share * size))
    found = load(tmp_path)
    assert found.state["step"] == 1
    assert f"{int(share * size):,} bytes" in found.passed_over[0]


def test_all_damaged(tmp_path):
    paths = write(tmp_path, 1, 2, 3)
    for path in paths:
        flip(path, 100)
    with pytest.raises(RunError, match="is sound") as caught:
        load(tmp_path)
    assert all(path.name in str(caught.value) for path in paths)
    assert "\n" not in str(caught.value)  # the command prints errors as one line
    assert exists(tmp_path)


def test_the_best_serves_where_the_last_ones_are_lost(tmp_path, monkeypatch):
    mark_best(tmp_path, write(tmp_path, 1)[0])
    _, path = write(tmp_path, 2, 3, keep=1)
    flip(path, 100)
    found = load(tmp_path)
    assert (found.state["step"], found.path.name[:5]) == (1, "best-")


def test_what_was_passed_over_is_not_taken_for_the_newest_again(tmp_path):
    """If step 5 is damaged, a run resumes from step 2 and writes step 3."""
    paths = write(tmp_path, 1, 2, 5)
    flip(paths[-1], 100)
    write(tmp_path, 3)
    assert steps(tmp_path) == ["1", "2", "3"]
    assert load(tmp_path).passed_over == ()


def test_one_that_is_a_folder_or_gone_is_passed_over(tmp_path, monkeypatch):
    _, second, third = write(tmp_path, 1, 2, 3)
    second.unlink()
    second.mkdir()
    read = Path.read_bytes

    def without_third(self):
        return read(self.with_name("gone") if self == third else self)  # removed since the folder was listed

    monkeypatch.setattr(Path, "read_bytes", without_third)
    found = load(tmp_path)
    assert found.state["step"] == 1
    assert found.passed_over == (f"{third.name} is gone", f"{second.name} is a folder")


def test_a_disk_that_does_not_answer_stops_the_call_and_the_checkpoint_stays(tmp_path, monkeypatch):
    """If it were passed over, the next save would remove it."""
    _, path = write(tmp_path, 1, 2)

    def fails(self):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        with pytest.raises(RunError, match=rf"{path.name} cannot be read: Stale .*\. It may be sound") as caught:
            load(tmp_path)
    assert not isinstance(caught.value, CheckpointDamaged)
    assert load(tmp_path).path == path


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    beside = tmp_path / "trap"
    torch.save({"step": Trap()}, beside, pickle_module=pickle)
    (tmp_path / "checkpoints").mkdir()
    name = f"step-000000001-{hashlib.sha256(beside.read_bytes()).hexdigest()[:12]}.pt"
    beside.replace(tmp_path / "checkpoints" / name)
    with pytest.raises(RunError, match=f"{name} is not a checkpoint") as caught:
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()
    assert "\n" not in str(caught.value)


def test_none(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert not exists(folder)
        with pytest.raises(RunError, match=rf"{folder} holds no checkpoint"):
            load(folder)


def test_others_files_are_left_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("notes.txt", "step-latest.pt", "mine.pt"):
        (tmp_path / "checkpoints" / name).write_text("mine")
    assert not exists(tmp_path)
    write(tmp_path, 1, 2, keep=1)
    assert load(tmp_path).passed_over == ()
    assert {"notes.txt", "step-latest.pt", "mine.pt"} < set(names(tmp_path))
