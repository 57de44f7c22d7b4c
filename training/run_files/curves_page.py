"""The HTML page of `c2l curves`: the k-NN monitor of several runs over their hours, and the runs' settings."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.plotting import SMALLEST_SPAN
from ..pages.charts import Chart, Line
from ..pages.report import Block, Charts, Facts, Page, Section, Table, Text
from .log import number
from .run_section import run_facts

HOW = (
    "k-NN AUROC of each run's frozen features on tuning patients, at the probes in its log. Hours are the time of the "
    "training steps on the run's own machine, without probes and checkpoints."
)


def curves_page(runs: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]) -> Page:
    """Make the page.

    Args:
        runs: the run folders by name, as `compared_curves.named` returns them.
        rows: of curves.csv, as `compare_curves` returns them.
    """
    tasks = dict.fromkeys(row["task"] for row in rows)
    silent = ", ".join(name for name in runs if all(row["run"] != name for row in rows))
    text = [HOW, *([f"Without a probe in the log: {silent}."] if silent else [])]
    sections = [
        Section("Curves", [Text(text), Charts(monitor_charts(rows))]),
        Section("Last and best probe", [_table(task, [row for row in rows if row["task"] == task]) for task in tasks]),
        Section("Settings and provenance", _settings(runs)),
    ]
    return Page("Pretraining runs, compared over their hours", [], sections)


def monitor_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """One chart per task, with one line per run, of the rows of curves.csv."""
    charts, end = [], max((row["hours"] for row in rows), default=0.0) or 1.0
    for task in dict.fromkeys(row["task"] for row in rows):
        lines = []
        for run in dict.fromkeys(row["run"] for row in rows):
            points = [row for row in rows if (row["run"], row["task"]) == (run, task)]
            lines.append(Line(run, [row["hours"] for row in points], [number(row["auroc"]) for row in points]))
        labels = ("hours of training", "k-NN AUROC, tuning patients")
        charts.append(Chart(task, *labels, lines, x_limits=(0, end), points=True, least=SMALLEST_SPAN))
    return charts


def _table(task: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The last and the best probe of each run on a task."""
    lines = []
    for run in dict.fromkeys(row["run"] for row in rows):
        probes = [row for row in rows if row["run"] == run]
        best = max(probes, key=lambda row: -math.inf if row["auroc"] is None else row["auroc"])
        shown = (_auroc(row) for row in (probes[-1], best))
        lines.append([run, *shown, f"{best['hours']:.2f}", f"{probes[-1]['hours']:.2f}", f"{probes[-1]['step']:,}"])
    header = ["run", "last AUROC", "best AUROC", "hours to the best", "hours to the last", "steps to the last"]
    return Table(f"k-NN AUROC on {task}", header, lines)


def _auroc(row: Mapping[str, Any]) -> str:
    return "–" if row["auroc"] is None else f"{row['auroc']:.4f}"


def _settings(runs: Mapping[str, Path]) -> list[Block]:
    """The settings in which the recipes differ, those that they share, and each run's store, machine and weights."""
    facts = {name: run_facts(folder) for name, folder in runs.items()}
    recipes = [dict(recipe.lines) for _, recipe in facts.values()]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    shared = {
        key: recipes[0].get(key) for key in keys if all(recipe.get(key) == recipes[0].get(key) for recipe in recipes)
    }
    differing = [[key, *("; ".join(recipe.get(key, ["–"])) for recipe in recipes)] for key in keys if key not in shared]
    return [
        *([Table("Settings that differ", ["setting", *runs], differing)] if differing else []),
        *(Facts(f"Run {name}", run.values) for name, (run, _) in facts.items()),
        Facts("Settings of all runs" if len(runs) > 1 else "Settings", shared),
    ]
