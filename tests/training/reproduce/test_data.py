"""Raw folders by name, and the stores: reused if they exist, otherwise made."""

import shutil
from dataclasses import replace

import pytest

from c2l_models.errors import C2LError, DatasetError
from c2l_models.training.reproduce.data import DataMissing, Stores, find_data


@pytest.fixture
def sets(tmp_path):
    for name in ("ChestX-ray14", "knee-kl", "something-else", "rsna-pneumonia"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    return tmp_path / "sets"


def test_a_folder_of_sets_under_their_usual_names(sets):
    found = find_data([str(sets)])
    assert found == {
        "chestxray14": sets / "ChestX-ray14",
        "knee_kl": sets / "knee-kl",
        "rsna": sets / "rsna-pneumonia",
    }


def test_pairs_and_folders_together(sets, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    found = find_data([str(sets), f"mura={tmp_path / 'elsewhere'}"])
    assert found["mura"] == tmp_path / "elsewhere"
    assert len(found) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mora=DIR", r"no data set is called 'mora'; did you mean .*mura"),
        ("mura=DIR/absent", r"expected the folder that holds mura, but .*absent is not a folder"),
        ("DIR/absent", r"absent: expected a folder that holds data sets, or NAME=DIR, but it is not a folder"),
        ("DIR/something-else", r"something-else holds no data set; expected folders such as chestxray14"),
    ],
)
def test_what_is_wrong_is_told(sets, given, message):
    with pytest.raises(C2LError, match=message):
        find_data([given.replace("DIR", str(sets))])


def test_a_set_given_twice_is_told(sets):
    with pytest.raises(C2LError, match=r"names knee_kl twice: .*knee-kl and .*something-else"):
        find_data([str(sets), f"knee_kl={sets / 'something-else'}"])


@pytest.fixture
def stores(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "patient.key").write_bytes(bytes(32))
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    return Stores(tmp_path / "stores", {"folder": tiny_folder}, size=32, workers=1, progress=False)


def test_a_store_is_made_once(stores):
    made = stores.get({"folder"})
    assert (len(made), made.size) == (64, 32)
    written = (made.path / "images.npy").stat().st_mtime_ns
    again = stores.get({"folder"})
    assert (again.path, again.sha256) == (made.path, made.sha256)
    assert (again.path / "images.npy").stat().st_mtime_ns == written


def test_a_store_that_is_there_needs_no_raw_folder(stores, tiny_store_folder):
    shutil.copytree(tiny_store_folder, stores.folder / "by-hand")
    without = Stores(stores.folder, {}, size=32)
    without.require({"folder"})
    assert without.get({"folder"}).path.name == "by-hand"


def test_of_two_stores_that_of_the_run_is_taken_and_else_the_smaller(stores, tiny_store_folder, tiny_folder, tmp_path):
    shutil.copytree(tiny_store_folder, stores.folder / "large")
    fewer = shutil.copytree(tiny_folder, tmp_path / "fewer")
    (fewer / "labels.csv").write_text("".join((fewer / "labels.csv").open().readlines()[:41]))
    small = Stores(tmp_path / "elsewhere", {"folder": fewer}, 32, workers=1, progress=False).get({"folder"})
    shutil.copytree(small.path, stores.folder / "small")
    large = stores.get({"folder"}, sha256=small.sha256)
    assert len(stores.get({"folder"})) == len(small) < 64
    assert large.sha256 == small.sha256
    of_large = stores.get({"folder"}, sha256=stores_sha(tiny_store_folder))
    assert len(of_large) == 64


def stores_sha(folder):
    import hashlib

    return hashlib.sha256((folder / "index.parquet").read_bytes()).hexdigest()


def test_a_store_of_another_size_or_of_other_sets_is_left_alone(stores, tiny_store_folder):
    shutil.copytree(tiny_store_folder, stores.folder / "by-hand")
    for other in (Stores(stores.folder, {}, size=64), Stores(stores.folder, {}, size=32)):
        with pytest.raises(DataMissing, match="--data mura=DIR"):
            other.get({"mura"})
    with pytest.raises(DataMissing, match="--data folder=DIR"):
        Stores(stores.folder, {}, size=64).get({"folder"})


def test_what_is_missing_is_named(stores):
    with pytest.raises(DataMissing, match="--data does not name chexpert, mura; add --data chexpert=DIR"):
        stores.require({"mura", "folder", "chexpert"})
    with pytest.raises(DataMissing, match="--data does not name rsna"):
        stores.raw_folders("rsna")
    assert stores.raw_folders("folder") == stores.data


def test_images_for_pretraining_only_are_marked(tiny_folder, stores, tmp_path):
    """One image by its path; a pattern of a data set that this store does not hold is not used."""
    first = sorted(path for path in tiny_folder.rglob("*.png"))[0].relative_to(tiny_folder).as_posix()
    marking = Stores(
        tmp_path / "marking",
        stores.data,
        size=32,
        workers=1,
        progress=False,
        pretraining_only=(f"folder:{first}", "chestxray14:images_002/*"),
    )
    index = marking.get({"folder"}).index
    marked = index.filter(index["pretraining_only"])["path"].to_pylist()
    assert len(marked) == 1
    assert marked[0].endswith(first)


@pytest.mark.parametrize(
    ("text", "message"),
    [("chestxray_14:images_002/*", "no data set is called 'chestxray_14'; did you mean chestxray14"), ("a/*", "colon")],
)
def test_a_pattern_of_no_data_set_is_told(stores, text, message):
    with pytest.raises(C2LError, match=message):
        replace(stores, pretraining_only=(text,))


def test_a_finished_store_without_the_marks_is_refused(tiny_folder, stores):
    """A store marks what it was made with: one image, and then not the images of a later call's pattern."""
    first, second, *_ = sorted(path.relative_to(tiny_folder).as_posix() for path in tiny_folder.rglob("*.png"))
    marking = replace(stores, pretraining_only=(f"folder:{first}", "chestxray14:images_002/*"))
    made = marking.get({"folder"})
    assert marking.get({"folder"}).sha256 == made.sha256  # finished, with the same marks
    assert stores.get({"folder"}).sha256 == made.sha256
    for pattern, problem in ((second, "1 that are not marked"), ("*.png", "63 that are not"), ("no/*", "none that")):
        with pytest.raises(DatasetError, match=rf"found {problem}.*move the store away"):
            replace(stores, pretraining_only=(f"folder:{pattern}",)).get({"folder"})
