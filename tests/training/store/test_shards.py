"""Shards of a store: joined, they have the same bytes as a store made by one machine."""

import json
import shutil
from pathlib import Path

import pytest
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
from c2l_models.training.store import shards, store_format
from c2l_models.training.store.build_folder import locked_build_folder
from c2l_models.training.store.build_plan import shard_slice
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.shards import join_shards


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("key") / "patient.key"
    path.write_bytes(bytes(32))
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """A label file of seven images, one broken and one absent, and an image that it does not list."""
    root = write_images(tmp_path / "films", 7)
    (root / "0002.png").write_bytes(b"broken")
    (root / "0006.png").write_bytes((root / "0000.png").read_bytes())
    (root / "0005.png").unlink()
    write_image(root / "other.png", 9)
    (root / "labels.csv").write_text("path,finding\n" + "".join(f"{n:04}.png,{n % 2}\n" for n in range(7)))
    return root


def parts(root: Path, folder: Path, count: int) -> list[Path]:
    return [prepare_folder(root, folder / f"{k:02}", shard=(k, count)).store for k in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_shards_in_any_order_give_the_store_of_one_machine(tmp_path, root, count):
    whole = prepare_folder(root, tmp_path / "whole")
    made = parts(root, tmp_path / "shards", count)
    joined = join_shards(made[::-1], tmp_path / "joined", progress=False)
    assert store_bytes(joined.store) == store_bytes(whole.store)
    assert (joined.images, joined.refused, joined.duplicates) == (5, 3, 1)
    assert (whole.images, whole.refused, whole.duplicates) == (5, 3, 1)
    assert not (tmp_path / "joined.joining").exists()
    ImageStore.open(joined.store).verify()
    # With ten shards, some have no file and some only a refused one.
    images = [json.loads((path / "store.json").read_text())["images"] for path in made]
    assert sum(images) == 5
    assert count < 10 or images.count(0) == 5
    assert [name for path in made for name in refusal_reasons(path)] == list(refusal_reasons(whole.store))


def test_a_shard_is_decoded_in_processes_and_goes_on_like_a_store(tmp_path, root):
    alone = store_bytes(prepare_folder(root, tmp_path / "alone", shard=(2, 3)).store)
    assert store_bytes(prepare_folder(root, tmp_path / "together", shard=(2, 3), workers=2).store) == alone
    with files_no_larger_than(1000), pytest.raises(DatasetError, match="free disk space"):
        prepare_folder(root, tmp_path / "stopped", shard=(2, 3))
    assert store_bytes(prepare_folder(root, tmp_path / "stopped", shard=(2, 3)).store) == alone


def test_a_shard_is_not_taken_for_a_store(tmp_path, root):
    (first, *_) = parts(root, tmp_path / "shards", 2)
    with pytest.raises(DatasetError, match=r"01 is shard 1 of 2, not a store; join all shards with `c2l join`"):
        ImageStore.open(first)


def test_what_is_missing_twice_or_of_another_plan_is_named(tmp_path, root, key):
    made = parts(root, tmp_path / "shards", 4)
    out = tmp_path / "joined"
    with pytest.raises(DatasetError, match="expected 4 shards, 2, 3 missing"):
        join_shards([made[0], made[3]], out, progress=False)
    twice = shutil.copytree(made[1], tmp_path / "twice")
    with pytest.raises(DatasetError, match=r"(shards/02|twice), .*(shards/02|twice) are the same shard"):
        join_shards([*made, twice], out, progress=False)
    third = prepare_folder(root, tmp_path / "thirds", shard=(2, 3)).store
    with pytest.raises(
        DatasetError, match=r"thirds is not a shard of the same store as .*01; these settings differ: shards;"
    ):
        join_shards([made[0], third, *made[2:]], out, progress=False)
    larger = prepare_folder(root, tmp_path / "larger", shard=(2, 4), size=SIZE + 1).store
    with pytest.raises(DatasetError, match=r"larger is not a shard .*; these settings differ: size;"):
        join_shards([made[0], larger, *made[2:]], out, progress=False)
    key.write_bytes(bytes([1] * 32))
    stranger = prepare_folder(root, tmp_path / "stranger", shard=(2, 4)).store
    with pytest.raises(
        DatasetError,
        match=r"stranger is not a shard .*patient key changed; C2L_PATIENT_KEY must name a file with the same key in",
    ):
        join_shards([made[0], stranger, *made[2:]], out, progress=False)
    with pytest.raises(DatasetError, match="expected the folders of all shards, found none"):
        join_shards([], out)
    assert not out.exists()


def flip(file: Path, offset: int = -5) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: flip(s / "images.npy"), r"02/images\.npy does not match its sha256"),
        (lambda s: flip(s / "images.npy", 70), r"02/images\.npy does not match its sha256"),
        (lambda s: (s / "images.npy").write_bytes((s / "images.npy").read_bytes()[:-1]), r"images\.npy does not match"),
        (lambda s: (s / "images.npy").unlink(), r"images\.npy does not match"),
        (lambda s: flip(s / "index.parquet"), r"index\.parquet does not match its sha256"),
        (lambda s: flip(s / "refused.parquet"), r"refused\.parquet does not match its sha256"),
        (lambda s: (s / "store.json").unlink(), r"02 is not a finished shard"),
        (lambda s: (s / "store.json").write_text("{"), "damaged"),
        (lambda s: (s / "store.json").write_text("[]"), "damaged"),
    ],
)
def test_a_damaged_shard_is_named_and_nothing_made(tmp_path, root, damage, message):
    made = parts(root, tmp_path / "shards", 3)
    damage(made[1])
    with pytest.raises(DatasetError, match=message):
        join_shards(made, tmp_path / "joined", progress=False)
    assert not (tmp_path / "joined").exists()


