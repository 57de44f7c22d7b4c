"""Reports: every figure beside its interval, nothing that cannot be computed shown as a number."""

import csv
import io
import json
import struct

import numpy as np
import pytest
from rich.console import Console

from c2l_models.training.evaluation.metrics import auroc, average
from c2l_models.training.evaluation.report import Column, ProbeReport

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
    """Three labels; the third has no positive film."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < [0.3, 0.05, 0]).astype(float)
    patients = rng.integers(0, 60, 300)

    def result(signal):
        return auroc(labels * signal + rng.normal(size=labels.shape), labels, patients, bootstrap=100)

    seeds = [result(0.3), result(0.4)]
    columns = (
        Column("a release", result(2)),
        Column("pixels", result(0.5)),
        Column("random", average(seeds), tuple(seed.mean for seed in seeds)),
    )
    positives = tuple(int(count) for count in labels.sum(axis=0))
    return ProbeReport(("Mass", "Hernia", "Edema"), positives, ("Hernia",), columns, FACTS)


def test_rows_are_labels_then_means(report):
    assert [name for name, _ in report.rows()] == ["Mass", "Hernia", "Edema", "mean", "mean without Hernia"]
    masks = [mask.tolist() for _, mask in report.rows()]
    assert masks[-2:] == [[True, True, True], [True, False, True]]
    means = [report.target.auroc.mean_of(mask).value for _, mask in report.rows()]
    mass, hernia = report.target.auroc.per_label[:2]
    np.testing.assert_allclose(means, [mass, hernia, np.nan, (mass + hernia) / 2, mass])


def test_one_label_needs_no_mean():
    result = auroc([0.1, 0.9, 0.4], [0, 1, 0], bootstrap=10)
    single = ProbeReport(("kl_grade ≥ 2",), (1,), (), (Column("random", result),), FACTS)
    assert [name for name, _ in single.rows()] == ["kl_grade ≥ 2"]
    assert "minus" not in single.markdown()
    assert single.picture().startswith(b"\x89PNG")


def table_of(markdown, title):
    """The cells of the table under a heading, by row name."""
    lines = markdown.split(f"## {title}", 1)[1].strip().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines[: lines.index("") if "" in lines else None]]
    return {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[2:]}


def test_markdown_shows_figures_with_intervals_and_differences(report):
    markdown = report.markdown()
    table = table_of(markdown, "AUROC")
    assert list(table) == ["Mass", "Hernia", "Edema", "mean", "mean without Hernia", "spread of seeds' means"]
    mass = report.target.auroc.label(0)
    assert table["Mass"]["a release"] == f"{mass.value:.3f} ({mass.low:.3f}–{mass.high:.3f})"
    assert table["Edema"] == {"positives": "0", "a release": "n/a", "pixels": "n/a", "random": "n/a"}
    low, high = sorted(report.columns[2].seed_means)
    assert table["spread of seeds' means"]["random"] == f"{low:.3f}–{high:.3f}"

    differences = table_of(markdown, "a release minus each floor, paired")
    pixels = report.columns[1].auroc
    by_resample = np.nanmean(report.target.auroc.resamples - pixels.resamples, axis=1)
    value = np.nanmean(report.target.auroc.per_label - pixels.per_label)
    low, high = np.percentile(by_resample, [2.5, 97.5])
    assert differences["mean"]["pixels"] == f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    assert "60 patients" in markdown
    assert '- task: "chestxray14"' in markdown


def test_csv_and_json_agree(report):
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert len(rows) == 5 * (3 + 2)
    figures = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    key = {"auroc": "auroc", "difference": "target_minus_floor"}
    for row in rows:
        figure = figures[key[row["figure"]]][row["column"]][row["row"]]
        for name in ("value", "low", "high"):
            assert row[name] == ("n/a" if figure[name] is None else f"{figure[name]:.4f}")
    assert figures["auroc"]["pixels"]["Edema"] == {"value": None, "low": None, "high": None}
    assert figures["facts"] == FACTS


def test_files_and_screen(report, tmp_path):
    report.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "probe.csv",
        "probe.json",
        "probe.md",
        "probe.png",
    ]
    width, height = struct.unpack(">II", (tmp_path / "out" / "probe.png").read_bytes()[16:24])
    assert min(width, height) > 300
    screen = Console(file=io.StringIO(), width=200)
    report.show(screen)
    assert str(report.target.auroc.mean_of()) in screen.file.getvalue()
