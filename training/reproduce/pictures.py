"""What a table's figures look like: by the share of labels that is learnt from, and label by label."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2l_models.hub import write_atomically

from ..evaluation.figures import Estimate
from .figures import found
from .plan import Column, Measurement, StartPlan
from .run import Book

COLOURS = ("#c1272d", "#1f5f99", "#7fa6c9", "#2e7d32", "#b07aa1", "#222222")


def draw(book: Book, folder: Path) -> list[Path]:
    """Write <table>-labels.png and <table>-fractions.png where the table has figures for them; gives what was."""
    files = []
    for kind, picture in (("fractions", _fractions(book)), ("labels", _labels(book))):
        if picture:
            write_atomically(folder / f"{book.plan.name}-{kind}.png", picture)
            files.append(folder / f"{book.plan.name}-{kind}.png")
    return files


def _fractions(book: Book) -> bytes | None:
    """A line a start: its figure against the share of labels; None where fewer than two shares of a task are done."""
    columns = [column for column in book.plan.columns if column.measured.kind == "finetune"]
    task = next((column.measured.task for column in columns if column.measured.fraction < 1), None)
    columns = [column for column in columns if column.measured.task == task]
    lines = {}
    for start, _ in book.plan.rows:
        points = [(column.measured.fraction, found(book, start, column).estimate) for column in columns]
        known = sorted((share, e) for share, e in points if e and e.value == e.value)
        if len(known) > 1:
            lines[start.name] = known
    if not lines:
        return None
    figure, axes = _canvas(7, 4.5)
    for colour, (name, known) in zip(COLOURS, lines.items(), strict=False):
        shares = [100 * share for share, _ in known]
        values, low, high = np.array([(e.value, e.low, e.high) for _, e in known]).T
        axes.plot(shares, values, "o-", color=colour, label=name)
        axes.fill_between(shares, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([100 * column.measured.fraction for column in columns])
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.set_xlabel("labels learnt from")
    axes.set_ylabel(f"{task}, AUROC, {columns[0].figure}, 95 % interval over patients")
    return _png(figure)


def _labels(book: Book) -> bytes | None:
    """A dot and its interval a label and start, of the first measurement with several labels; None where none is."""
    for measured in book.plan.measurements:
        names = _label_names(book, measured)
        if len(names) > 2:
            break
    else:
        return None
    starts = [start for start, _ in book.plan.rows if any(_figure(book, start, measured, name) for name in names)]
    figure, axes = _canvas(8.5, 1.6 + 0.45 * len(names))
    spread = np.linspace(-0.3, 0.3, len(starts)) if len(starts) > 1 else [0.0]
    for shift, start, colour in zip(spread, starts, COLOURS * len(starts), strict=False):
        estimates = [_figure(book, start, measured, name) for name in names]
        values, low, high = np.array([(e.value, e.low, e.high) if e else (np.nan,) * 3 for e in estimates]).T
        axes.hlines(np.arange(len(names)) + shift, low, high, color=colour, linewidth=1)
        axes.plot(values, np.arange(len(names)) + shift, "o", color=colour, markersize=4, label=start.name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{measured.kind}, {measured.task}: AUROC, 95 % interval over patients")
    return _png(figure)


def _label_names(book: Book, measured: Measurement) -> Sequence[str]:
    """The labels of a measurement that has results; a detector has none."""
    results = [cell.result for (_, of, _), cell in book.cells.items() if of == measured and cell.result]
    if measured.kind == "detect" or not results:
        return ()
    return [name for name in results[0].figures.names if not name.startswith(("mean", "quadratic"))]


def _figure(book: Book, start: StartPlan, measured: Measurement, name: str) -> Estimate | None:
    return found(book, start, Column(name, name, measured)).estimate


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