def test_what_is_no_shard_is_told(tmp_path, root):
    store = prepare_folder(root, tmp_path / "store").store
    with pytest.raises(DatasetError, match="store is not a shard of format 3; make it with `c2l prepare --shard K/N`"):
        join_shards([store], tmp_path / "joined")
    (tmp_path / "own").mkdir()
    with pytest.raises(DatasetError, match="own already exists and is not overwritten"):
        join_shards(parts(root, tmp_path / "shards", 2), tmp_path / "own")


def test_shards_without_any_image_are_legal_but_no_store(tmp_path):
    root = write_images(tmp_path / "films", 2)
    (root / "0001.png").write_bytes(b"broken")
    made = parts(root, tmp_path / "shards", 2)
    assert refusal_reasons(made[1]).keys() == {"0001.png"}
    assert join_shards(made, tmp_path / "joined", progress=False).images == 1
    (root / "0000.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="no shard has an image"):
        join_shards(parts(root, tmp_path / "more", 2), tmp_path / "none", progress=False)


def test_stopped_or_out_of_room_it_begins_again(tmp_path, root):
    whole = store_bytes(prepare_folder(root, tmp_path / "whole").store)
    made = parts(root, tmp_path / "shards", 3)
    with files_no_larger_than(300), pytest.raises(DatasetError, match="The shards are safe: free disk space"):
        join_shards(made, tmp_path / "joined", progress=False)
    with stopped_at(shards, "write_description"):
        join_shards(made, tmp_path / "joined", progress=False)
    assert not (tmp_path / "joined").exists()
    assert store_bytes(join_shards(made, tmp_path / "joined", progress=False).store) == whole
    assert not (tmp_path / "joined.joining").exists()


def test_one_process_joins_and_no_folder_of_ones_own_is_taken(tmp_path, root):
    made, joining = parts(root, tmp_path / "shards", 2), tmp_path / "joined.joining"
    with (
        locked_build_folder(joining),
        pytest.raises(DatasetError, match=r"joined\.joining is in use by another process"),
    ):
        join_shards(made, tmp_path / "joined", progress=False)
    joining.mkdir()
    (joining / "precious.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"joined\.joining is needed to build the store, but contains other files"):
        join_shards(made, tmp_path / "joined", progress=False)
    assert (joining / "precious.txt").read_text() == "mine"


def test_joined_once_the_same_call_reports_it_and_another_does_not_overwrite_it(tmp_path, root):
    made, out = parts(root, tmp_path / "shards", 2), tmp_path / "joined"
    with stopped_at(shards, "sync_folder"):
        join_shards(made, out, progress=False)
    before = store_bytes(out)
    again = join_shards(made, out, progress=False)
    assert (again.images, again.refused, again.duplicates, again.shard) == (5, 3, 1, None)
    assert not (tmp_path / "joined.joining").exists()
    assert prepare_folder(root, out).images == 5  # an unsharded call for the same store
    with pytest.raises(DatasetError, match="exists and is not overwritten: it was built with other settings: size"):
        join_shards([prepare_folder(root, tmp_path / "large", shard=(1, 1), size=SIZE + 1).store], out, progress=False)
    assert store_bytes(out) == before


@pytest.mark.parametrize("name", ["pillow", "pyarrow", "pydicom"])
def test_shards_of_other_decoders_are_not_joined(tmp_path, root, monkeypatch, name):
    first = prepare_folder(root, tmp_path / "1", shard=(1, 2)).store
    version = store_format.version
    monkeypatch.setattr(store_format, "version", lambda library: "0" if library == name else version(library))
    second = prepare_folder(root, tmp_path / "2", shard=(2, 2)).store
    with pytest.raises(
        DatasetError, match=f"2 is not a shard of the same store as .*1; these settings differ: version of {name};"
    ):
        join_shards([first, second], tmp_path / "joined", progress=False)


def test_parts_are_of_equal_length_and_cover_all():
    for count in (0, 1, 7, 16, 727_000):
        for of in (1, 2, 3, 16):
            cut = [shard_slice(count, (number, of)) for number in range(1, of + 1)]
            assert [i for where in cut for i in range(count)[where]] == list(range(count))
            lengths = [where.stop - where.start for where in cut]
            assert max(lengths) - min(lengths) <= 1
    assert shard_slice(5, None) == slice(0, 5)
