"""Data sets given to `prepare`: order of the records, index paths, files without a record, unreadable folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nobody import folder_of_nobody
from PIL import Image

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import list_images
from c2l_models.training.datasets.constants import constants, label_names
from c2l_models.training.datasets.record import Record
from c2l_models.training.store import sources
from c2l_models.training.store.build_plan import make_plan
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare
from c2l_models.training.store.sources import index_path, load_sources


@pytest.fixture(autouse=True)
def key(tmp_path_factory, monkeypatch) -> Path:
    """A fixed patient key."""
    path = tmp_path_factory.mktemp("key") / "patient.key"
    path.write_bytes(bytes(range(32)))
    monkeypatch.setenv("C2L_PATIENT_KEY", str(path))
    return path


def chexpert(root: Path, patients: int) -> Path:
    """CheXpert's label files with `patients` patients in the order of their numbers, without images."""
    root.mkdir(parents=True)
    header = ",".join(["Path", "AP/PA", *label_names("chexpert")])
    rows = [f"train/patient{n:05}/study1/view1_frontal.jpg,AP" + "," * 14 for n in range(1, patients + 1)]
    (root / "train.csv").write_text("\n".join([header, *rows]))
    (root / "valid.csv").write_text(header)
    return root


def nih(root: Path, *images: str) -> Path:
    """ChestX-ray14's label files with these images of one patient."""
    (root / "images").mkdir(parents=True)
    rows = [f"{image},No Finding,1,PA" for image in images]
    table = ["Image Index,Finding Labels,Patient ID,View Position", *rows]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(table))
    (root / "train_val_list.txt").write_text("\n".join(images))
    (root / "test_list.txt").touch()
    return root


def test_the_order_of_the_records_does_not_undo_the_hashes(tmp_path):
    (source,) = load_sources([("chexpert", chexpert(tmp_path / "set", 200))])
    numbers = [int(re.search(r"patient(\d+)", record.path.parts[-3])[1]) for record in source.records]
    assert sorted(numbers) == list(range(1, 201))
    in_place = sum(number == place for place, number in enumerate(numbers, 1))
    assert in_place < 10  # in a random order, 1 of 200 is expected
    names = [index_path(record, source.root) for record in source.records]
    assert names == sorted(names)


def test_what_else_there_is_is_looked_for_at_first_use_and_once(tmp_path, monkeypatch):
    root = nih(tmp_path, "00000001_000.png")
    calls = []
    monkeypatch.setattr(sources, "list_images", lambda folder: calls.append(folder) or list_images(folder))
    (source,) = load_sources([("chestxray14", root)])
    make_plan([source], 8)
    assert calls == []
    (root / "images" / "more.png").touch()
    assert source.unused == (("images/more.png", "on disk, but not in the label file"),)
    assert source.unused == source.unused
    assert calls == [root]
    assert load_sources([("chestxray14", root)], list_unused=False)[0].unused == ()


def test_a_name_that_is_no_utf8_is_told_in_utf8(tmp_path):
    root = nih(tmp_path / "nih", "00000001_000.png")
    odd = os.fsdecode(b"caf\xe9.png")
    (root / "images" / odd).touch()
    (source,) = load_sources([("chestxray14", root)])
    assert source.unused == ((r"images/caf\xe9.png", "on disk, but not in the label file"),)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / odd).touch()
    (films,) = load_sources([("folder", tmp_path / "films")])
    assert [index_path(record, films.root) for record in films.records] == [r"caf\xe9.png"]
    assert films.records[0].path.exists()
    assert films.unused == ()


def test_links_are_not_told_as_more_files(tmp_path):
    root, disk = nih(tmp_path / "nih", "00000001_000.png"), tmp_path / "disk"
    (root / "images").rename(disk)
    (disk / "00000001_000.png").touch()
    (root / "images").symlink_to(disk)
    (root / "once more").symlink_to(disk)
    (root / "up").symlink_to(root)
    (source,) = load_sources([("chestxray14", root)])
    assert source.records[0].path.exists()
    assert source.unused == ()


@pytest.mark.parametrize("image", ["/etc/hostname", "../../secret.png"])
def test_no_record_may_lead_outside_its_root(tmp_path, image):
    (tmp_path / "labels.csv").write_text(f"image,subject,side,kl_grade,split\n{image},1,L,2,val\n")
    with pytest.raises(DatasetError, match="names a file outside this folder") as caught:
        load_sources([("knee_kl", tmp_path)])
    assert str(caught.value).startswith(str(tmp_path))


