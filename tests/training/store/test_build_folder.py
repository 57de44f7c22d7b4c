"""The build folder, and existing targets: an unfinished store, a finished store, the user's own folder."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from store_helpers import SIZE, prepare_folder, stopped_at, store_bytes, write_image, write_images

from c2l_models.errors import DatasetError
from c2l_models.training.store import build_folder, prepare, store_format


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path_factory.mktemp("key") / "patient.key"))


def interrupted_store(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of images, and the path of its store, whose creation was interrupted."""
    write_images(tmp_path / "films", 3)
    with stopped_at(store_format.pq, "write_table"):
        prepare_folder(tmp_path / "films", tmp_path / "store")
    return tmp_path / "films", tmp_path / "store"


def test_a_finished_store_is_reported_to_the_same_call_and_not_overwritten_by_another(tmp_path):
    root, out = write_images(tmp_path / "films", 2), tmp_path / "store"
    (root / "0002.png").write_bytes((root / "0000.png").read_bytes())
    (root / "0003.png").write_bytes(b"broken")
    report = prepare_folder(root, out)
    before = store_bytes(out)
    assert replace(prepare_folder(root, out), seconds=0) == replace(report, seconds=0)
    assert (report.images, report.refused, report.duplicates, report.shard) == (3, 1, 1, None)
    for other, differ in (({"size": SIZE + 1}, "size"), ({"shard": (1, 1)}, "shard")):
        with pytest.raises(
            DatasetError,
            match=f"store already exists and is not overwritten: it was built with other settings: {differ};",
        ):
            prepare_folder(root, out, **other)
    (tmp_path / "own").mkdir()
    with pytest.raises(DatasetError, match="own already exists, is not a store and is not overwritten; remove it"):
        prepare_folder(tmp_path / "absent", tmp_path / "own")  # raised before any file is listed
    assert store_bytes(out) == before
    assert not (tmp_path / "store.partial").exists()


def test_a_report_says_of_which_shard_it_is(tmp_path):
    root = write_images(tmp_path / "films", 2)
    assert [prepare_folder(root, tmp_path / "shard", shard=(2, 3)).shard for _ in range(2)] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("leftover", ["all", "lock", "nothing"])
def test_killed_once_the_store_has_its_name_the_same_call_clears_up(tmp_path, monkeypatch, leftover):
    root, out = write_images(tmp_path / "films", 2), tmp_path / "store"
    with stopped_at(prepare, "sync_folder"):
        prepare_folder(root, out)
    before, partial = store_bytes(out), tmp_path / "store.partial"
    assert {path.name for path in partial.iterdir()} == {"c2l.lock", "journal.jsonl"}
    if leftover != "all":
        (partial / "journal.jsonl").unlink()
    if leftover == "nothing":
        (partial / "c2l.lock").unlink()
    assert prepare_folder(root, out).images == 2
    assert store_bytes(out) == before
    assert not partial.exists()


def test_a_folder_of_ones_own_is_not_taken_for_a_store_begun(tmp_path):
    root, own = write_images(tmp_path / "films", 2), tmp_path / "store.partial"
    own.mkdir()
    (own / "precious.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"store\.partial is needed to build the store, but contains other files"):
        prepare_folder(root, tmp_path / "store")
    assert (own / "precious.txt").read_text() == "mine"
    (own / "precious.txt").unlink()
    assert prepare_folder(root, tmp_path / "store").images == 2  # an empty folder is used


def test_a_journal_of_unknown_plan_is_begun_again_and_never_trusted(tmp_path):
    root, out = interrupted_store(tmp_path)
    names = sorted(path.name for path in root.iterdir())
    for name, new in zip(names, ("c.png", "b.png", "a.png"), strict=True):
        (root / name).rename(root / new)
    journal = tmp_path / "store.partial" / "journal.jsonl"
    head, rest = journal.read_bytes().split(b"\n", 1)
    journal.write_bytes(head[:-3] + b"\n" + rest)  # cut short
    with pytest.warns(UserWarning, match="journal.jsonl is damaged"):
        prepare_folder(root, out)
    assert store_bytes(out) == store_bytes(prepare_folder(root, tmp_path / "whole").store)


@pytest.mark.parametrize("name", ["pillow", "pyarrow"])
def test_a_store_is_of_one_version_of_what_decodes_and_writes(tmp_path, monkeypatch, name):
    root, out = interrupted_store(tmp_path)
    version = store_format.version
    monkeypatch.setattr(store_format, "version", lambda library: "0" if library == name else version(library))
    with pytest.raises(DatasetError, match=f"begun with other settings: version of {name};"):
        prepare_folder(root, out)


def test_stopped_while_the_store_is_put_together_it_goes_on(tmp_path):
    root, out = interrupted_store(tmp_path)
    assert not out.exists()
    partial = tmp_path / "store.partial"
    assert {str(path.relative_to(partial)) for path in partial.rglob("*.*") if path.is_file()} == {
        "c2l.lock",
        "journal.jsonl",
        "store/images.npy",  # the only copy of the array
    }
    assert store_bytes(prepare_folder(root, out).store) == store_bytes(prepare_folder(root, tmp_path / "whole").store)


def test_a_store_begun_for_something_else_is_refused(tmp_path):
    root, out = interrupted_store(tmp_path)
    with pytest.raises(DatasetError, match=r"store\.partial was begun with other settings: size;"):
        prepare_folder(root, out, size=SIZE + 1)
    with pytest.raises(DatasetError, match="begun with other settings: shard;"):
        prepare_folder(root, out, shard=(1, 2))
    write_image(root / "more.png", 9)
    with pytest.raises(DatasetError, match="other settings: records, sha256 of the records;"):
        prepare_folder(root, out)
    (root / "more.png").unlink()
    (tmp_path / "store.partial" / "store" / "images.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match="shorter than journal"):
        prepare_folder(root, out)


def test_a_folder_is_one_process_at_a_time_and_stays_after_an_error_alone(tmp_path):
    folder = tmp_path / "there" / "it is"
    with build_folder.locked_build_folder(folder):
        (folder / "sub").mkdir()
        with (
            pytest.raises(DatasetError, match="it is is in use by another process"),
            build_folder.locked_build_folder(folder),
        ):
            pytest.fail("was let in")
        assert {path.name for path in folder.iterdir()} == {"c2l.lock", "sub"}
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), build_folder.locked_build_folder(folder):
        raise ZeroDivisionError
    with build_folder.locked_build_folder(folder):  # the error released the lock
        pass
    assert not folder.exists()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, None])
def test_where_the_system_knows_no_locks_it_does_without(tmp_path, monkeypatch, error):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: object) -> None:
            raise OSError(error, "no locks here")

    monkeypatch.setattr(build_folder, "fcntl", NoLocks if error else None)
    assert prepare_folder(write_images(tmp_path / "films", 2), tmp_path / "store").images == 2
