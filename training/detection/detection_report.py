"""Report of a detection run: report.md, report.csv and an HTML page."""

import json
from pathlib import Path
from typing import Any

from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import FILE_NAME

from ..evaluation.csv_text import csv_text
from ..evaluation.intervals import Estimate
from ..evaluation.markdown import markdown_table
from ..evaluation.result import Result
from ..pages.charts import Chart, Line
from ..pages.report import Charts, Facts, Page, Section, Sheet, Table, Text
from ..run_files.log import of_kind, read, series
from ..store.store_format import file_sha256
from .detection_curve import SHOWN
from .patients import EVALUATION, TRAINING

SETTINGS, PICTURE = "settings.json", "boxes.png"
"""Files of a run: its settings, and its contact sheet."""


def write_report(out: Path, result: Result) -> None:
    """Write report.md and report.csv into a run's folder."""
    write_atomically(out / "report.md", _markdown(result).encode())
    estimates = ((name, result.metrics[name]) for name in result.metrics.names)
    rows = ([name, found.value, found.low, found.high] for name, found in estimates)
    write_atomically(out / "report.csv", csv_text([["figure", "value", "low", "high"], *rows]).encode())


def _markdown(result: Result) -> str:
    facts, metrics = result.facts, result.metrics
    rows = [(name, _value(metrics[name]), _interval(metrics[name])) for name in metrics.names]
    lines = [f"# Pneumonia detection from {result.initialization}", ""]
    lines += [markdown_table(("metric", "value", "95 % interval"), rows, align="lll"), ""]
    lines += ["\n\n".join(_notes(facts))]
    lines += ["", _part("training", facts[TRAINING]), _part("test", facts[EVALUATION])]
    lines += [f"- {name.replace('_', ' ')}: {count}" for name, count in facts["adjusted"].items() if count]
    if (seen := facts["patients_seen_in_pretraining"]) is None:
        lines += ["- the patients of pretraining are unknown"]
    else:
        lines += [f"- {seen:,} patients are known to have been in pretraining, none of them in the test part"]
    lines += [f"- {facts['steps']:,} steps of {facts['settings']['batch_size']} images, seed {result.seed}"]
    lines += [f"- {facts['seconds']:,.0f} s on {facts['device']}, {facts['seconds_per_step']:.3g} s per step"]
    return "\n".join(lines) + "\n"


def page_of(result: Result, out: Path) -> Page:
    """The report as an HTML page, with training curves, and the run's contact sheet of detected boxes.

    The sheet shows films of the test part. `out`: the run's folder.
    """
    metrics = result.metrics
    rows = [[name, metrics[name]] for name in metrics.names]
    sheet = Sheet((out / PICTURE).read_bytes(), "Films of the test part with true and detected boxes.")
    settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    data = {key: settings[key] for key in ("store_sha256", "split_sha256", "versions", "code") if key in settings}
    return Page(
        f"Pneumonia detection from {result.initialization}",
        [(name, metrics[name]) for name in metrics.names[:1]],
        [
            Section("Metrics", [Text(_notes(result.facts)), Table("Metrics", ["metric", "value"], rows, mark=None)]),
            Section("Training curves", [Charts(_curves(out))]),
            Section("Boxes", [sheet]),
            Section(
                "Provenance",
                [
                    Facts("Data, weights, settings and versions", {"seed": result.seed, **result.facts, **data}),
                    Facts("Weights", {f"{FILE_NAME} sha256": file_sha256(out / FILE_NAME)}),
                ],
            ),
        ],
    )


def _curves(out: Path) -> list[Chart]:
    """The losses of a run's log, and the metrics of its points if it has any."""
    lines = read(out)
    train, points = (of_kind(lines, kind) for kind in ("train", "probe"))
    losses = [Line(label, *series(train, f"loss_{key}")) for key, label in (("class", "classes"), ("box", "boxes"))]
    metrics = [Line(name, *series(points, name)) for name in SHOWN]
    charts = [Chart("training loss", "step", "", losses)] if train else []
    if points:
        charts.append(Chart("test part; no step is chosen by it", "step", "", metrics, points=True))
    return charts


def _notes(facts: dict[str, Any]) -> list[str]:
    notes = [
        "mAP is the challenge's own score, computed on boxes whose confidence is above the threshold. Its interval is "
        f"from {facts['settings']['bootstrap']:,} resamples of whole patients. COCO's AP has no interval."
    ]
    if not facts[EVALUATION]["boxes"]:
        notes.append("No image of the test part has a box, so there are no metrics.")
    return notes


def _value(estimate: Estimate) -> str:
    return "n/a" if estimate.value != estimate.value else f"{estimate.value:.3f}"


def _interval(estimate: Estimate) -> str:
    return "n/a" if estimate.low != estimate.low else f"{estimate.low:.3f}–{estimate.high:.3f}"


def _part(name: str, counts: dict[str, Any]) -> str:
    return (
        f"- {name}: {counts['films']:,} images of {counts['patients']:,} patients, {counts['films_with_boxes']:,} of "
        f"them with {counts['boxes']:,} boxes"
    )
