"""ROC curves of a run's predictions, or of several runs on the same images, a panel a label."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError

from .classification_metrics import auroc
from .plotting import LABEL, PALETTE, REFERENCE, SMALL, TITLE, new_figure, save_png, style_axes
from .predictions import Predictions

COLUMNS = 4


def draw_roc(runs: Predictions | Mapping[str, Predictions], path: Path) -> Path:
    """Draw a PNG: sensitivity against 1 - specificity, with each label's AUROC; 'n/a' for a label with one class.

    Args:
        runs: one run, or up to six under the names of the legend, on the same labels of the same images.
        path: is written.

    Raises:
        C2LError: runs that do not belong in one picture, none, or too many.
    """
    named = {"": runs} if isinstance(runs, Predictions) else dict(runs)
    labels = _labels(named)
    columns = min(COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    side = 2.5 if columns > 2 else 3.2  # inches; a single panel has to hold the names of its runs
    abreast = max(1, columns - 1)
    legend = -(-len(named) // abreast) if len(named) > 1 else 0
    figure = new_figure(side * columns + 0.4, (side + 0.05) * rows + 0.75 + 0.22 * legend)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    reached = {name: auroc(run.scores, run.targets, bootstrap=0).per_label for name, run in named.items()}
    for i, axes in enumerate(panels.flat):
        if i >= len(labels):
            axes.set_visible(False)
            continue
        axes.plot([0, 1], [0, 1], ":", color=REFERENCE, linewidth=1)
        for colour, (name, run) in zip(PALETTE, named.items(), strict=False):
            value = reached[name][i]
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
        axes.set_title(labels[i], fontsize=LABEL)
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        # A panel with none beneath it has the ticks that they share.
        axes.tick_params(labelbottom=i + columns >= len(labels))
    figure.supxlabel("1 − specificity", fontsize=TITLE)
    figure.supylabel("sensitivity", fontsize=TITLE)
    if legend:
        lines = panels.flat[0].get_lines()[1:]
        figure.legend(lines, list(named), loc="outside upper center", ncols=abreast, frameon=False, fontsize=LABEL)
    save_png(figure, path)
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


def _labels(runs: Mapping[str, Predictions]) -> tuple[str, ...]:
    if not 0 < len(runs) <= len(PALETTE):
        raise C2LError(f"{len(runs)} runs for one picture of ROC curves; wanted 1 to {len(PALETTE)}")
    first, *others = runs.values()
    for run in others:
        if run.labels != first.labels or not np.array_equal(run.targets, first.targets, equal_nan=True):
            raise C2LError("runs on other labels or other images; wanted ROC curves of the same ones")
    return first.labels
