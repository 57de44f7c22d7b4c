"""`CrashSafeArray`: after a stop, a kill or a flipped byte, the array still agrees with its journal."""

import errno
import os
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from c2l_models import files
from c2l_models.errors import DatasetError
from c2l_models.files import sync_file, sync_folder
from c2l_models.training.store import crash_safe_array
from c2l_models.training.store.crash_safe_array import JOURNAL, CrashSafeArray, journal_header, npy_header
from c2l_models.training.store.decode_or_refuse import Outcome

SIZE = 4
HEADER = {"size": SIZE, "sources": ["brökén"]}


def chunk(number: int) -> tuple[bytes, list[Outcome]]:
    """Outcomes of three files, the second refused, and two rows filled with 2n and 2n + 1."""
    rows = np.repeat(np.array([2 * number, 2 * number + 1], np.uint8), SIZE**2).tobytes()
    return rows, [Outcome("a" * 64), Outcome(refused="brökén"), Outcome(f"{number:064x}")]


def open_array(folder: Path) -> CrashSafeArray:
    return CrashSafeArray(folder, folder / "images.npy", SIZE, HEADER)


def rows(folder: Path) -> list[int]:
    images = np.load(folder / "images.npy")
    assert images.dtype == np.uint8
    assert images.shape == (len(images), SIZE, SIZE)
    assert (images == images[:, :1, :1]).all()
    return images[:, 0, 0].tolist()


@pytest.mark.parametrize("count", [0, 1, 9, 10, 727_000, 10**9])
def test_the_head_of_the_array_is_numpys_and_of_one_length(tmp_path, count):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (min(count, 10), SIZE, SIZE)).flush()
    stored = (tmp_path / "a.npy").read_bytes()
    if count <= 10:
        assert stored.startswith(npy_header(count, SIZE))
        assert len(stored) == len(npy_header(count, SIZE)) + count * SIZE**2
    assert len(npy_header(count, SIZE)) == len(npy_header(0, SIZE))


def test_what_was_appended_is_an_array_and_outcomes_after_stops_between(tmp_path):
    for number in range(3):
        with open_array(tmp_path) as array:
            assert len(array.outcomes) == 3 * number
            array.append(*chunk(number))
    with open_array(tmp_path) as array:
        array.finish()
        assert array.outcomes == [o for number in range(3) for o in chunk(number)[1]]
    assert rows(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_line_is_written_only_when_its_rows_are_on_the_disk_and_not_with_every_one(tmp_path, monkeypatch):
    seen, now = [], [100.0]
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        sizes = [(tmp_path / name).stat().st_size for name in ("images.npy", JOURNAL)]
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, *sizes))
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name a descriptor's file")
    monkeypatch.setattr(crash_safe_array.os, "fsync", spy)
    monkeypatch.setattr(crash_safe_array.time, "monotonic", lambda: now[0])
    head, each = len(npy_header(0, SIZE)), 2 * SIZE**2
    with open_array(tmp_path) as array:
        written = (tmp_path / JOURNAL).stat().st_size
        seen.clear()
        array.append(*chunk(0))
        now[0] += crash_safe_array.SYNC_SECONDS / 2
        array.append(*chunk(1))
        assert seen == []
        now[0] += crash_safe_array.SYNC_SECONDS / 2
        array.append(*chunk(2))
    assert [name for name, *_ in seen] == ["images.npy", JOURNAL]
    assert seen[0][1:] == (head + 3 * each, written)
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 1 + 3


def test_any_flipped_or_cut_journal_gives_a_true_beginning(tmp_path):
    with open_array(tmp_path) as array:
        for number in range(3):
            array.append(*chunk(number))
    whole, rows_of_whole = (tmp_path / JOURNAL).read_bytes(), (tmp_path / "images.npy").read_bytes()
    first, *ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    truth = [o for number in range(3) for o in chunk(number)[1]]

    def reread(data: bytes) -> list[Outcome]:
        (tmp_path / JOURNAL).write_bytes(data)
        (tmp_path / "images.npy").write_bytes(rows_of_whole)
        with warnings.catch_warnings(record=True) as caught, open_array(tmp_path) as array:
            warnings.simplefilter("always")
        kept = len(array.outcomes)
        good = [first, *ends][kept // 3] if data.startswith(whole[:first]) else 0
        assert (tmp_path / JOURNAL).read_bytes() == (data[:good] or whole[:first])
        assert bool(caught) == (b"\n" in data[good:])
        return array.outcomes

    for offset in sorted({*range(0, len(whole), 6), *(end - 1 for end in ends)}):
        flipped = whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :]
        line = sum(end <= offset for end in ends)
        assert reread(flipped) == truth[: 3 * line]
        assert reread(whole[:offset]) == truth[: 3 * line]
    assert reread(whole[: ends[0]] + whole[ends[1] :]) == truth[:3]  # a missing line
    assert reread(whole[first:]) == []  # a missing header
    assert reread(whole) == truth


def test_rows_that_no_line_stands_for_are_written_over(tmp_path):
    with open_array(tmp_path) as array:
        array.append(*chunk(0))
    with (tmp_path / "images.npy").open("ab") as file:
        file.write(b"torn")
    with open_array(tmp_path) as array:
        array.append(*chunk(5))
        array.finish()
    assert rows(tmp_path) == [0, 1, 10, 11]


def test_rows_that_are_gone_are_told(tmp_path):
    with open_array(tmp_path) as array:
        array.append(*chunk(0))
    os.truncate(tmp_path / "images.npy", 100)
    with pytest.raises(DatasetError, match=r"images\.npy is shorter than journal\.jsonl says; remove"):
        open_array(tmp_path)


def test_a_journal_is_of_its_head_alone(tmp_path):
    assert journal_header(tmp_path) is None
    with open_array(tmp_path) as array:
        array.append(*chunk(0))
    assert journal_header(tmp_path) == HEADER
    before = (tmp_path / JOURNAL).read_bytes(), (tmp_path / "images.npy").read_bytes()
    with pytest.raises(DatasetError, match=r"journal\.jsonl belongs to another store; remove"):
        CrashSafeArray(tmp_path, tmp_path / "images.npy", SIZE, HEADER | {"size": 5})
    assert ((tmp_path / JOURNAL).read_bytes(), (tmp_path / "images.npy").read_bytes()) == before
    (tmp_path / JOURNAL).write_bytes(before[0][:20])
    assert journal_header(tmp_path) is None


def test_a_folder_that_cannot_be_synced_is_let_be_but_not_a_file(tmp_path, monkeypatch):
    """A file system may be unable to flush a folder. A failing disk is an error, for a folder too."""
    (tmp_path / "file").touch()
    for code, folder_raises in ((errno.EINVAL, False), (errno.EIO, True)):

        def refuse(_: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", refuse)
            with pytest.raises(OSError, match=os.strerror(code)) if folder_raises else nullcontext():
                sync_folder(tmp_path)
            with pytest.raises(OSError, match=os.strerror(code)):
                sync_file(tmp_path / "file")


def test_the_names_of_the_files_are_on_the_disk_before_any_line(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(crash_safe_array, "sync_folder", lambda path: synced.append(path))
    (tmp_path / "store").mkdir()
    with CrashSafeArray(tmp_path, tmp_path / "store" / "images.npy", SIZE, HEADER):
        assert set(synced) == {tmp_path, tmp_path / "store"}