def test_an_error_of_the_system_names_the_root_alone(tmp_path, monkeypatch):
    def adapter(root: Path) -> list[Record]:
        raise PermissionError(13, "Permission denied", str(root / "p16/p16100732"))

    monkeypatch.setitem(sources.ADAPTERS, "mimic_cxr", adapter)
    with pytest.raises(DatasetError, match="a file or folder in it cannot be read: Permission denied") as caught:
        load_sources([("mimic_cxr", tmp_path)])
    assert "16100732" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.fixture
def own() -> Iterator[Path]:
    """A folder whose permissions also apply to root."""
    with folder_of_nobody() as folder:
        yield folder


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_folders_that_may_not_be_entered_or_listed_are_told_and_passed_over(own, monkeypatch, mode):
    monkeypatch.setenv("C2L_PATIENT_KEY", str(own / "key"))
    root = own / "films"
    for name in ("a.png", "locked/b.png", "locked/c.dcm", "locked/deep/d.png", "locked/nosuffix"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "locked").chmod(mode)
    (films,) = load_sources([("folder", root)])
    found = [index_path(record, root) for record in films.records]
    listed = [path for path, reason in films.unused if reason == "folder cannot be read: Permission denied"]
    if mode:
        assert (found, listed) == (["a.png", "locked/b.png", "locked/c.dcm"], ["locked/deep"])
    else:
        assert (found, listed) == (["a.png"], ["locked"])


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_an_adapter_passes_over_a_folder_of_images_that_may_not_be_read(own, mode):
    root = nih(own / "nih", "00000001_000.png", "00000001_001.png")
    (root / "images_001" / "images").mkdir(parents=True)
    (root / "images_001" / "images" / "00000001_001.png").touch()
    (root / "images").chmod(mode)
    (source,) = load_sources([("chestxray14", root)])
    assert source.records[1].path == root / "images_001/images/00000001_001.png"
    (root / "images_001").chmod(mode)
    assert len(load_sources([("chestxray14", root)])[0].records) == 2


def test_folders_with_names_of_their_own_are_marked_and_their_sources_stored(tmp_path):
    for name in ("left", "right"):
        (tmp_path / name / "new").mkdir(parents=True)
        for file in ("a.png", "new/b.png"):
            Image.new("L", (8, 8)).save(tmp_path / name / file)
    (tmp_path / "left" / "dataset.toml").write_text("name = 'left'\nlicense = 'CC0-1.0'\npretraining_only = 'new/*'")
    (tmp_path / "right.toml").write_text("name = 'right'\ntable = 'films.csv'\n[columns]\nsource = 'clinic'")
    (tmp_path / "right" / "films.csv").write_text("path,clinic\na.png,north\nnew/b.png,\n")
    given = [("folder", tmp_path / "left"), (str(tmp_path / "right.toml"), tmp_path / "right")]
    options = {"size": 8, "workers": 1, "progress": False}
    out = prepare(given, tmp_path / "store", **options, pretraining_only=["right:a*"]).store
    store = ImageStore.open(out)
    assert store.index["path"].to_pylist() == ["a.png", "new/b.png"] * 2
    assert store.sources.tolist() == ["left", "left", "right/north", "right"]
    assert store.pretraining_only.tolist() == [False, True, True, False]
    assert store.data_sets() == {"left": {"license": "CC0-1.0"}}
    with pytest.raises(DatasetError, match=r"built with other settings: sha256 of the records .*pretraining only"):
        prepare(given, out, **options)
    for text, message in (
        ("wrong:a*", "expected NAME:PATTERN with a data set among left, right"),
        ("left", "expected NAME:PATTERN"),
        ("left:c*", "found no image that matches it"),
    ):
        with pytest.raises(DatasetError, match=message):
            load_sources(given, pretraining_only=[text])
    (tmp_path / "left" / "dataset.toml").write_text("name = 'left'\npretraining_only = ['new/*', 'nwe/*']")
    with pytest.raises(DatasetError, match=r"left:nwe/\*: .* found no image that matches it"):
        load_sources(given)
    with pytest.raises(DatasetError, match="expected each data set once, found left, left;"):
        load_sources([("folder", tmp_path / "left"), ("left", tmp_path / "left")])


def test_body_parts_of_records_are_codes(real_data):
    parts = set(constants()["body_parts"])
    for name, root in (("chestxray14", "chestxray14"), ("knee_kl", "knee-kl"), ("fracatlas", "fracatlas")):
        (source,) = load_sources([(name, real_data / root)], list_unused=False)
        assert {record.body_part for record in source.records} <= parts
