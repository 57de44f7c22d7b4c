"""How far few labels go: a figure against the share of labels that was learnt from, a line a start."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2l_models.errors import C2LError

from .intervals import Estimate
from .plotting import LABEL, LINE_STYLES, new_figure, save_png, style_axes

APART = 1.06
"""Factor on the axis of shares from one start's points to the next's: intervals at one share lie side by side."""


def draw_label_efficiency(
    starts: Mapping[str, Mapping[float, Estimate]], path: Path, title: str, figure: str = "AUROC"
) -> Path:
    """Draw a PNG: each start's figure and 95 % interval by share of the training labels, on a log axis.

    Args:
        starts: of up to 18 starts, by name, the estimates by share, in (0, 1]. A start may lack shares. What cannot be
            computed has no point, and a start that has none is named 'n/a'.
        path: is written.
        title: says the task and what stands for it.
        figure: the name of the vertical axis.

    Raises:
        C2LError: no start, too many, or a share outside (0, 1].
    """
    from matplotlib.ticker import NullLocator

    shares = sorted({share for estimates in starts.values() for share in estimates})
    if not shares or shares[0] <= 0 or shares[-1] > 1:
        raise C2LError(f"shares of labels are {shares}; wanted some, above 0 and up to 1")
    if len(starts) > len(LINE_STYLES):
        raise C2LError(f"{len(starts)} starts in one picture; wanted {len(LINE_STYLES)} at most")
    picture = new_figure(7, 4.4 + 0.25 * (len(starts) // 3))
    axes = picture.add_subplot()
    middle = (len(starts) - 1) / 2
    for i, (name, estimates) in enumerate(starts.items()):
        at = np.array(sorted(estimates))
        values, low, high = np.array(
            [(estimates[share].value, estimates[share].low, estimates[share].high) for share in at]
        ).T
        known, (colour, line) = ~np.isnan(values), LINE_STYLES[i]
        where = 100 * at[known] * APART ** (i - middle)
        label = name if known.any() else f"{name}: n/a"
        axes.plot(where, values[known], "o", linestyle=line, color=colour, markersize=4.5, linewidth=1.4, label=label)
        axes.vlines(where, low[known], high[known], color=colour, linewidth=1.1, alpha=0.75)
    axes.set_xscale("log")
    axes.set_xlim(100 * shares[0] / APART ** (middle + 3), 100 * shares[-1] * APART ** (middle + 3))
    axes.set_xticks([100 * share for share in shares], [f"{100 * share:g} %" for share in shares])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of the training labels")
    axes.set_ylabel(f"{figure}\n95 % interval over patients")
    style_axes(axes, title, grid="y")
    picture.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=LABEL)
    save_png(picture, path)
    return path
