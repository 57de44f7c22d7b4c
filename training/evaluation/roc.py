"""ROC curves of one or several runs on the same images, one panel per label."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError

from .classification_metrics import auroc
from .plotting import (
    LABEL,
    NAME_WIDTH,
    PALETTE,
    REFERENCE,
    SMALL,
    TITLE,
    grid_shape,
    new_figure,
    save_png,
    style_axes,
    wrapped,
)
from .predictions import Predictions

COLUMNS = 4


def draw_roc(runs: Predictions | Mapping[str, Predictions], path: Path) -> Path:
    """Draw a PNG: sensitivity against 1 - specificity, and the AUROC of each label ('n/a' for a label with one class).

    Args:
        runs: predictions of one run, or of up to six runs by name, on the same labels of the same images.
        path: PNG to write.

    Raises:
        C2LError: no runs, more than six, or runs on different labels or images.
    """
    named = {"": runs} if isinstance(runs, Predictions) else dict(runs)
    labels = _labels(named)
    rows, columns = grid_shape(len(labels), COLUMNS)
    side = 2.5 if columns > 2 else 3.2  # inches; one or two panels need more room for the names of the runs
    legend_columns = max(1, columns - 1)
    legend = -(-len(named) // legend_columns) if len(named) > 1 else 0
    figure = new_figure(side * columns + 0.4, (side + 0.05) * rows + 0.75 + 0.22 * legend)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    aurocs = {name: auroc(run.scores, run.targets, bootstrap=0).per_label for name, run in named.items()}
    for i, axes in enumerate(panels.flat):
        if i >= len(labels):
            axes.set_visible(False)
            continue
        axes.plot([0, 1], [0, 1], ":", color=REFERENCE, linewidth=1)
        for colour, (name, run) in zip(PALETTE, named.items(), strict=False):
            value = aurocs[name][i]
            shown = "n/a" if np.isnan(value) else f"{value:.3f}"
            axes.plot(*roc(run.scores[:, i], run.targets[:, i]), color=colour, linewidth=1.3, label=shown)
        axes.legend(
            title="AUROC",
            title_fontsize=SMALL,
            loc="lower right",
            fontsize=SMALL,
            frameon=False,
            handlelength=1.2,
            labelspacing=0.2,
            borderpad=0.1,
        )
        style_axes(axes)
        axes.set_title(wrapped(labels[i], NAME_WIDTH), fontsize=LABEL)
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        # The lowest panel of each column shows the ticks.
        axes.tick_params(labelbottom=i + columns >= len(labels))
    figure.supxlabel("1 − specificity", fontsize=TITLE)
    figure.supylabel("sensitivity", fontsize=TITLE)
    if legend:
        lines = panels.flat[0].get_lines()[1:]
        figure.legend(
            lines, list(named), loc="outside upper center", ncols=legend_columns, frameon=False, fontsize=LABEL
        )
    save_png(figure, path)
    return path


def roc(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates at every threshold, ascending; empty if a class is missing.

    Args:
        scores: float [M]; NaN if the label could not be learned.
        targets: float [M]; 0, 1 or NaN (ignored).
    """
    from sklearn.metrics import roc_curve

    known = ~np.isnan(targets)
    if np.isnan(scores).any() or len(np.unique(targets[known])) < 2:
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(targets[known], scores[known])
    return false, true


def _labels(runs: Mapping[str, Predictions]) -> tuple[str, ...]:
    if not 0 < len(runs) <= len(PALETTE):
        raise C2LError(f"expected 1 to {len(PALETTE)} runs in one plot of ROC curves, found {len(runs)}")
    first, *others = runs.values()
    for run in others:
        if run.labels != first.labels or not np.array_equal(run.targets, first.targets, equal_nan=True):
            raise C2LError("expected runs on the same labels and images, found different ones")
    return first.labels
