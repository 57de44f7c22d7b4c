"""Report of a detection run: report.md and report.csv."""

import csv
import io
from pathlib import Path
from typing import Any

from c2l_models.files import write_atomically

from ..evaluation.intervals import Estimate
from ..evaluation.markdown import markdown_table
from ..evaluation.result import Result
from .patients import EVALUATION, TRAINING


def write_report(out: Path, result: Result) -> None:
    """Write report.md and report.csv into a run's folder."""
    write_atomically(out / "report.md", _markdown(result).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["figure", "value", "low", "high"])
    for name in result.metrics.names:
        estimate = result.metrics[name]
        writer.writerow([name, estimate.value, estimate.low, estimate.high])
    write_atomically(out / "report.csv", text.getvalue().encode())


def _markdown(result: Result) -> str:
    facts, metrics = result.facts, result.metrics
    rows = [(name, _value(metrics[name]), _interval(metrics[name])) for name in metrics.names]
    lines = [f"# Pneumonia detection from {result.initialization}", ""]
    lines += [markdown_table(("metric", "value", "95 % interval"), rows, align="lll"), ""]
    lines += [
        "mAP is the challenge's own score, computed on boxes whose confidence is above the threshold. Its interval"
    ]
    lines += [f"is from {facts['settings']['bootstrap']:,} resamples of whole patients. COCO's AP has no interval."]
    if not facts[EVALUATION]["boxes"]:
        lines += ["", "No image of the evaluation part has a box, so there are no metrics."]
    lines += ["", *(_part(name, facts[name]) for name in (TRAINING, EVALUATION))]
    lines += [f"- {name.replace('_', ' ')}: {count}" for name, count in facts["adjusted"].items() if count]
    if (seen := facts["patients_seen_in_pretraining"]) is None:
        lines += ["- the patients of pretraining are unknown"]
    else:
        lines += [f"- {seen:,} patients are known to have been in pretraining, none of them in the evaluation part"]
    lines += [f"- {facts['steps']:,} steps of {facts['settings']['batch_size']} images, seed {result.seed}"]
    lines += [f"- {facts['seconds']:,.0f} s on {facts['device']}, {facts['seconds_per_step']:.3g} s per step"]
    return "\n".join(lines) + "\n"


def _value(estimate: Estimate) -> str:
    return "n/a" if estimate.value != estimate.value else f"{estimate.value:.3f}"


def _interval(estimate: Estimate) -> str:
    return "n/a" if estimate.low != estimate.low else f"{estimate.low:.3f}–{estimate.high:.3f}"


def _part(name: str, counts: dict[str, Any]) -> str:
    return (
        f"- {name}: {counts['films']:,} images of {counts['patients']:,} patients, {counts['films_with_boxes']:,} of "
        f"them with {counts['boxes']:,} boxes"
    )
