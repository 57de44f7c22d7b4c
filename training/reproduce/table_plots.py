"""Plots of a table: metrics by the share of labels, and label by label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..evaluation.intervals import Estimate
from ..evaluation.label_efficiency import draw_label_efficiency
from ..evaluation.plotting import LABEL, LINE_STYLES, MARKERS, new_figure, save_png, style_axes
from .plan import Column, InitializationPlan, Measurement
from .runner import TableResults
from .seed_means import seed_mean


def draw(results: TableResults, folder: Path) -> list[Path]:
    """Write <table>-fractions.png and <table>-labels.png if the table has metrics for them. Returns the files."""
    files = []
    for kind, plot in (("fractions", _plot_fractions), ("labels", _plot_labels)):
        file = folder / f"{results.table.name}-{kind}.png"
        if plot(results, file):
            files.append(file)
    return files


def _plot_fractions(results: TableResults, file: Path) -> bool:
    """One line per row: its metric against the share of labels. Draws nothing if no row has two shares of a task."""
    columns = [column for column in results.table.columns if column.measurement.kind == "finetune"]
    task = next((column.measurement.task for column in columns if column.measurement.fraction < 1), None)
    columns = [column for column in columns if column.measurement.task == task]
    rows = {
        init.name: {
            column.measurement.fraction: estimate
            for column in columns
            if (estimate := seed_mean(results, init, column).estimate)
        }
        for init, _ in results.table.rows
    }
    rows = {name: estimates for name, estimates in rows.items() if len(estimates) > 1}
    if rows:
        title = f"{results.table.title}: fine-tuned on {task}"
        draw_label_efficiency(rows, file, title, f"AUROC, {columns[0].metric}")
    return bool(rows)


def _plot_labels(results: TableResults, file: Path) -> bool:
    """One dot and interval per label and row, for the first measurement with more than two labels, if there is one."""
    for measurement in results.table.measurements:
        names = _label_names(results, measurement)
        if len(names) > 2:
            break
    else:
        return False
    rows = [
        init for init, _ in results.table.rows if any(_estimate(results, init, measurement, name) for name in names)
    ]
    figure = new_figure(8.5, 1.6 + 0.45 * len(names))
    axes = figure.add_subplot()
    style_axes(axes, grid="both")
    offsets = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else [0.0]
    for offset, init, (colour, line) in zip(offsets, rows, LINE_STYLES, strict=False):
        estimates = [_estimate(results, init, measurement, name) for name in names]
        values, low, high = np.array([(e.value, e.low, e.high) if e else (np.nan,) * 3 for e in estimates]).T
        axes.hlines(np.arange(len(names)) + offset, low, high, color=colour, linewidth=1)
        axes.plot(values, np.arange(len(names)) + offset, MARKERS[line], color=colour, markersize=4, label=init.name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{measurement.kind}, {measurement.task}: AUROC, 95 % interval over patients and seeds")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=LABEL)
    save_png(figure, file)
    return True


def _label_names(results: TableResults, measurement: Measurement) -> Sequence[str]:
    """The labels of a measurement; empty without a result, and for a detector."""
    done = [entry.result for (_, of, _), entry in results.entries.items() if of == measurement and entry.result]
    if measurement.kind == "detect" or not done:
        return ()
    return [name for name in done[0].metrics.names if not name.startswith(("mean", "quadratic"))]


def _estimate(results: TableResults, init: InitializationPlan, measurement: Measurement, name: str) -> Estimate | None:
    return seed_mean(results, init, Column(name, name, measurement)).estimate
