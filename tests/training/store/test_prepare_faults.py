"""`prepare` under kills, full disks and changing files: no finished work is lost, and the message names the cause."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from nobody import folder_of_nobody
from store_helpers import (
    SIZE,
    files_no_larger_than,
    prepare_folder,
    refusal_reasons,
    stopped_at,
    store_bytes,
    write_image,
    write_images,
)

from c2l_models.errors import DatasetError
from c2l_models.training.store import crash_safe_array, decode_or_refuse, store_format
from c2l_models.training.store.decode_workers import CHUNK


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path_factory.mktemp("key") / "patient.key"))


# Reading a file is slow and writes its name to a log. If a file with the suffix .deadly exists beside it, reading sends
# the process the signal named there. The workers import this script, so it changes their reading too.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from c2l_models.training.store import crash_safe_array, decode_or_refuse, prepare

read, log = decode_or_refuse.read_file, os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
crash_safe_array.SYNC_SECONDS = 0.05

def slow(path):
    os.write(log, (Path(path).name + "\\n").encode())
    time.sleep(0.004)
    if (deadly := Path(path).with_suffix(".deadly")).exists():
        os.kill(os.getpid(), getattr(signal, deadly.read_text()))
    return read(path)

decode_or_refuse.read_file = slow

if __name__ == "__main__":
    root, out, workers = sys.argv[1:]
    prepare.prepare([("folder", Path(root))], Path(out), {size}, int(workers), False)
"""


@pytest.fixture
def script(tmp_path: Path) -> tuple[list[str], Path]:
    """The command that slowly prepares `films` to `store` (append the number of workers), and its log."""
    file, log = tmp_path / "slow.py", tmp_path / "log"
    file.write_text(SCRIPT.format(size=SIZE, log=str(log)))
    return [sys.executable, str(file), str(tmp_path / "films"), str(tmp_path / "store")], log


def live_processes(leader: int) -> list[int]:
    """Ids of the live processes of a process group."""
    alive = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            alive.append(int(file.parent.name))
    return alive


def wait_for(what, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def count_journaled(partial: Path) -> int:
    """Number of files in the journal, read without the code under test."""
    _, *lines = (partial / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    return sum(len(json.loads(line[9:])) - 1 for line in lines)


def kill_when(command: list[str], ready, delay: float) -> bool:
    """Run a command and SIGKILL it `delay` seconds after `ready()`; False if it ended before."""
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: ready() or process.poll() is not None)
        time.sleep(delay)
        ended = process.poll() is not None
        process.kill()
    wait_for(lambda: live_processes(process.pid) == [])  # the workers end with their parent
    return not ended


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the processes")


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_it_ends_with_the_same_bytes_and_does_nothing_finished_again(
    tmp_path, script, workers
):
    command, log = script
    root = write_images(tmp_path / "films", 20 * CHUNK)
    (root / "0003.png").write_bytes(b"broken")
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)
    rng, journaled, kills = random.Random(workers), 0, 0
    for _ in range(4):
        before = size(log)
        if not kill_when([*command, str(workers)], lambda seen=before: size(log) > seen, rng.uniform(0, 0.3)):
            break
        kills += 1
        decoded = log.read_bytes()[before:].decode().split()
        assert decoded
        assert min(decoded) == f"{journaled:04}.png"  # resumes at the first file that is not in the journal
        assert len(set(decoded)) == len(decoded)
        journaled, earlier = count_journaled(tmp_path / "store.partial"), journaled
        assert journaled >= earlier
    assert kills >= 3
    assert journaled > 0
    prepare_folder(root, tmp_path / "store")
    assert store_bytes(tmp_path / "store") == whole
    assert not (tmp_path / "store.partial").exists()


def test_a_worker_that_is_killed_is_told_and_what_was_finished_stays(tmp_path, script):
    command, log = script
    root = write_images(tmp_path / "films", 12 * CHUNK)
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)
    deadly = root / f"{8 * CHUNK:04}.deadly"
    deadly.write_text("SIGKILL")
    ended = subprocess.run([*command, "2"], stderr=subprocess.PIPE, text=True)
    assert (
        f"DatasetError: {8 * CHUNK:04}.png: the process that decoded this file was killed (exit code -9), possibly "
        "because memory ran out"
    ) in ended.stderr
    assert count_journaled(tmp_path / "store.partial") == 8 * CHUNK
    deadly.unlink()
    first = count_journaled(tmp_path / "store.partial")
    log.unlink()
    subprocess.run([*command, "2"], check=True)
    assert min(log.read_text().split()) == f"{first:04}.png"
    assert store_bytes(tmp_path / "store") == whole


def test_a_file_that_crashes_its_process_is_refused_and_the_others_go_on(tmp_path, script):
    command, _ = script
    root = write_images(tmp_path / "films", 4 * CHUNK)
    whole = prepare_folder(root, tmp_path / "whole").store
    crashing = [f"{number:04}" for number in (2 * CHUNK, 2 * CHUNK + 1)]
    for name in crashing:
        (root / f"{name}.deadly").write_text("SIGSEGV")
    subprocess.run([*command, "2"], check=True)
    assert refusal_reasons(tmp_path / "store") == {
        f"{name}.png": "decoding this file crashed the process" for name in crashing
    } | {f"{name}.deadly": "not a PNG, JPEG, TIFF, BMP or DICOM file by its content" for name in crashing}
    others = [number for number in range(4 * CHUNK) if f"{number:04}" not in crashing]
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "images.npy"), np.load(whole / "images.npy")[others])


