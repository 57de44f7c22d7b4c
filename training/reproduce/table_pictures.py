"""What a table's metrics look like: by the share of labels that is learnt from, and label by label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..evaluation.intervals import Estimate
from ..evaluation.label_efficiency import draw_label_efficiency
from ..evaluation.plotting import LABEL, LINE_STYLES, new_figure, save_png, style_axes
from .plan import Column, InitializationPlan, Measurement
from .runner import Book
from .summary import found


def draw(book: Book, folder: Path) -> list[Path]:
    """Write <table>-fractions.png and <table>-labels.png where the table has metrics for them; gives what was."""
    files = []
    for kind, picture in (("fractions", _fractions), ("labels", _labels)):
        file = folder / f"{book.plan.name}-{kind}.png"
        if picture(book, file):
            files.append(file)
    return files


def _fractions(book: Book, file: Path) -> bool:
    """A line a start: its figure against the share of labels; not where fewer than two shares of a task are done."""
    columns = [column for column in book.plan.columns if column.measured.kind == "finetune"]
    task = next((column.measured.task for column in columns if column.measured.fraction < 1), None)
    columns = [column for column in columns if column.measured.task == task]
    starts = {
        start.name: {
            column.measured.fraction: estimate
            for column in columns
            if (estimate := found(book, start, column).estimate)
        }
        for start, _ in book.plan.rows
    }
    starts = {name: estimates for name, estimates in starts.items() if len(estimates) > 1}
    if starts:
        title = f"{book.plan.title}: fine-tuned on {task}"
        draw_label_efficiency(starts, file, title, f"AUROC, {columns[0].figure}")
    return bool(starts)


def _labels(book: Book, file: Path) -> bool:
    """A dot and its interval a label and start, of the first measurement with several labels; not where none is."""
    for measured in book.plan.measurements:
        names = _label_names(book, measured)
        if len(names) > 2:
            break
    else:
        return False
    starts = [start for start, _ in book.plan.rows if any(_figure(book, start, measured, name) for name in names)]
    figure = new_figure(8.5, 1.6 + 0.45 * len(names))
    axes = figure.add_subplot()
    style_axes(axes, grid="both")
    spread = np.linspace(-0.3, 0.3, len(starts)) if len(starts) > 1 else [0.0]
    for shift, start, (colour, _) in zip(spread, starts, LINE_STYLES, strict=False):
        estimates = [_figure(book, start, measured, name) for name in names]
        values, low, high = np.array([(e.value, e.low, e.high) if e else (np.nan,) * 3 for e in estimates]).T
        axes.hlines(np.arange(len(names)) + shift, low, high, color=colour, linewidth=1)
        axes.plot(values, np.arange(len(names)) + shift, "o", color=colour, markersize=4, label=start.name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{measured.kind}, {measured.task}: AUROC, 95 % interval over patients")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=LABEL)
    save_png(figure, file)
    return True


def _label_names(book: Book, measured: Measurement) -> Sequence[str]:
    """The labels of a measurement that has results; a detector has none."""
    results = [cell.result for (_, of, _), cell in book.cells.items() if of == measured and cell.result]
    if measured.kind == "detect" or not results:
        return ()
    return [name for name in results[0].metrics.names if not name.startswith(("mean", "quadratic"))]


def _figure(book: Book, start: InitializationPlan, measured: Measurement, name: str) -> Estimate | None:
    return found(book, start, Column(name, name, measured)).estimate
