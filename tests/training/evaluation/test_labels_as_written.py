"""Awkward labels are shown as they are: from labels.csv to tables, report.md, pictures and files."""

import csv
import html
import io
import re

import pytest
from labelled_films import draw_films
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console

from c2l_models.training.evaluation.markdown import escaped, markdown_table
from c2l_models.training.evaluation.plotting import new_figure, save_png, show_as_written, wrapped
from c2l_models.training.evaluation.predictions import Predictions
from c2l_models.training.evaluation.result import Result
from c2l_models.training.inspection.inspect_features import inspect_features
from c2l_models.training.probing.probe import probe
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare

LABELS = [
    "[x]",
    "[bold]",
    "$x_{$",
    "a|b",
    r"back\slash \| `code` *star* <b>",
    "_under_",
    "\"quoted\" 'name'",
    "two\nlines",
    "long " + "name " * 38 + "end",
    "Erguß ö",
    "肺炎",
    "ذات الرئة",
    ":smile: [a](b) #1",
    "50 % $5 and $6",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    films = draw_films(folder / "films", LABELS, train=50, step=12)
    report = prepare([("folder", films)], folder / "store", 16, workers=1, progress=False)
    return ImageStore.open(report.store)


@pytest.fixture(scope="module")
def probed(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe")
    report = probe("pixels", store, "folder", out, baselines=False, bootstrap=5, progress=False)
    return report, out


def cells_of(markdown):
    """The text of each table cell, as a Markdown reader shows it; "<br>" is a line break."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", rendered, re.DOTALL)
    assert not any(re.search(r"<(?!br)", cell) for cell in cells)  # no emphasis, code or link
    return [html.unescape(cell.replace("<br>", "\n")) for cell in cells]


def test_markdown():
    table = markdown_table(["label"], [[label] for label in LABELS])
    assert cells_of(table) == ["label", *LABELS]
    assert not re.search(r"(?<!\\)\$", table)  # GitHub's formulas


def test_files_keep_the_labels(probed):
    report, out = probed
    names = [name for name in report.target.metrics.names if name in LABELS]
    assert sorted(names) == sorted(LABELS)
    assert sorted(Predictions.load(out).labels) == sorted(LABELS)
    assert set(Result.read(out).metrics.names) >= set(LABELS)
    rows = csv.DictReader(io.StringIO((out / "report.csv").read_bytes().decode(), newline=""))
    assert {row["figure"] for row in rows} >= set(LABELS)
    assert set(cells_of((out / "report.md").read_text(encoding="utf-8"))) >= set(LABELS)


def test_terminal(probed):
    console = Console(width=400, file=io.StringIO(), markup=False, emoji=False)
    probed[0].show(console)
    shown = console.file.getvalue()
    for label in LABELS:
        for line in label.split("\n"):
            assert line.strip() in shown, label


def test_the_default_console_shows_them_too(probed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    probed[0].show()
    shown = capsys.readouterr().out
    for label in ("[x]", "[bold]", ":smile: [a](b) #1"):
        assert label in shown


def test_pictures(probed, store, tmp_path, recwarn):
    report, out = probed
    assert Image.open(io.BytesIO(report.picture())).size[1] > 400
    assert (out / "roc.png").is_file()
    inspect_features("pixels", store, tmp_path / "look", bootstrap=5)
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize("label", LABELS)
def test_texts_of_a_picture(label, tmp_path):
    figure = new_figure(8, 6)
    axes = figure.add_subplot()
    axes.set_title(wrapped(label, 30))
    axes.set_yticks([0, 1], [wrapped(label, 30), "b"])
    axes.set_xscale("log")
    axes.plot([1, 100], [0, 1], label=wrapped(label, 30))
    legend = axes.legend()
    show_as_written(figure)
    save_png(figure, tmp_path / "a.png")
    texts = [axes.title, axes.get_yticklabels()[0], legend.get_texts()[0]]  # a name with "_" is in the legend too
    for text in texts:
        assert not text.get_parse_math()
        assert " ".join(text.get_text().split()) == " ".join(label.split())
        assert max(map(len, text.get_text().splitlines())) <= 31
    numbers = [text for text in axes.get_xticklabels() if "mathdefault" in text.get_text()]
    assert numbers
    assert all(text.get_parse_math() for text in numbers)


def test_escaped_leaves_names_of_releases():
    assert escaped("resnet18.c2l_open26k, 0.62 (0.5 to 0.7)") == "resnet18.c2l_open26k, 0.62 (0.5 to 0.7)"
