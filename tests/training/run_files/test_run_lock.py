"""One process per run folder: a live holder is named, a dead one is replaced, nothing is left behind."""

import subprocess
import sys

import pytest

from c2l_models.errors import RunError
from c2l_models.files import this_process
from c2l_models.training.run_files import run_lock
from c2l_models.training.run_files.run_lock import LOCK, locked, locked_run_folder

HOLD = """
import sys
from pathlib import Path
from c2l_models.training.run_files.run_lock import locked_run_folder
with locked_run_folder(Path(sys.argv[1]), resume=False):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(run_lock.fcntl is None, reason="no locks on Windows")
@pytest.mark.parametrize("resume", [False, True])
def test_a_live_run_is_refused_by_name_and_a_dead_one_is_taken_over(tmp_path, holder, resume):
    run = tmp_path / "run"
    host = this_process().rpartition("-")[0]
    with pytest.raises(RunError, match=rf"run is in use by process {holder.pid} on {host}; wait"):  # noqa: SIM117
        with locked_run_folder(run, resume):
            pass
    holder.kill()
    holder.wait()
    assert (run / LOCK).exists()
    with locked_run_folder(run, resume):
        assert (run / LOCK).read_text(encoding="utf-8") == f"{this_process()}\n"
    assert not run.exists()  # it was created by the killed process, and is empty


def test_an_existing_folder_needs_resume(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(RunError, match="exists; choose another folder"), locked_run_folder(tmp_path, resume=False):
        pass
    with pytest.raises(RunError, match="exists"), locked_run_folder(tmp_path / "a", resume=True):  # a file
        pass
    with locked_run_folder(tmp_path, resume=True):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", LOCK]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked_run_folder(tmp_path / "a" / "b", resume=False):
        raise ZeroDivisionError
    assert not (tmp_path / "a" / "b").exists()


def test_without_locks_of_the_file_system(tmp_path, monkeypatch, holder):
    """The holder's number says whether it lives; a holder on another host must be asked."""

    def unsupported(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock.fcntl, "lockf", unsupported)
    with pytest.raises(RunError, match=f"process {holder.pid} on"), locked(tmp_path / "run"):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run"):
        pass
    (tmp_path / "run" / LOCK).write_text("far-away-12\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"process 12 on far-away; .*remove .*run\.lock"), locked(tmp_path / "run"):
        pass
