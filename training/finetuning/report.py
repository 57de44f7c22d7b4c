"""A fine-tuning run's figures as a table, a CSV and a picture."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from c2l_models.errors import C2LError
from c2l_models.hub import write_atomically

from ..evaluation.figures import Difference, Estimate
from ..evaluation.predictions import Predictions
from ..evaluation.result import Result
from ..evaluation.roc import draw_roc


def write(out: Path, result: Result, predictions: Predictions, other: Result | None = None) -> None:
    """Write report.md, report.csv and roc.png into the run's folder.

    Args:
        out: the folder, which exists.
        result: what is reported.
        predictions: what it was measured on.
        other: a run on the same sample: paired differences to it are shown beside.

    Raises:
        C2LError: `other` was measured on another task, or on another sample.
    """
    differences = minus(result, other) if other else {}
    counts = positives(predictions)
    write_atomically(out / "report.md", markdown(result, counts, other, differences).encode())
    write_atomically(out / "report.csv", as_csv(result, counts, differences).encode())
    draw_roc(predictions, out / "roc.png")


def minus(result: Result, other: Result) -> dict[str, Difference]:
    """Each figure minus the other run's, paired. Raises C2LError where they cannot be paired."""
    if result.task != other.task:
        raise C2LError(f"this run is on {result.task}, the other on {other.task}; wanted two runs on one task")
    shared = [name for name in result.figures.names if name in other.figures.names]
    return {name: result.figures.minus(other.figures, name) for name in shared}


def positives(predictions: Predictions) -> dict[str, int]:
    """Each label's positive test images."""
    counts = np.nansum(predictions.targets, axis=0)
    return {name: int(count) for name, count in zip(predictions.labels, counts, strict=True)}


def show(result: Result, predictions: Predictions, other: Result | None = None) -> None:
    """Print the table to a terminal."""
    header, *rows = _rows(result, positives(predictions), other, minus(result, other) if other else {})
    table = Table(header[0], title=f"Fine-tuning: {result.start} on {result.task}", title_justify="left")
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(" ".join(_notes(result)), style="dim")


def markdown(result: Result, counts: dict[str, int], other: Result | None, differences: dict[str, Difference]) -> str:
    """Notes, the table, and what the figures were computed on and with."""
    header, *rows = _rows(result, counts, other, differences)
    lines = [" | ".join(cells) for cells in (header, ["---"] + ["---:"] * (len(header) - 1), *rows)]
    facts = [f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in result.facts.items()]
    parts = [
        f"# Fine-tuning: {result.start} on {result.task}",
        *_notes(result),
        "\n".join(f"| {line} |" for line in lines),
        "## Computed on, and with",
        "\n".join(facts),
    ]
    return "\n\n".join(parts) + "\n"


def as_csv(result: Result, counts: dict[str, int], differences: dict[str, Difference]) -> str:
    """One line a figure: name, positives, value, low, high, and those of the difference where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["figure", "positives", "value", "low", "high", "difference", "difference_low", "difference_high"])
    for name in result.figures.names:
        found = [*_cells(result.figures[name]), *(_cells(differences[name]) if name in differences else ("", "", ""))]
        writer.writerow([name, counts.get(name, ""), *found])
    return text.getvalue()


def _rows(
    result: Result, counts: dict[str, int], other: Result | None, differences: dict[str, Difference]
) -> list[list[str]]:
    rows = [["figure", "positives", "value"] + ([f"minus {other.start}"] if other else [])]
    for name in result.figures.names:
        difference = [str(differences.get(name, ""))] if other else []
        rows.append([name, str(counts.get(name, "")), str(result.figures[name]), *difference])
    return rows


def _notes(result: Result) -> list[str]:
    """What a reader of the table has to know."""
    facts, settings = result.facts, result.facts["settings"]
    notes = [
        f"AUROC a label on {facts['test_images']} test images of {facts['test_patients']} patients, 95 % intervals "
        f"over {settings['bootstrap']} resamples of whole patients. Fitted on {facts['fit_images']} images of "
        f"{facts['fit_patients']} patients; epoch {facts['epoch']} of {settings['epochs']} was chosen on "
        f"{facts['tune_images']} images of {facts['tune_patients']} other patients."
    ]
    if facts["store_size"] < settings["size"]:
        notes.append(
            f"The store's images are {facts['store_size']} pixels and were enlarged to {settings['size']}: the input "
            "holds no more detail than the store."
        )
    if facts["labels_not_learnt"]:
        notes.append(f"Not learnt, for want of both answers to fit: {', '.join(facts['labels_not_learnt'])}.")
    if seen := facts["test_patients_seen_in_pretraining"]:
        notes.append(
            f"{seen} of the test patients were among the start's pretraining images, without labels: these figures "
            "are not those of patients never seen."
        )
    return notes


def _cells(estimate: Estimate) -> list[str]:
    values = (estimate.value, estimate.low, estimate.high)
    return ["n/a" if np.isnan(value) else f"{value:.4f}" for value in values]
