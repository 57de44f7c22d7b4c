"""Text of the tables: paper's value and ours, means over seeds, paired differences, and missing entries."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from oracles import interval
from reproduce_fakes import FakeBackend, metrics_of

from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.result import Result
from c2l_models.training.imagenet import InitializationNotAvailable
from c2l_models.training.reproduce.seed_means import difference, seed_mean
from c2l_models.training.reproduce.table_plots import draw
from c2l_models.training.reproduce.table_report import as_csv, markdown, write_tables


def rows_of(text, heading):
    """Cells of the first Markdown table below a heading."""
    part = text[text.index(heading) :]
    lines = re.search(r"((?:^\|.*\|\n?)+)", part, re.MULTILINE)[1].splitlines()
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in cells]


def value_of(name, *seeds):
    """Mean of the fake metrics over seeds, and the interval over drawn seeds, in percent."""
    runs = [metrics_of(name, seed) for seed in seeds]
    mean = np.mean([run.values[0] for run in runs])
    drawn = interval.drawn_seeds(len(seeds), len(runs[0].resamples))
    resamples = [np.mean([runs[at].resamples[r, 0] for at in positions]) for r, positions in enumerate(drawn)]
    low, high = np.quantile(resamples, [0.025, 0.975])
    return f"{100 * mean:.1f} ({100 * low:.1f}–{100 * high:.1f}), {len(seeds)} seeds"


def test_the_papers_figure_stands_beside_ours(reproduce):
    results = reproduce("table3", seeds=(0, 1))
    header, _, *lines = rows_of(markdown(results), "## resnet18")
    assert header[1:] == [f"resnet18-{n}" for n in ("model-genesis", "imagenet", "moco", "c2l")] + [
        "resnet18-moco-equal-passes",
        "resnet18-random",
    ]
    cells = dict(zip(header, lines[0], strict=True))
    assert cells[""] == "Average"
    assert cells["resnet18-c2l"] == f"83.5 · {value_of('resnet18-c2l', 0, 1)}"
    assert cells["resnet18-random"] == f"– · {value_of('resnet18-random', 0, 1)}"
    assert [line[0] for line in lines] == list(results.table.paper.columns)
    pleura = next(line for line in lines if line[0] == "Pleural Thickening")
    assert pleura[header.index("resnet18-moco")].startswith("76.4 · ")
    assert rows_of(markdown(results), "## densenet121")[2][4].startswith("84.4 · ")


def test_differences_are_of_the_same_architecture_and_signed(reproduce):
    results = reproduce("table3")
    text = markdown(results)
    for architecture in ("resnet18", "densenet121"):
        header, _, average, *_ = rows_of(text, f"{architecture}-c2l minus each")
        assert f"{architecture}-c2l" not in header
        expected = [
            100 * (metrics_of(f"{architecture}-c2l", 0).values[0] - metrics_of(name, 0).values[0])
            for name in header[1:]
        ]
        assert [cell.partition(" ")[0] for cell in average[1:]] == [f"{value:+.1f}" for value in expected]
        # The fakes' resamples move together, so a paired interval has no width.
        assert average[1] == f"{expected[0]:+.1f} ({expected[0]:+.1f} to {expected[0]:+.1f})"


def test_seeds_are_averaged_and_compared_over_those_that_both_have(reproduce):
    results = reproduce("table5", FakeBackend({"resnet18-moco 1": InitializationNotAvailable("gone")}), seeds=(0, 1))
    inits = {init.name: init for init, _ in results.table.rows}
    column = results.table.columns[0]
    mean = seed_mean(results, inits["resnet18-c2l"], column)
    assert mean.seeds == 2
    assert mean.estimate.value == pytest.approx(metrics_of("resnet18-c2l", 0).values[0] + 0.005)
    assert mean.estimate.seeds == 2
    half = seed_mean(results, inits["resnet18-moco"], column)
    assert (half.seeds, half.reason) == (1, "seed 1: not run (gone)")
    apart = difference(results, inits["resnet18-c2l"], inits["resnet18-moco"], column).difference
    one, two = (metrics_of(name, 0).values[0] for name in ("resnet18-c2l", "resnet18-moco"))
    assert apart.value == pytest.approx(one - two)


def test_what_is_missing_is_told_with_its_reason(reproduce):
    backend = FakeBackend(
        {"resnet18-imagenet": InitializationNotAvailable("no | network"), "resnet18-moco": RuntimeError("boom")}
    )
    text = markdown(reproduce("table5", backend))
    lines = {line[0]: line for line in rows_of(text, "Data of each row")}
    assert "not run (no | network)" in lines["resnet18-imagenet"][-1]  # escaped, because a bar would end the cell
    assert "failed (RuntimeError: boom)" in lines["resnet18-moco"][-1]
    assert lines["resnet18-c2l"][-1] == "–"
    assert lines["resnet18-c2l"][1] == "60 images, 20 patients"
    assert lines["resnet18-random"][1] == "random"
    assert "rsna: 1,492 images, 91 patients" in lines["resnet18-c2l"][2]
    assert "aaaaaaaaaaaa" in lines["resnet18-c2l"][3]
    header, _, first, *_ = rows_of(text, "## resnet18")
    assert first[header.index("resnet18-imagenet")] == "13.5 · –"


def test_a_table_of_one_column_has_a_line_a_row(reproduce):
    text = markdown(reproduce("table2"))
    header, _, *lines = rows_of(text, "## resnet18")
    assert header[:5] == ["row", "paper's row", "paper", "ours", "paired difference"]
    assert [line[2] for line in lines] == ["74.1", "74.5", "74.4", "74.9", "75.2", "75.0", "74.9", "75.4", "76.3", "–"]
    assert lines[-2][4] == "–"  # the method itself
    assert lines[0][4].startswith(("+", "-"))


def test_table_1_compares_the_average_alone(reproduce):
    text = markdown(reproduce("table1"))
    assert "Hernia" not in text
    assert [line[2] for line in rows_of(text, "## resnet18")[2:]] == ["74.4", "74.7", "75.3", "75.6", "76.3", "–"]


def test_the_open_table_is_in_its_own_units(reproduce):
    results = reproduce("open")
    _, _, *lines = rows_of(markdown(results), "## resnet18")
    assert len(lines) == len(results.table.columns)
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", lines[0][1])
    assert "paper" not in markdown(results)


def test_csv_has_a_line_a_row_and_column(reproduce):
    results = reproduce("table4", FakeBackend({"resnet18-imagenet": InitializationNotAvailable("no network")}))
    lines = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(lines) == 12 * 6
    line = next(line for line in lines if (line["row"], line["column"]) == ("resnet18-c2l", "Edema"))
    assert (line["paper"], line["seeds"], line["missing"]) == ("92.9", "1", "")
    assert line["interval"] == "percentile"  # the fakes have no jackknife values
    assert float(line["value"]) == pytest.approx(metrics_of("resnet18-c2l", 0).values[0])
    assert (line["test_images"], line["test_patients"], line["test_store_sha256"]) == ("1492", "91", "a" * 64)
    assert (line["pretraining_images"], line["pretraining_store_sha256"]) == ("60", "a" * 64)
    assert float(line["seconds"]) >= 90
    missing = next(line for line in lines if line["row"] == "resnet18-imagenet")
    assert (missing["value"], missing["seeds"], missing["paper"]) == ("", "0", "87.0")
    assert missing["missing"] == "seed 0: not run (no network)"
    ours = next(line for line in lines if line["row"] == "resnet18-moco-equal-passes")
    assert ours["paper"] == ""
    assert ours["minus"] == "resnet18-c2l minus this"


def test_a_figure_that_cannot_be_computed_is_not_a_number_of_ours(reproduce):
    class Blind(FakeBackend):
        def measure(self, init, measurement, *arguments):
            result = super().measure(init, measurement, *arguments)
            names, lost = result.metrics.names, np.full_like(result.metrics.values, np.nan)
            metrics = Metrics(names, lost, np.full_like(result.metrics.resamples, np.nan), "sample")
            return Result(result.kind, init.name, init.architecture, measurement.task, 0, metrics, result.facts)

    text = markdown(reproduce("table3", Blind()))
    assert "83.5 · n/a" in text
    assert "nan" not in text


def test_results_of_another_sample_are_not_compared_and_break_nothing(reproduce):
    class Other(FakeBackend):
        def measure(self, init, measurement, *arguments):
            result = super().measure(init, measurement, *arguments)
            metrics = Metrics(result.metrics.names, result.metrics.values, result.metrics.resamples, init.name)
            return Result(result.kind, init.name, init.architecture, measurement.task, 0, metrics, result.facts)

    results = reproduce("table5", Other())
    lines = rows_of(markdown(results), "resnet18-c2l minus each")
    assert set(lines[2][1:]) == {"–"}
    assert rows_of(markdown(results), "## resnet18")[2][4] != "14.8 · –"
    missing = {line[0]: line[-1] for line in rows_of(markdown(results), "Data of each row")}
    assert missing["resnet18-c2l"] == "–"  # the reference
    reason = "no difference to resnet18-c2l (these metrics cannot be compared resample by resample: expected the same"
    assert reason in missing["resnet18-moco"]
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(as_csv(results)))}
    assert (lines["resnet18-moco"]["difference"], lines["resnet18-c2l"]["missing"]) == ("", "")
    assert reason in lines["resnet18-moco"]["missing"]


def test_seeds_whose_few_labels_taught_other_findings_are_averaged_and_it_is_told(reproduce):
    class Few(FakeBackend):
        def measure(self, init, measurement, seed, *arguments):
            result = super().measure(init, measurement, seed, *arguments)
            skipped = ("Hernia", "Mass, Hernia")[seed] if measurement.fraction == 0.01 else ""
            return replace(result, metrics=replace(result.metrics, skipped_labels=skipped))

    results = reproduce("open", Few(), seeds=(0, 1))
    lines = list(csv.DictReader(io.StringIO(as_csv(results))))
    few = {line["row"]: line for line in lines if line["column"] == "ChestX-ray14, fine-tuned on 1 %"}
    assert {line["skipped_labels"] for line in few.values()} == {"Hernia; Mass, Hernia"}
    assert {line["skipped_labels"] for line in lines if line not in few.values()} == {""}
    pair = ("resnet18-c2l", "resnet18-moco")
    c2l, moco = (np.mean([metrics_of(name, seed).values[0] for seed in (0, 1)]) for name in pair)
    assert float(few["resnet18-moco"]["value"]) == pytest.approx(moco, abs=1e-4)
    assert float(few["resnet18-moco"]["difference"]) == pytest.approx(c2l - moco, abs=1e-4)
    assert (few["resnet18-moco"]["seeds"], few["resnet18-moco"]["difference_seeds"]) == ("2", "2")
    skipped = (
        "ChestX-ray14, fine-tuned on 1 %: skipped labels, which no mean counts, seed by seed: Hernia; Mass, Hernia."
    )
    assert markdown(results).count(skipped) == 2  # one per architecture


def test_the_note_of_a_task_is_shown_once(reproduce):
    class Noted(FakeBackend):
        def measure(self, init, measurement, seed, *arguments):
            result = super().measure(init, measurement, seed, *arguments)
            return (
                replace(result, facts=result.facts | {"note": "Beware."}) if measurement.task == "knee_kl" else result
            )

    assert markdown(reproduce("open", Noted())).count("knee_kl: Beware.") == 1
    assert "Beware" not in markdown(reproduce("open"))


def test_a_smoke_run_says_so(reproduce):
    results = reproduce("table5")
    object.__setattr__(results.scale, "smoke", True)
    assert "Its metrics mean nothing" in markdown(results)
    assert "open-smoke" in as_csv(results)


def test_files_and_pictures(reproduce, tmp_path):
    results = reproduce("open")
    write_tables(results, tmp_path / "tables")
    assert (tmp_path / "tables/open.md").read_text() == markdown(results)
    assert (tmp_path / "tables/open.csv").read_text() == as_csv(results)
    names = [file.name for file in draw(results, tmp_path / "tables")]
    assert names == ["open-fractions.png", "open-labels.png"]
    assert all((tmp_path / "tables" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_nothing_done_is_nothing_drawn(reproduce, tmp_path):
    results = reproduce("open", missing=("chestxray14", "knee_kl", "rsna"))
    assert draw(results, tmp_path) == []
    assert "does not name chestxray14" in markdown(results)
