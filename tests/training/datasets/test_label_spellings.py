"""labels.csv as spreadsheets write it: separators, case, NA, repeated columns; and refused rows told apart."""

import csv
import math

import pytest

from c2l_models import cli
from c2l_models.errors import DatasetError
from c2l_models.radiographs.phantom import write_films
from c2l_models.training.datasets import folder
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.store.image_store import ImageStore


@pytest.fixture
def films(tmp_path):
    root = write_films(tmp_path / "films", 3)
    (root / "labels.csv").unlink()
    return root


def table(root, lines, separator=",", encoding="utf-8"):
    names = sorted(path.name for path in root.glob("*.png"))
    text = "\n".join(separator.join(line) for line in lines(names)) + "\n"
    (root / "labels.csv").write_text(text, encoding=encoding)
    return folder.records(root)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("head", [["path", "patient", "split"], ["Path", "PATIENT", " Split"]])
def test_separators_and_case(films, separator, head):
    found = table(
        films, lambda names: [[*head, "Erguss, links" if separator != "," else "Erguss"], [names[0], "a", "test", "1"]],
        separator, "utf-8-sig",
    )  # fmt: skip
    (record,) = found
    assert record.split == "test"
    assert list(record.labels.values()) == [1.0]
    assert record.path.is_file()


def test_spaces_around_names_are_no_part_of_them(films):
    (record,) = table(films, lambda names: [["path", " patient", " a "], [names[0], " 7", " 1"]])
    assert record.labels == {"a": 1.0}


@pytest.mark.parametrize("unknown", ["NA", "N/A", "nan", "NULL", "none", " "])
def test_values_that_are_unknown(films, unknown):
    found = table(
        films,
        lambda names: [["path", "patient", "split", "a"], *([name, unknown, unknown, unknown] for name in names)],
    )
    assert all(math.isnan(record.labels["a"]) and record.split == "train" for record in found)
    assert len({record.patient for record in found}) == 3  # not one patient called NA


def test_decimal_commas_and_codes_in_any_case(films):
    found = table(
        films,
        lambda names: [
            ["Path", "Split", "View", "a"],
            [names[0], "Test", "pa", "0,5"],
            [names[1], "TRAIN", "", "-1,0"],
            [names[2], "train", "", "+1e-1"],
        ],
        ";",
    )
    assert [(record.split, record.view, record.labels["a"]) for record in found] == [
        ("test", "PA", 0.5),
        ("train", "", -1.0),
        ("train", "", 0.1),
    ]


@pytest.mark.parametrize("value", ["1,000,5", "a,5", "11", "1.000,5", "1_0", "٣", "inf", "+nan"])
def test_values_that_are_no_labels(films, value):
    with pytest.raises(DatasetError, match=r"line 2: a is not a label.*a grade above 10 by columns of 0 and 1"):
        table(films, lambda names: [["path", "a"], [names[0], value]], ";")


def test_grades_and_missing_splits_are_named(films, tmp_path, capsys):
    names = sorted(path.name for path in films.glob("*.png"))
    lines = ["path,sick,grade,dose", *(f"{name},{i % 2},{i},0.5" for i, name in enumerate(names))]
    (films / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cli.main(["prepare", "--source", f"folder={films}", "--out", str(tmp_path / "store"), "--workers", "1"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "folder has labels, but no images in split test" in printed
    assert "add a column split to the table" in printed
    store = ImageStore.open(tmp_path / "store")
    task = load_task("folder", store)
    assert task.label_names(store) == ("sick",)
    assert task.note_on_labels(store).startswith("Left out, because only labels of 0 and 1 are measured: dose, grade.")
    with pytest.raises(DatasetError, match="in split test, found 3 in train in the store; write splits in the column"):
        task.test_rows(store)


def test_two_columns_of_one_name(films):
    with pytest.raises(DatasetError, match="the same name in columns 2 and 4; rename or remove one"):
        table(films, lambda names: [["path", "a", "b", "a"], [names[0], "1", "0", "0"]])


def test_refused_rows_are_told_apart(films, capsys, tmp_path):
    names = sorted(path.name for path in films.glob("*.png"))
    (films / names[1]).write_bytes(b"no image")
    rows = [names[0], names[1], names[2].upper(), "absent.png"]
    (films / "labels.csv").write_text("path\n" + "\n".join(rows) + "\n", encoding="utf-8")
    cli.main(["prepare", "--source", f"folder={films}", "--out", str(tmp_path / "store"), "--workers", "1"])
    printed = capsys.readouterr().out
    with (tmp_path / "store" / "refused.csv").open(encoding="utf-8", newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["absent.png"] == "no such file"
    assert reasons[names[2].upper()].startswith("no such file; its folder holds this name in other letters")
    assert "no such file" not in reasons[names[1]]
    for path, reason in reasons.items():
        assert f"left out {path!r}: {reason}" in printed
    assert "labels.csv" not in reasons
    assert printed.splitlines()[-1].endswith(f"; {len(reasons)} files left out")