@pytest.mark.parametrize("stage", ["begun", "nearly done"])
def test_a_second_call_beside_the_first_is_refused(tmp_path, script, stage):
    command, log = script
    root, out = write_images(tmp_path / "films", 6 * CHUNK), tmp_path / "store"
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)
    with subprocess.Popen([*command, "1"]) as first:
        wait_for(lambda: size(log) >= 9 * (1 if stage == "begun" else 5 * CHUNK))
        with pytest.raises(DatasetError, match=r"store\.partial is in use by another process; wait until it ends"):
            prepare_folder(root, out)
        assert first.poll() is None
    assert first.returncode == 0
    assert store_bytes(out) == whole


@pytest.mark.parametrize(("side", "limit"), [(32, 128 + 20 * 32**2), (SIZE, 5200)], ids=["array", "tables"])
def test_a_full_disk_is_told_and_the_same_call_goes_on(tmp_path, monkeypatch, side, limit):
    monkeypatch.setattr(crash_safe_array, "SYNC_SECONDS", 0)
    root, out = write_images(tmp_path / "films", 3 * CHUNK), tmp_path / "store"
    whole = store_bytes(prepare_folder(root, tmp_path / "whole", size=side).store)
    sizes = {name: len(data) for name, data in whole.items()}
    assert sizes["images.npy"] > limit or sizes["images.npy"] < limit < sizes["index.parquet"]
    with files_no_larger_than(limit), pytest.raises(DatasetError, match="cannot be written to: ") as caught:
        prepare_folder(root, out, size=side)
    assert "store.partial" in str(caught.value)
    assert "free disk space, then repeat the command to resume" in str(caught.value)
    assert count_journaled(tmp_path / "store.partial") >= CHUNK
    assert store_bytes(prepare_folder(root, out, size=side).store) == whole


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("may not mount a small tmpfs here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.filterwarnings("ignore:.*may not fit")
def test_a_disk_that_is_really_full(tmp_path):
    root = write_images(tmp_path / "films", 5 * CHUNK)
    whole = store_bytes(prepare_folder(root, tmp_path / "whole", size=32).store)
    with tmpfs(tmp_path / "disk") as disk:
        with pytest.raises(DatasetError, match="No space left on device"):
            prepare_folder(root, disk / "store", size=32)
        assert count_journaled(disk / "store.partial") >= CHUNK
        shutil.copytree(disk / "store.partial", tmp_path / "store.partial")
    assert store_bytes(prepare_folder(root, tmp_path / "store", size=32).store) == whole


@pytest.fixture
def nobody_folder():
    """A folder of the user nobody, because root may read everything."""
    with tempfile.TemporaryDirectory() as first:
        write_image(Path(first) / "films" / "a.png", 0)
        (Path(first) / "films" / "labels.csv").write_text("path\na.png\n")
        prepare_folder(Path(first) / "films", Path(first) / "other")  # imports modules that only root may read
    with folder_of_nobody() as folder:
        yield folder


def test_folders_and_files_that_may_not_be_read_are_listed_and_the_others_go_on(nobody_folder, monkeypatch):
    root = nobody_folder / "films"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(nobody_folder / "key"))
    write_image(root / "a.png", 1)
    write_image(root / "locked" / "b.png", 2)
    write_image(root / "unlisted" / "d.png", 3)
    write_image(root / "c.png", 4)
    (root / "labels.csv").write_text("path\na.png\nlocked/b.png\nc.png\n")
    (root / "c.png").chmod(0)
    (root / "locked").chmod(0)
    (root / "unlisted").chmod(0)
    store = prepare_folder(root, nobody_folder / "store").store
    assert pq.read_table(store / "index.parquet")["path"].to_pylist() == ["a.png"]
    assert refusal_reasons(store) == {
        "c.png": "cannot be opened: Permission denied",
        "locked/b.png": "cannot be opened: Permission denied",
        "locked": "folder cannot be read: Permission denied",
        "unlisted": "folder cannot be read: Permission denied",
    }


def before_reading(monkeypatch, name: str, act) -> None:
    """Call `act` between the listing of a file and its reading."""
    read = decode_or_refuse.read_file
    monkeypatch.setattr(decode_or_refuse, "read_file", lambda path: (path.endswith(name) and act(), read(path))[1])


def test_a_file_that_changes_or_vanishes_is_stored_as_it_was_read_or_refused(tmp_path, monkeypatch):
    root = write_images(tmp_path / "films", 3)
    changed = write_image(tmp_path / "other.png", 99)
    before_reading(monkeypatch, "0000.png", lambda: shutil.copy(tmp_path / "other.png", root / "0000.png"))
    before_reading(monkeypatch, "0001.png", (root / "0001.png").unlink)
    store = prepare_folder(root, tmp_path / "store").store
    images, index = np.load(store / "images.npy"), pq.read_table(store / "index.parquet").to_pylist()
    np.testing.assert_array_equal(images[0], changed)
    assert index[0]["sha256"] == hashlib.sha256((tmp_path / "other.png").read_bytes()).hexdigest()
    assert [row["path"] for row in index] == ["0000.png", "0002.png"]
    assert refusal_reasons(store) == {"0001.png": "no such file"}


def test_a_flipped_byte_in_the_journal_is_noticed_and_its_files_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(crash_safe_array, "SYNC_SECONDS", 0)
    root, out = write_images(tmp_path / "films", 4 * CHUNK), tmp_path / "store"
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)
    with stopped_at(store_format.pq, "write_table"):
        prepare_folder(root, out)
    file = tmp_path / "store.partial" / "journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    damaged = bytearray(file.read_bytes())
    damaged[len(lines[0]) + len(lines[1]) + len(lines[2]) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"journal\.jsonl is damaged: the files of its last 3 lines are decoded again"):
        prepare_folder(root, out)
    assert store_bytes(out) == whole
