"""ROC curves of a run's predictions, or of several runs on the same images, a panel a label."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2l_models.hub import write_atomically

from .metrics import auroc
from .predictions import Predictions

COLUMNS = 4
COLOURS = ("#c1272d", "#1f5f99", "#2e7d32", "#222222", "#8e5ba6", "#7fa6c9")


def draw_roc(runs: Predictions | Mapping[str, Predictions], path: Path) -> Path:
    """Draw a PNG: sensitivity against 1 - specificity, with each label's AUROC; 'n/a' for a label with one class.

    Args:
        runs: one run, or several under the names of the legend, at most six, of one task.
        path: is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = {"": runs} if isinstance(runs, Predictions) else dict(runs)
    labels = next(iter(named.values())).labels
    columns = min(COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.4, 2.6 * rows + 0.5 + 0.25 * (len(named) > 1)), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    reached = {name: auroc(run.scores, run.targets, bootstrap=0).per_label for name, run in named.items()}
    for i, axes in enumerate(panels.flat):
        if i >= len(labels):
            axes.set_visible(False)
            continue
        axes.plot([0, 1], [0, 1], ":", color="0.7", linewidth=1)
        for colour, (name, run) in zip(COLOURS, named.items(), strict=False):
            axes.plot(*roc(run.scores[:, i], run.targets[:, i]), color=colour, linewidth=1.3, label=name)
        values = [reached[name][i] for name in named]
        shown = " / ".join("n/a" if np.isnan(value) else f"{value:.3f}" for value in values)
        axes.set_title(f"{labels[i]}\n{shown}", fontsize=9)
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
    figure.supxlabel("1 − specificity", fontsize=10)
    figure.supylabel("sensitivity", fontsize=10)
    if len(named) > 1:
        figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path


def roc(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates at every threshold, ascending; nothing where a class is missing.

    Args:
        scores: float [M], NaN where the label was not learnt.
        targets: float [M], 0 or 1; NaN: left out.
    """
    from sklearn.metrics import roc_curve

    known = ~np.isnan(targets)
    if np.isnan(scores).any() or len(np.unique(targets[known])) < 2:
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(targets[known], scores[known])
    return false, true
