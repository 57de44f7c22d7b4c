"""Plots of a run's log. They show whether the run learns, and whether its features collapse."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.plotting import SMALL, new_figure, save_png, style_axes
from ..objectives.method import Panel
from .log import read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEARNING_RATE = Panel("learning rate", {"lr": "learning rate"})


def draw_curves(run_folder: Path, panels: Sequence[Panel]) -> Path:
    """Write curves.png: the method's panels, then k-NN AUROC and learning rate. Returns its path.

    Args:
        run_folder: holds the log.
        panels: the `PANELS` of the run's method.
    """
    lines = read(run_folder)
    train = [line for line in lines if line["kind"] == "train"]
    probes = [line for line in lines if line["kind"] == "probe"]
    rows = (len(panels) + 3) // 2
    figure = new_figure(10, 3 * rows)
    axes: Sequence[Axes] = figure.subplots(rows, 2, sharex=True).flat
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, train)
    knn, learning_rate, *unused = axes[len(panels) :]
    _draw_probes(knn, probes)
    _draw_panel(learning_rate, LEARNING_RATE, train)
    for axis in unused:
        axis.set_visible(False)
    for axis in (knn, learning_rate):
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


def _draw_probes(axis: "Axes", probes: Sequence[dict[str, Any]]) -> None:
    """Draw the monitor's AUROC, one curve per task."""
    for task in sorted({key for line in probes for key in line} - {"kind", "step", "epoch"}):
        values = [line[task] for line in probes]
        axis.plot([line["step"] for line in probes], values, "o-", ms=3, label=task)
    _finish(axis, "k-NN AUROC, held-out training patients")


def _finish(axis: "Axes", title: str) -> None:
    style_axes(axis, title, grid="both")
    if axis.lines:
        axis.legend(frameon=False, fontsize=SMALL)
