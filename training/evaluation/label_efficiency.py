"""Plot of label efficiency: a metric against the share or the number of labelled images, one line per network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from c2l_models.errors import C2LError

from .intervals import Estimate
from .plotting import LABEL, LINE_STYLES, new_figure, save_png, style_axes

OFFSET = 1.06
"""Horizontal offset between two initializations, as a factor, so that their intervals do not overlap."""


def draw_label_efficiency(
    estimates: Mapping[str, Mapping[float, Estimate]],
    path: Path,
    title: str,
    metric: str = "AUROC",
    against: Literal["share", "images"] = "share",
) -> Path:
    """Draw a PNG: the metric and its 95 % interval against the share or number of labelled images (log axis).

    Args:
        estimates: initialization -> share of labels in (0, 1], or number of images -> metric. Up to 18
            initializations; their shares may differ. A NaN metric has no point. The legend says 'n/a' for an
            initialization without points.
        path: PNG to write.
        title: title of the plot, such as task and metric.
        metric: label of the vertical axis.
        against: what the horizontal axis shows.

    Raises:
        C2LError: no initialization, more than 18, or a share outside (0, 1].
    """
    from matplotlib.ticker import NullLocator

    shares = sorted({share for by_share in estimates.values() for share in by_share})
    if not shares or shares[0] <= 0 or (against == "share" and shares[-1] > 1):
        raise C2LError(f"expected shares of labels above 0 and up to 1, found {shares}")
    if len(estimates) > len(LINE_STYLES):
        raise C2LError(f"expected at most {len(LINE_STYLES)} initializations in one plot, found {len(estimates)}")
    plot = new_figure(7, 4.4 + 0.25 * (len(estimates) // 3))
    axes = plot.add_subplot()
    middle = (len(estimates) - 1) / 2
    for i, (name, by_share) in enumerate(estimates.items()):
        at = np.array(sorted(by_share))
        values, low, high = np.array(
            [(by_share[share].value, by_share[share].low, by_share[share].high) for share in at]
        ).T
        known, (colour, line) = ~np.isnan(values), LINE_STYLES[i]
        where = at[known] * OFFSET ** (i - middle)
        label = name if known.any() else f"{name}: n/a"
        axes.plot(where, values[known], "o", linestyle=line, color=colour, markersize=4.5, linewidth=1.4, label=label)
        axes.vlines(where, low[known], high[known], color=colour, linewidth=1.1, alpha=0.75)
    axes.set_xscale("log")
    axes.set_xlim(shares[0] / OFFSET ** (middle + 3), shares[-1] * OFFSET ** (middle + 3))
    axes.set_xticks(shares, [f"{100 * share:g} %" if against == "share" else f"{share:g}" for share in shares])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of the training labels" if against == "share" else "labelled training images")
    axes.set_ylabel(f"{metric}\n95 % interval over patients and {'seeds' if against == 'share' else 'draws'}")
    style_axes(axes, title, grid="y")
    plot.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=LABEL)
    save_png(plot, path)
    return path
