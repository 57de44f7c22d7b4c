"""Plots of a run's log. They show whether the run learns, and whether its features collapse."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.plotting import SMALL, SMALLEST_SPAN, new_figure, save_png, style_axes, widen
from ..objectives.method import Panel
from .log import of_kind, read, tasks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST_SHARE = 0.3
"""Smallest span of an axis, as a share of its largest value: a smaller change of a loss or rank is no progress."""
LEARNING_RATE = Panel("learning rate", {"lr": "learning rate"})


def draw_curves(run_folder: Path, panels: Sequence[Panel]) -> Path:
    """Write curves.png: the method's panels, k-NN AUROC if it was measured, and learning rate. Returns its path.

    Args:
        run_folder: holds the log.
        panels: the `PANELS` of the run's method.
    """
    lines = read(run_folder)
    train, probes = (of_kind(lines, kind) for kind in ("train", "probe"))
    draw: list[Callable[[Axes], None]] = [partial(_draw_panel, panel=panel, train=train) for panel in panels]
    draw += [partial(_draw_probes, probes=probes)] if probes else []
    draw.append(partial(_draw_panel, panel=LEARNING_RATE, train=train))
    rows = -(-len(draw) // 2)
    figure = new_figure(10, 3 * rows)
    axes: list[Axes] = list(figure.subplots(rows, 2, sharex=True, squeeze=False).flat)
    for axis, panel in zip(axes, draw, strict=False):
        panel(axis)
    for axis in axes[len(draw) :]:
        axis.set_visible(False)
    for axis in axes[len(draw) - 2 : len(draw)]:
        axis.set_xlabel("step")
        axis.tick_params(labelbottom=True)
    path = run_folder / "curves.png"
    save_png(figure, path)
    return path


def _draw_panel(axis: "Axes", panel: Panel, train: Sequence[dict[str, Any]]) -> None:
    """Draw a panel's curves; a metric that the log lacks is left out."""
    steps = [line["step"] for line in train]
    for name, label in panel.curves.items():
        if train and name in train[0]:
            values = [line[name] for line in train]
            axis.plot(steps, values, "." if len(steps) == 1 else "-", label=label)
    _finish(axis, panel.title)
    if panel.limits:
        axis.set_ylim(*panel.limits)
    elif panel is LEARNING_RATE:
        axis.set_ylim(bottom=0)
    else:
        widen(axis, SMALLEST_SHARE * max(map(abs, axis.get_ylim())))


def _draw_probes(axis: "Axes", probes: Sequence[dict[str, Any]]) -> None:
    """Draw the monitor's AUROC, one curve per task."""
    for task in tasks_of(probes):
        values = [line[task] for line in probes]
        axis.plot([line["step"] for line in probes], values, "o-", ms=3, label=task)
    _finish(axis, "k-NN AUROC, held-out training patients")
    widen(axis, SMALLEST_SPAN)


def _finish(axis: "Axes", title: str) -> None:
    style_axes(axis, title, grid="both")
    if axis.lines:
        axis.legend(frameon=False, fontsize=SMALL)
