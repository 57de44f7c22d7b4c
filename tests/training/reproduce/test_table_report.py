"""The tables' text: the paper's figure beside ours, means over seeds, paired differences, what is missing and why."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from reproduce_fakes import FakeJobs, figures_of

from c2l_models.training.evaluation.metrics import Metrics
from c2l_models.training.evaluation.result import Result
from c2l_models.training.initialization import InitializationNotAvailable
from c2l_models.training.reproduce.summary import difference, found
from c2l_models.training.reproduce.table_pictures import draw
from c2l_models.training.reproduce.table_report import as_csv, markdown, write_tables


def rows_of(text, heading):
    """A Markdown table's lines as cells, the first table below a heading."""
    part = text[text.index(heading) :]
    lines = re.search(r"((?:^\|.*\|\n?)+)", part, re.MULTILINE)[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def value_of(name, *seeds):
    """A start's mean over seeds by the fakes' rule, and the interval of their resamples, in percent."""
    mean = np.mean([figures_of(name, seed).values[0] for seed in seeds])
    return f"{100 * mean:.1f} ({100 * (mean - 0.019):.1f}–{100 * (mean + 0.019):.1f})"  # 2.5 % of ±0.02


def test_the_papers_figure_stands_beside_ours(reproduce):
    book = reproduce("table3", seeds=(0, 1))
    header, _, *lines = rows_of(markdown(book), "## resnet18")
    assert header[1:] == [f"resnet18-{n}" for n in ("model-genesis", "imagenet", "moco", "c2l")] + [
        "resnet18-moco-equal-passes",
        "resnet18-random",
    ]
    cells = dict(zip(header, lines[0], strict=True))
    assert cells[""] == "Average"
    assert cells["resnet18-c2l"] == f"83.5 · {value_of('resnet18-c2l', 0, 1)}"
    assert cells["resnet18-random"] == f"– · {value_of('resnet18-random', 0, 1)}"
    assert [line[0] for line in lines] == list(book.plan.paper.columns)
    pleura = next(line for line in lines if line[0] == "Pleural Thickening")
    assert pleura[header.index("resnet18-moco")].startswith("76.4 · ")
    assert rows_of(markdown(book), "## densenet121")[2][4].startswith("84.4 · ")


def test_differences_are_of_the_same_architecture_and_signed(reproduce):
    book = reproduce("table3")
    text = markdown(book)
    for architecture in ("resnet18", "densenet121"):
        header, _, average, *_ = rows_of(text, f"{architecture}-c2l minus each")
        assert f"{architecture}-c2l" not in header
        expected = [
            100 * (figures_of(f"{architecture}-c2l", 0).values[0] - figures_of(name, 0).values[0])
            for name in header[1:]
        ]
        assert [cell.partition(" ")[0] for cell in average[1:]] == [f"{value:+.1f}" for value in expected]
        # The fakes' resamples move together, so a paired interval has no width.
        assert average[1] == f"{expected[0]:+.1f} ({expected[0]:+.1f} to {expected[0]:+.1f})"


def test_seeds_are_averaged_and_compared_over_those_that_both_have(reproduce):
    book = reproduce("table5", FakeJobs({"resnet18-moco 1": InitializationNotAvailable("gone")}), seeds=(0, 1))
    starts = {start.name: start for start, _ in book.plan.rows}
    column = book.plan.columns[0]
    mean = found(book, starts["resnet18-c2l"], column)
    assert mean.seeds == 2
    assert mean.estimate.value == pytest.approx(figures_of("resnet18-c2l", 0).values[0] + 0.005)
    half = found(book, starts["resnet18-moco"], column)
    assert (half.seeds, half.why) == (1, "seed 1: not run (gone)")
    apart = difference(book, starts["resnet18-c2l"], starts["resnet18-moco"], column)
    one, two = (figures_of(name, 0).values[0] for name in ("resnet18-c2l", "resnet18-moco"))
    assert apart.value == pytest.approx(one - two)


def test_what_is_missing_is_told_with_its_reason(reproduce):
    jobs = FakeJobs(
        {"resnet18-imagenet": InitializationNotAvailable("no | network"), "resnet18-moco": RuntimeError("boom")}
    )
    text = markdown(reproduce("table5", jobs))
    lines = {line[0]: line for line in rows_of(text, "What each row was made of")}
    assert "not run (no / network)" in lines["resnet18-imagenet"][-1]  # a bar would end the cell
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
    assert header[:4] == ["row", "in the paper", "the paper", "ours"]
    assert [line[2] for line in lines] == ["74.1", "74.5", "74.4", "74.9", "75.2", "75.0", "74.9", "75.4", "76.3", "–"]
    assert lines[-2][4] == "–"  # the method itself
    assert lines[0][4].startswith(("+", "-"))


def test_table_1_compares_the_average_alone(reproduce):
    text = markdown(reproduce("table1"))
    assert "Hernia" not in text
    assert [line[2] for line in rows_of(text, "## resnet18")[2:]] == ["74.4", "74.7", "75.3", "75.6", "76.3", "–"]


def test_the_open_table_is_in_its_own_units(reproduce):
    book = reproduce("open")
    _, _, *lines = rows_of(markdown(book), "## resnet18")
    assert len(lines) == len(book.plan.columns)
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", lines[0][1])
    assert "the paper" not in markdown(book)


def test_csv_has_a_line_a_row_and_column(reproduce):
    book = reproduce("table4", FakeJobs({"resnet18-imagenet": InitializationNotAvailable("no network")}))
    lines = list(csv.DictReader(io.StringIO(as_csv(book))))
    assert len(lines) == 12 * 6
    line = next(line for line in lines if (line["row"], line["column"]) == ("resnet18-c2l", "Edema"))
    assert (line["paper"], line["seeds"], line["missing"]) == ("92.9", "1", "")
    assert float(line["value"]) == pytest.approx(figures_of("resnet18-c2l", 0).values[0])
    assert (line["test_images"], line["test_patients"], line["test_store_sha256"]) == ("1492", "91", "f" * 64)
    assert (line["pretraining_images"], line["pretraining_store_sha256"]) == ("60", "a" * 64)
    assert float(line["seconds"]) >= 90
    missing = next(line for line in lines if line["row"] == "resnet18-imagenet")
    assert (missing["value"], missing["seeds"], missing["paper"]) == ("", "0", "87.0")
    assert missing["missing"] == "seed 0: not run (no network)"
    ours = next(line for line in lines if line["row"] == "resnet18-moco-equal-passes")
    assert ours["paper"] == ""
    assert ours["minus"] == "resnet18-c2l minus this"


def test_a_figure_that_cannot_be_computed_is_not_a_number_of_ours(reproduce):
    class Blind(FakeJobs):
        def measure(self, start, measured, *arguments):
            result = super().measure(start, measured, *arguments)
            names, lost = result.metrics.names, np.full_like(result.metrics.values, np.nan)
            metrics = Metrics(names, lost, np.full_like(result.metrics.resamples, np.nan), "sample")
            return Result(result.kind, start.name, start.architecture, measured.task, 0, metrics, result.facts)

    text = markdown(reproduce("table3", Blind()))
    assert "83.5 · n/a" in text
    assert "nan" not in text


def test_results_of_another_sample_are_not_compared_and_break_nothing(reproduce):
    class Other(FakeJobs):
        def measure(self, start, measured, *arguments):
            result = super().measure(start, measured, *arguments)
            metrics = Metrics(result.metrics.names, result.metrics.values, result.metrics.resamples, start.name)
            return Result(result.kind, start.name, start.architecture, measured.task, 0, metrics, result.facts)

    book = reproduce("table5", Other())
    lines = rows_of(markdown(book), "resnet18-c2l minus each")
    assert set(lines[2][1:]) == {"–"}
    assert rows_of(markdown(book), "## resnet18")[2][4] != "14.8 · –"


def test_seeds_whose_few_labels_taught_other_findings_are_averaged_and_it_is_told(reproduce):
    class Few(FakeJobs):
        def measure(self, start, measured, seed, *arguments):
            result = super().measure(start, measured, seed, *arguments)
            lacking = ("Hernia", "Mass, Hernia")[seed] if measured.fraction == 0.01 else ""
            return replace(result, metrics=replace(result.metrics, skipped_labels=lacking))

    book = reproduce("open", Few(), seeds=(0, 1))
    lines = list(csv.DictReader(io.StringIO(as_csv(book))))
    few = {line["row"]: line for line in lines if line["column"] == "ChestX-ray14, fine-tuned on 1 %"}
    assert {line["unlearnt"] for line in few.values()} == {"Hernia; Mass, Hernia"}
    assert {line["unlearnt"] for line in lines if line not in few.values()} == {""}
    pair = ("resnet18-c2l", "resnet18-moco")
    ours, rival = (np.mean([figures_of(name, seed).values[0] for seed in (0, 1)]) for name in pair)
    assert float(few["resnet18-moco"]["value"]) == pytest.approx(rival, abs=1e-4)
    assert float(few["resnet18-moco"]["difference"]) == pytest.approx(ours - rival, abs=1e-4)
    told = "ChestX-ray14, fine-tuned on 1 %: not learnt, and in no mean: Hernia; Mass, Hernia (seed by seed)."
    assert markdown(book).count(told) == 2  # an architecture each


def test_a_smoke_run_says_so(reproduce):
    book = reproduce("table5")
    object.__setattr__(book.scale, "smoke", True)
    assert "Its metrics mean nothing" in markdown(book)
    assert "open-smoke" in as_csv(book)


def test_files_and_pictures(reproduce, tmp_path):
    book = reproduce("open")
    write_tables(book, tmp_path / "tables")
    assert (tmp_path / "tables/open.md").read_text() == markdown(book)
    assert (tmp_path / "tables/open.csv").read_text() == as_csv(book)
    names = [file.name for file in draw(book, tmp_path / "tables")]
    assert names == ["open-fractions.png", "open-labels.png"]
    assert all((tmp_path / "tables" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_nothing_done_is_nothing_drawn(reproduce, tmp_path):
    book = reproduce("open", missing=("chestxray14", "knee_kl", "rsna"))
    assert draw(book, tmp_path) == []
    assert "no chestxray14" in markdown(book)
