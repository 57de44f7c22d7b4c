"""The page of a probe with hostile labels: every figure against the files, and the page in a browser."""

import csv
import re
from functools import partial
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from browser import CHROMIUM, browser
from html_page import HtmlPage
from labelled_films import draw_films
from PIL import Image

from c2l_models.cli import main
from c2l_models.training.evaluation.predictions import Predictions
from c2l_models.training.pages.render import FOLDER
from c2l_models.training.probing import probe as probe_module
from c2l_models.training.probing.baselines import BaselineSpec
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.prepare import prepare

LABELS = [
    "<script>document.title='hacked'</script>",
    "</title><img src=x onerror=alert(1)>",
    "\"quoted\" 'name' & {{ 7 * 7 }}",
    "🦴 fracture",
    "ذات الرئة",
    "plain",
]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """The folder of `c2l probe pixels --html`, beside one baseline."""
    folder = tmp_path_factory.mktemp("page")
    films = draw_films(folder / "films", LABELS, "secret", train=40, step=20)
    prepare([("folder", films)], folder / "store", 16, workers=1, progress=False)
    command = ["probe", "pixels", "--store", str(folder / "store"), "--task", "folder", "--out", str(folder / "out")]
    specs = [BaselineSpec("pixels", seeds=(0,))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_module, "baseline_specs", lambda architecture: specs)
        patch.setattr(probe_module, "measure", partial(_few_resamples, probe_module.measure))
        main([*command, "--device", "cpu", "--html"])
    return folder


def _few_resamples(measure, predictions, task, bootstrap):
    return measure(predictions, task, 50)


@pytest.fixture(scope="module")
def page(probed):
    return HtmlPage(probed / "out" / "report.html")


def test_the_page_reaches_nothing_and_is_accessible(page):
    page.check()
    assert page.tags[0][0] == "html"
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_hostile_labels_are_text(page):
    assert {row[0]["text"] for row in page.tables["AUROC"]} >= set(LABELS)
    assert set(page.charts) == set(LABELS)
    assert "49" not in {row[0]["text"] for row in page.tables["AUROC"]}


def test_no_patient_and_no_path(page, probed):
    patients = set(ImageStore.open(probed / "store").patients.tolist())
    assert patients
    for patient in patients:
        assert patient not in page.source
        assert patient.partition(":")[2] not in page.source
    assert "secret" not in page.source
    assert str(probed) not in page.source


def test_every_metric_is_that_of_the_csv_file(page, probed):
    with (probed / "out" / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tables = {"figure": "AUROC", "difference": "Paired difference: pixels minus each column"}
    shown = {kind: {} for kind in tables}
    for kind, caption in tables.items():
        for row in page.tables[caption]:
            shown[kind][row[0]["text"]] = list(page.measured(row))
            for cell, (value, low, high) in zip(
                [cell for cell in row if "data-value" in cell], page.measured(row), strict=True
            ):
                printed = [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell["text"])]
                assert printed == pytest.approx([float(value), float(low), float(high)], abs=6e-4)
    assert rows
    for kind, caption in tables.items():
        for name in {row["figure"] for row in rows}:
            expected = [
                tuple(row[key] for key in ("value", "low", "high"))
                for row in rows
                if (row["kind"], row["figure"]) == (kind, name)
            ]
            assert shown[kind][name] == expected, caption
    summary = re.findall(r"<dd>(\S+)", page.source)
    assert summary == [f"{float(row['value']):.3f}" for row in rows if row["figure"] == "mean"][:1]


def test_the_curves_have_the_aurocs(page, probed):
    """Each corner of a curve is the rates of one threshold, counted here, and its area is the AUROC in the table."""
    predictions = Predictions.load(probed / "out")
    for number, label in enumerate(predictions.labels):
        scores, positive = predictions.scores[:, number], predictions.targets[:, number] == 1
        rates = {(0.0, 0.0)} | {
            (float((scores[~positive] >= limit).mean()), float((scores[positive] >= limit).mean())) for limit in scores
        }
        points = page.line(label)
        for x, y in points:
            assert min(np.hypot(x - a, y - b) for a, b in rates) < 1e-4
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
        assert area == pytest.approx(float(page.row("AUROC", label)[2]["data-value"]), abs=2e-4)


def test_the_style_has_enough_contrast():
    """Text has a contrast of at least 4.5 to the background, and lines of charts at least 3 (WCAG 2.2)."""
    for scheme in (0, 1):
        style = {}
        for file in ("shell.css", "report.css"):
            text = (FOLDER / file).read_text(encoding="utf-8")
            blocks = re.findall(r":root \{(.*?)\}", text)
            style |= dict(re.findall(r"--(\w+): (#\w+)", blocks[scheme]))
        for name, least in {"ink": 7, "dim": 4.5, "accent": 4.5, **{f"s{n}": 3 for n in range(6)}}.items():
            bright, dark = sorted((luminance(style[name]), luminance(style["paper"])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= least, (scheme, name)


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(probed, tmp_path):
    """No request, no message, nothing wider than the window; keyboard and pointer work."""
    file = probed / "out" / "report.html"
    with browser(tmp_path / "profile") as tab:
        for width, scheme in ((1280, "light"), (390, "dark")):
            tab.open(file, width, 800, scheme)
            assert tab.requests == [file.as_uri()]
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.screenshot(tmp_path / "page.png")
            image = Image.open(BytesIO((tmp_path / "page.png").read_bytes())).convert("L")
            assert image.height > 1500
            assert len(image.getcolors()) > 50
            background = image.getpixel((2, 2))
            assert (background > 240) == (scheme == "light")
        head = "document.querySelector('thead th:nth-child(3)')"
        tab.evaluate(f"{head}.querySelector('button').focus()")
        tab.press("Tab", 9)
        assert tab.evaluate("document.activeElement.tagName") == "BUTTON"
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.evaluate(f"{head}.querySelector('button').focus()")
        tab.press("Enter", 13, "\r")
        assert tab.evaluate(f"{head}.ariaSort") == "descending"
        values = tab.evaluate("[...document.querySelector('tbody').rows].map(row => row.cells[2].dataset.value)")
        assert values == sorted(values, key=float, reverse=True)
        tab.evaluate("document.querySelector('svg.chart').focus()")
        tab.press("ArrowRight", 39)
        assert tab.evaluate("document.querySelector('output').textContent") == "1 − specificity 0, sensitivity 0"
        assert tab.evaluate("document.title").startswith("Linear probe: pixels on folder")
        assert tab.console == []
        tab.evaluate("fetch('https://example.org/').catch(() => 0); 0")
        tab.evaluate("new Promise(done => setTimeout(done, 50))")
        assert any("Content Security Policy" in text for text in tab.console)
