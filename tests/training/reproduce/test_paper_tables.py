"""The paper's tables: complete, consistent, and some values compared with the page by hand."""

import tomllib

import pytest

from c2l_models.training.reproduce import paper_tables as tables

FILE = tables.PAPER


@pytest.fixture(scope="module")
def raw():
    return tomllib.loads(FILE.read_text())


# Rows and columns, counted on the page.
SIZES = {"table1": (5, 15), "table2": (9, 1), "table3": (8, 15), "table4": (8, 6), "table5": (4, 7)}


def test_every_figure_is_there(raw):
    assert {name: (len(table["rows"]), len(table["columns"])) for name, table in raw.items()} == SIZES
    for name, table in raw.items():
        for row in table["rows"]:
            assert len(row["values"]) == SIZES[name][1], row["name"]
            assert all(isinstance(value, float) for value in row["values"]), row["name"]
    assert sum(len(row["values"]) for table in raw.values() for row in table["rows"]) == 280


# Its average is not within 0.1 of the mean of the row's labels, although both are rounded to 0.1.
INCONSISTENT = {("table4", "MoCo, DenseNet-121")}


def test_averages_are_those_of_their_rows_but_for_one(raw):
    off = set()
    for name in ("table1", "table3", "table4"):
        for row in raw[name]["rows"]:
            average, *labels = (round(10 * value) for value in row["values"])  # exact, in tenths
            if abs(average * len(labels) - sum(labels)) > len(labels):
                off.add((name, row["name"]))
    assert off == INCONSISTENT


def test_the_inconsistent_average_is_kept_as_printed(raw):
    (row,) = [row for row in raw["table4"]["rows"] if row["name"] == "MoCo, DenseNet-121"]
    assert row["values"][0] == 87.4
    assert round(sum(row["values"][1:]) / 5, 1) == 87.5


BY_HAND = [
    ("table1", "ImageNet", "Hernia", 82.1),
    ("table1", "Bat. Mix.", "Edema", 76.1),
    ("table1", "Bat. + Feat. Mix. + loss_M", "Average", 76.3),
    ("table1", "Mix.", "Nodule", 79.4),
    ("table2", "RandCrop, queue 2^17", "Average", 74.4),
    ("table2", "RandCrop, queue 2^15", "Average", 74.9),
    ("table2", "+ Rotation + Jigsaw", "Average", 75.0),
    ("table3", "MG, ResNet-18", "Pneumonia", 74.0),
    ("table3", "C2L, ResNet-18", "Average", 83.5),
    ("table3", "ImageNet, DenseNet-121", "Hernia", 92.1),
    ("table3", "MoCo, DenseNet-121", "Emphysema", 90.7),
    ("table4", "C2L, DenseNet-121", "Pleural Effusion", 93.8),
    ("table4", "MoCo, ResNet-18", "Cardiomegaly", 79.4),
    ("table5", "MG", "0.6", 21.4),
    ("table5", "C2L", "0.2", 14.8),
    ("table5", "MoCo", "0.8", 21.2),
]


@pytest.mark.parametrize(("table", "row", "column", "value"), BY_HAND)
def test_cells_read_by_hand(table, row, column, value):
    assert tables.paper_tables()[table].metrics[row][column] == value


def test_the_text_of_the_paper_agrees():
    """Differences that sections 5 and 6 state in words."""
    known = tables.paper_tables()
    one, three, four = (known[name].metrics for name in ("table1", "table3", "table4"))
    best = one["Bat. + Feat. Mix. + loss_M"]["Average"]
    assert best - one["Mix."]["Average"] == pytest.approx(1.6)
    assert one["Bat. Mix."]["Average"] - one["Mix."]["Average"] == pytest.approx(0.6)
    assert three["C2L, ResNet-18"]["Average"] - three["ImageNet, ResNet-18"]["Average"] == pytest.approx(2.0)
    assert three["C2L, DenseNet-121"]["Average"] - three["ImageNet, DenseNet-121"]["Average"] == pytest.approx(1.5)
    assert four["C2L, ResNet-18"]["Average"] - four["ImageNet, ResNet-18"]["Average"] == pytest.approx(1.2)
    assert four["C2L, DenseNet-121"]["Average"] - four["ImageNet, DenseNet-121"]["Average"] == pytest.approx(1.4)
    assert known["table2"].metrics["+ Rotation + cutout + Mix."]["Average"] == best


def test_columns_keep_the_order_of_the_print():
    assert tables.paper_tables()["table4"].columns[:2] == ("Average", "Atelectasis")
    assert tables.paper_tables()["table5"].columns == ("0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8")
