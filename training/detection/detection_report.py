"""A detector's metrics as a table: report.md and report.csv."""

import csv
import io
from pathlib import Path
from typing import Any

from c2l_models.files import write_atomically

from ..evaluation.intervals import Estimate
from ..evaluation.result import Result
from .patients import EVALUATION, TRAINING


def write_report(out: Path, result: Result) -> None:
    """Write report.md and report.csv into a run's folder."""
    write_atomically(out / "report.md", _markdown(result).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["figure", "value", "low", "high"])
    for name in result.metrics.names:
        found = result.metrics[name]
        writer.writerow([name, found.value, found.low, found.high])
    write_atomically(out / "report.csv", text.getvalue().encode())


def _markdown(result: Result) -> str:
    facts = result.facts
    lines = [f"# Pneumonia detection from {result.initialization}", ""]
    lines += ["| figure | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| {name} | {_value(found)} | {_interval(found)} |" for name, found in _figures(result)]
    lines += ["", "mAP is the challenge's own score, of the boxes that are surer than the threshold; its interval is"]
    lines += [f"from {result.facts['settings']['bootstrap']:,} resamples of whole patients. COCO's AP has none here."]
    if not facts[EVALUATION]["boxes"]:
        lines += ["", "No film of the evaluation part has a box: there is nothing to find, and no figure."]
    lines += ["", *(_part(name, facts[name]) for name in (TRAINING, EVALUATION))]
    lines += [f"- {text}: {count}" for text, count in facts["not as they were"].items() if count]
    known = facts["patients that the start is known to have seen"]
    if known is None:
        lines += ["- nothing tells which patients the start has seen"]
    else:
        lines += [f"- the start is known to have seen {known:,} patients, none of them in the evaluation part"]
    lines += [f"- {facts['steps']:,} steps of {facts['settings']['batch_size']} films, seed {result.seed}"]
    lines += [f"- {facts['seconds']:,.0f} s on {facts['device']}, {facts['seconds a step']:.3g} s a step"]
    return "\n".join(lines) + "\n"


def _figures(result: Result) -> list[tuple[str, Estimate]]:
    return [(name, result.metrics[name]) for name in result.metrics.names]


def _value(found: Estimate) -> str:
    return "n/a" if found.value != found.value else f"{found.value:.3f}"


def _interval(found: Estimate) -> str:
    return "n/a" if found.low != found.low else f"{found.low:.3f}–{found.high:.3f}"


def _part(name: str, counts: dict[str, Any]) -> str:
    return (
        f"- {name}: {counts['films']:,} films of {counts['patients']:,} patients, {counts['films with boxes']:,} of "
        f"them with {counts['boxes']:,} boxes"
    )
