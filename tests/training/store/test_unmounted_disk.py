"""An unmounted disk, while a store is made or between two calls, is distinguished from missing files."""

import shutil
from pathlib import Path

import pytest
from store_helpers import prepare_folder, refusal_reasons, store_bytes, write_image, write_images

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.record import Record
from c2l_models.training.store import decode_or_refuse
from c2l_models.training.store.decode_workers import CHUNK
from c2l_models.training.store.unmounted_disk import STEP, UnmountedDiskCheck, find_sentinels

GONE = (
    r"^folder: folders that contained files when .*store\.partial was begun are now missing, empty or unreadable\. "
    r"Mount the disk again and repeat"
)


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path_factory.mktemp("key") / "patient.key"))


@pytest.fixture
def root(tmp_path) -> Path:
    """Two folders of five chunks each, and a label file of their files and of five chunks in a third, absent folder."""
    for name in ("a", "b"):
        write_images(tmp_path / "films" / name, 5 * CHUNK)
    lines = [f"{name}/{number:04}.png\n" for name in "abc" for number in range(5 * CHUNK)]
    (tmp_path / "films" / "labels.csv").write_text("path\n" + "".join(lines))
    return tmp_path / "films"


def at(monkeypatch, name: str, act) -> None:
    read = decode_or_refuse.read_file
    monkeypatch.setattr(decode_or_refuse, "read_file", lambda path: (path.endswith(name) and act(), read(path))[1])


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
@pytest.mark.parametrize("when", ["before it is reached", "in the middle"])
@pytest.mark.parametrize("mount", ["b", "."])
def test_a_mount_that_vanishes_stops_the_call_and_every_later_one_until_it_is_back(
    tmp_path, root, monkeypatch, left, when, mount
):
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)

    def unmount() -> None:
        (root / mount).rename(tmp_path / "away")
        if left == "an empty folder":
            (root / mount).mkdir()

    with monkeypatch.context() as patch:
        at(patch, "a/0003.png" if when == "before it is reached" else f"b/{CHUNK + 3:04}.png", unmount)
        with pytest.raises(DatasetError, match=GONE):
            prepare_folder(root, tmp_path / "store")
    if mount == "b":
        with pytest.raises(DatasetError, match=GONE):
            prepare_folder(root, tmp_path / "store")  # as on another node without the mount
    shutil.rmtree(root / mount, ignore_errors=True)
    (tmp_path / "away").rename(root / mount)
    assert store_bytes(prepare_folder(root, tmp_path / "store").store) == whole


def test_what_was_never_there_is_recorded_and_so_is_a_file_that_is_taken_out(tmp_path, root, monkeypatch):
    at(monkeypatch, "a/0001.png", (root / "a" / "0000.png").unlink)
    at(monkeypatch, "a/0001.png", (root / "a" / "0064.png").unlink)
    missing = [*(f"c/{number:04}.png" for number in range(5 * CHUNK)), "a/0064.png"]
    assert refusal_reasons(prepare_folder(root, tmp_path / "store").store) == dict.fromkeys(missing, "no such file")


def test_a_file_alone_in_its_folder_may_be_taken_out(tmp_path, monkeypatch):
    root = tmp_path / "films"
    for number in range(3):
        write_image(root / f"study{number}" / "0.png", number)
    at(monkeypatch, "study0/0.png", (root / "study0" / "0.png").unlink)
    assert refusal_reasons(prepare_folder(root, tmp_path / "store").store) == {"study0/0.png": "no such file"}


def test_landmarks_are_found_by_path_and_not_by_the_order_of_the_index(tmp_path):
    names = [f"{name}/{number:04}" for name in "ab" for number in range(3 * STEP)]
    shuffled = [names[(37 * position) % len(names)] for position in range(len(names))]
    assert sorted(shuffled) == names
    records = [Record(tmp_path / name, "folder", "p", "", "", {}) for name in shuffled]
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").touch()
    numbers = find_sentinels(records)
    assert [shuffled[number] for number in numbers] == names[::STEP]
    shutil.rmtree(tmp_path / "b")
    check = UnmountedDiskCheck(records, numbers)
    for number, name in enumerate(shuffled):
        beside = name >= f"a/{2 * STEP:04}"  # the next sentinel is in b
        assert check.lost_dataset([number]) == ("folder" if beside else "")
    assert find_sentinels(records) == numbers[:3]
