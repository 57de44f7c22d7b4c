"""Code that the adapters share: label names, label files, relative paths, refused rows."""

import gzip
from pathlib import Path

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.adapters import ADAPTERS
from c2l_models.training.datasets.constants import PUBLIC, label_names
from c2l_models.training.datasets.label_tables import UniqueRows, find_distribution, read_table
from c2l_models.training.datasets.record import relative_path


def test_a_missing_column_and_another_encoding_are_refused(tmp_path, write_csv):
    write_csv(tmp_path / "labels.csv", ["image", "subject"])
    with pytest.raises(DatasetError, match="no column side, kl_grade, split"):
        ADAPTERS["knee_kl"](tmp_path)
    (tmp_path / "labels.csv").write_bytes("path\nfilm é.png".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        ADAPTERS["folder"](tmp_path)


def test_label_names():
    assert label_names("chestxray14")[:3] == ("Atelectasis", "Cardiomegaly", "Effusion")
    assert len(label_names("chestxray14")) == 14
    assert label_names("knee_kl") == ("kl_grade",)
    assert label_names("chexpert")[:3] == ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly")
    assert len(label_names("chexpert")) == 14
    assert label_names("mimic_cxr") == label_names("chexpert")
    adapters = {"chestxray14", "chexpert", "mimic_cxr", "mura", "rsna", "knee_kl", "fracatlas", "folder"}
    assert set(ADAPTERS) == adapters
    assert frozenset({"chestxray14", "knee_kl", "rsna", "fracatlas"}) == PUBLIC
    with pytest.raises(
        DatasetError, match="unknown data set 'chestxray15'; choose from chestxray14, chexpert, mimic_cxr"
    ):
        label_names("chestxray15")


def test_a_table_may_be_gzipped_start_with_a_mark_or_have_no_header(tmp_path, write_csv):
    plain, zipped, bare = tmp_path / "a.csv", tmp_path / "a.csv.gz", tmp_path / "b.csv"
    write_csv(plain, ["a", "b"], ["1", "2"], bom=True)
    write_csv(zipped, ["a", "b"], ["1", "2"], bom=True)
    write_csv(bare, ["1", "2"], bom=True)
    assert list(read_table(plain, ["a"])) == [(2, {"a": "1", "b": "2"})]
    assert list(read_table(zipped, ["a"])) == [(2, {"a": "1", "b": "2"})]
    assert list(read_table(bare, ["a", "b"], header=False)) == [(1, {"a": "1", "b": "2"})]


@pytest.mark.parametrize("damage", [lambda whole: whole[:-20], lambda whole: b"a,b\n1,2\n"])
def test_a_torn_gzip_file_and_one_that_is_none_are_refused(tmp_path, damage):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(damage(whole))
    with pytest.raises(DatasetError, match=r"a\.csv\.gz is not a complete gzip file; download it again"):
        list(read_table(tmp_path / "a.csv.gz", ["a"]))


def test_no_field_is_quoted_where_a_header_is_missing(tmp_path, write_csv):
    write_csv(tmp_path / "a.csv", ["patient00001", "x"])
    with pytest.raises(DatasetError, match="no column path among its 2 columns") as caught:
        list(read_table(tmp_path / "a.csv", ["path"]))
    assert "patient00001" not in str(caught.value)


def test_the_distribution_is_the_folder_or_its_one_child(tmp_path):
    with pytest.raises(DatasetError, match=r"list\.csv is missing"):
        find_distribution(tmp_path, "list.csv", ["one", "two"])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "list.csv").touch()
    assert find_distribution(tmp_path, "list.csv", ["one", "two"]) == tmp_path / "one"
    assert find_distribution(tmp_path / "one", "list.csv", ["one", "two"]) == tmp_path / "one"
    (tmp_path / "two" / "list.csv").touch()
    with pytest.raises(DatasetError, match="the same images twice, in one and two; give one"):
        find_distribution(tmp_path, "list.csv", ["one", "two"])


@pytest.mark.parametrize("root", [".", "/", "/a", "a/b", "../a"])
def test_below_is_relative_to(root):
    path = Path(root) / "x y" / "z.png"
    assert relative_path(path, Path(root)) == path.relative_to(root).as_posix() == "x y/z.png"


@pytest.mark.parametrize("name", ["/etc/hostname", "../b.png", "images/../../b.png", ".."])
@pytest.mark.parametrize("root", [".", "/a", "a/b"])
def test_below_refuses_what_lies_outside(root, name):
    with pytest.raises(DatasetError, match="names a file outside this folder"):
        relative_path(Path(root) / name, Path(root))


def test_a_blank_line_is_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n\n3,4\n\n")
    assert list(read_table(tmp_path / "a.csv", ["a"])) == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]


def test_one_row_each_names_lines_and_not_ids(tmp_path):
    once = UniqueRows()
    once.check("i1", "p1", "train", tmp_path / "train.csv", 2)
    once.check("i2", "p1", "train", tmp_path / "train.csv", 3)
    with pytest.raises(DatasetError, match=r"b\.csv, line 9: same image as in train\.csv, line 3") as caught:
        once.check("i2", "p1", "train", tmp_path / "b.csv", 9)
    assert "i2" not in str(caught.value)
    with pytest.raises(
        DatasetError, match=r"line 7: this patient is in split val here, but in split train in train\.csv, line 2"
    ):
        once.check("i3", "p1", "val", tmp_path / "valid.csv", 7)
