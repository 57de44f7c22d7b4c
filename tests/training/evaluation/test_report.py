"""Reports show every metric with its interval, and n/a for metrics that cannot be computed."""

import csv
import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from oracles import interval
from rich.console import Console

from c2l_models.training.evaluation.classification_metrics import auroc
from c2l_models.training.evaluation.metrics import average
from c2l_models.training.evaluation.predictions import Predictions, measure
from c2l_models.training.evaluation.report import Report, ReportColumn
from c2l_models.training.evaluation.tasks import load_task

FACTS = {
    "task": "chestxray14",
    "size": 64,
    "test_images": 300,
    "test_patients": 60,
    "bootstrap": 100,
    "seed": 0,
}


@pytest.fixture(scope="module")
def report():
    """Three labels; the third has no positive image."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < [0.3, 0.05, 0]).astype(float)
    patients = rng.integers(0, 60, 300)
    task, names = load_task("chestxray14"), ("Mass", "Hernia", "Edema")

    def result(signal):
        scores = labels * signal + rng.normal(size=labels.shape)
        return measure(Predictions(task.name, names, scores, labels, patients), task, bootstrap=100)

    seeds = [result(0.3), result(0.4)]
    columns = (
        ReportColumn("a release", result(2)),
        ReportColumn("pixels", result(0.5)),
        ReportColumn("random", average(seeds, (0, 1)), tuple(seed["mean"].value for seed in seeds)),
    )
    positives = labels.sum(axis=0).astype(int).tolist()
    cases = {name: (count, 300 - count) for name, count in zip(names, positives, strict=True)}
    return Report("Linear probe", cases, columns, "mean", FACTS, "A note.")


def test_one_column_is_held_against_nothing():
    result = auroc([0.1, 0.9, 0.4], [0, 1, 0], bootstrap=10).metrics(["kl_grade ≥ 2"], {})
    single = Report("k-NN", {"kl_grade ≥ 2": (1, 2)}, (ReportColumn("random", result),), "kl_grade ≥ 2", FACTS)
    assert single.summaries == ()
    assert "minus" not in single.markdown()
    assert single.picture().startswith(b"\x89PNG")


def test_the_mean_over_one_label_is_not_shown_beside_it():
    labels, patients = np.array([[0.0], [1], [0], [1]]), np.arange(4)
    task, scores = load_task("fracatlas"), np.array([[0.1], [0.4], [0.2], [0.3]])
    result = measure(Predictions("fracatlas", ("fractured",), scores, labels, patients), task, bootstrap=10)
    assert result["mean"].value == result["fractured"].value == 1, "files of metrics keep both"
    report = Report(
        "k-NN", {"fractured": (2, 2)}, (ReportColumn("a", result), ReportColumn("b", result)), "fractured", FACTS
    )
    rows = [[row[0] for row in rows] for _, _, rows in report.all_tables()]
    assert rows == [["fractured"], ["fractured"]], "metrics and paired differences"
    assert report.main == ("fractured",)
    screen = Console(file=io.StringIO(), width=80)
    report.show(screen)
    assert "mean" not in screen.file.getvalue()
    assert report.picture().startswith(b"\x89PNG")
    assert "figure,mean,,a," in report.csv()
    assert replace(report, headline="mean").main == ("mean",), "a data set of one label without another headline"


def table_of(markdown, title):
    """Cells of the table below a heading, by row name."""
    lines = markdown.split(f"## {title}", 1)[1].strip().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines[: lines.index("") if "" in lines else None]]
    return {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[2:]}


def test_markdown_shows_figures_with_intervals_and_differences(report):
    markdown = report.markdown()
    table = table_of(markdown, "AUROC")
    assert list(table) == ["Mass", "mean", "mean without Hernia", "mean, range over seeds"]
    mass = report.target.metrics["Mass"]
    assert table["Mass"]["a release"] == f"{mass.value:.3f} ({mass.low:.3f}–{mass.high:.3f})"
    apart = table_of(markdown, "Labels with fewer than 10 positive or negative test images")
    assert list(apart) == ["Hernia", "Edema"]
    assert apart["Edema"] == {"positives": "0", "a release": "n/a", "pixels": "n/a", "random (2 seeds)": "n/a"}
    low, high = sorted(report.columns[2].seeds)
    assert table["mean, range over seeds"]["random (2 seeds)"] == f"{low:.3f}–{high:.3f}"

    differences = table_of(markdown, "Paired difference: a release minus each column")
    target, pixels = report.target.metrics, report.columns[1].metrics
    by_resample = np.nanmean((target.resamples - pixels.resamples)[:, :2], axis=1)
    value = np.nanmean((target.values - pixels.values)[:2])
    by_patient = np.nanmean((target.jackknife - pixels.jackknife)[:, :2], axis=1)
    low, high = interval.expanded(by_resample, by_patient)
    assert differences["mean"]["pixels"] == f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    assert "60 patients" in markdown
    assert "n/a: the training or the test images have only one class. Means leave out Edema. A note." in markdown
    assert '- task: "chestxray14"' in markdown


def test_a_label_with_few_negatives_is_apart_too(report):
    assert report.rare == ("Hernia", "Edema")
    assert replace(report, cases=dict.fromkeys(report.cases, (40, 40)) | {"Mass": (40, 9)}).rare == ("Mass",)
    few = dict.fromkeys(report.cases, (9, 40))
    assert replace(report, cases=few).rare == ()  # nothing would be left to set them apart from


def test_the_csv_has_every_figure_and_difference(report):
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert len(rows) == 5 * (3 + 2)
    columns = {column.name: column for column in report.columns}
    for row in rows:
        column = columns[row["column"]]
        found = column.metrics[row["figure"]] if row["kind"] == "figure" else report.difference(column, row["figure"])
        for name in ("value", "low", "high"):
            value = getattr(found, name)
            assert row[name] == ("n/a" if np.isnan(value) else f"{value:.4f}")
        assert (row["seeds"], row["interval"]) == ("2" if row["column"] == "random" else "1", "expanded")


def test_a_run_of_an_earlier_version_is_named(report):
    target, pixels, random = report.columns
    assert "of whole patients and, in a mean over seeds, of seeds." in report.markdown()
    old = replace(pixels, metrics=replace(pixels.metrics, jackknife=None))
    report = replace(report, columns=(target, old, random))
    assert "Percentile intervals, which are too narrow: pixels (measured by an earlier version" in report.markdown()
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert {row["column"] for row in rows if row["interval"] == "percentile"} == {"pixels"}


def test_files_and_screen(report, tmp_path):
    report.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.csv",
        "report.md",
        "report.png",
    ]
    width, height = struct.unpack(">II", (tmp_path / "out" / "report.png").read_bytes()[16:24])
    assert min(width, height) > 300
    screen = Console(file=io.StringIO(), width=200)
    report.show(screen)
    assert str(report.target.metrics["mean"]) in screen.file.getvalue()


def test_few_test_images_are_no_measure(report):
    counted = replace(report, cases={"Mass": (19, 281), "Hernia": (20, 20), "Edema": (150, 19)})
    text = counted.markdown()
    assert "Too few test images for a measure: Mass (19 positive, 281 negative), Edema (150 positive, 19 neg" in text
    assert "Hernia (20" not in text
    enough = replace(report, cases=dict.fromkeys(report.cases, (20, 20)))
    assert "Too few" not in enough.markdown()
