"""Scatter plots of features on their first two principal components, coloured by data set, view, finding or grade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..evaluation.classification_metrics import Mask
from ..evaluation.intervals import Floats
from ..evaluation.plotting import LABEL, NAME_WIDTH, PALETTE, SMALL, grid_shape, new_figure, save_png, wrapped
from .samples import DataSetSample, Features

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FINDINGS = 5
"""Maximum number of findings shown per data set, the most frequent ones in its test images."""
ALL_DATA_SETS = "all_films"
"""Name of the plane of all data sets together."""
COLUMNS = 4
WITHOUT, WITH = "#c9ced6", PALETTE[0]
"""Colours of images without and with a finding."""
CLASSES = (PALETTE[1], PALETTE[5], PALETTE[4], PALETTE[3])
"""Colours that colour-blind readers can distinguish."""
GRADE_COLORMAP = "viridis"


@dataclass(frozen=True)
class Plane:
    """Test images on the first two principal components of the training images' features.

    Attributes:
        name: data set, or `ALL_DATA_SETS`.
        shares: share of the training images' variance on each component, [2].
        points: coordinates of the test images, [n, 2].
    """

    name: str
    shares: Floats
    points: Floats


@dataclass(frozen=True)
class Panel:
    """A plane whose points are coloured by group. `groups`, in drawing order: name, colour, mask of points bool [n]."""

    title: str
    plane: Plane
    groups: Sequence[tuple[str, Any, Mask]]


def fit_plane(name: str, train: NDArray[np.float32], test: NDArray[np.float32]) -> Plane:
    """Fit a PCA on training features [N, D] with D >= 2, and project test features [n, D]. DatasetError if N < 2."""
    from sklearn.decomposition import PCA

    if len(train) < 2:
        raise DatasetError(f"expected at least two training images of {name} for a map, found {len(train)}")
    pca = PCA(2, svd_solver="covariance_eigh").fit(train.astype(np.float64))
    return Plane(name, pca.explained_variance_ratio_, pca.transform(test.astype(np.float64)))


def make_panels(samples: Sequence[DataSetSample], train: Features, test: Features) -> list[Panel]:
    """Panels of all images by data set, if the store has several; then of each data set by view and finding, or grade.

    Each data set has its own plane, because the plane of all images mainly separates the data sets.
    """
    panels = []
    if len(samples) > 1:
        rows = {part: np.concatenate([getattr(sample, part) for sample in samples]) for part in ("train", "test")}
        plane = fit_plane(ALL_DATA_SETS, train.at(rows["train"]), test.at(rows["test"]))
        names = np.repeat([sample.name for sample in samples], [len(sample.test) for sample in samples])
        by_name = {sample.name: names == sample.name for sample in samples}
        panels.append(Panel("data set", plane, _largest_groups(by_name)))
    for sample in samples:
        plane = fit_plane(sample.name, train.at(sample.train), test.at(sample.test))
        views = sample.store.index["view"].to_numpy()[sample.test].astype(str)
        by_view = {view: views == view for view in np.unique(views) if view}
        if len(by_view) > 1:
            panels.append(Panel("view", plane, _largest_groups(by_view)))
        panels += _label_panels(sample, plane)
    return panels


def draw_map(path: Path, panels: Sequence[Panel], title: str) -> None:
    """Draw the panels as a PNG, four per row. The PNG shows no images."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows, columns = grid_shape(len(panels), COLUMNS)
    padding = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.15, wspace=0.03, hspace=0.03)
    figure = new_figure(3.2 * max(columns, 2), 3.6 * rows + 0.5, layout=padding)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i < len(panels):
            _draw_panel(axes, panels[i])
        else:
            axes.set_visible(False)
    if marks := next((axes for axes in grid.flat if axes.get_legend_handles_labels()[0] and not axes.legend_), None):
        handles, labels = marks.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, fontsize=LABEL, frameon=False, handletextpad=0.1
        )
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    save_png(figure, path)


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    points = panel.plane.points
    # With fewer points, the dots are larger, so that they remain visible.
    size = float(np.clip(6000 / len(points), 3, 16))
    of_finding = [colour for _, colour, _ in panel.groups] == [WITHOUT, WITH]
    for name, colour, mask in panel.groups:
        label = f"{name} the finding" if of_finding else wrapped(f"{name} ({mask.sum():,})", NAME_WIDTH)
        axes.scatter(points[mask, 0], points[mask, 1], s=size, color=colour, linewidths=0, alpha=0.75, label=label)
    title = f"{'all films' if panel.plane.name == ALL_DATA_SETS else panel.plane.name}: {panel.title}"
    if of_finding:
        without, having = (int(mask.sum()) for _, _, mask in panel.groups)
        title += f" ({having:,} of {without + having:,})"
    axes.set_title(wrapped(title, 2 * NAME_WIDTH), loc="left", fontsize=LABEL)
    first, second = (f"{100 * share:.0f} % of the variance" for share in panel.plane.shares)
    axes.set_xlabel(f"component 1, {first}", fontsize=SMALL, color="0.3")
    axes.set_ylabel(f"component 2, {second}", fontsize=SMALL, color="0.3")
    axes.set_box_aspect(1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.8")
    if of_finding:
        return  # one legend explains the colours of all findings
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.08),
        ncols=2 if len(panel.groups) < 4 else 3,
        fontsize=SMALL,
        frameon=False,
        markerscale=2.2 * (3 / size) ** 0.5,
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def _label_panels(sample: DataSetSample, plane: Plane) -> list[Panel]:
    """One panel for the grade, or one panel per frequent finding."""
    groups = sample.groups(sample.test)
    if sample.task.is_graded:
        from matplotlib import colormaps

        shades = colormaps[GRADE_COLORMAP](np.linspace(0, 0.92, len(groups)))
        coloured = [(name, shade, mask) for (name, mask), shade in zip(groups.items(), shades, strict=True)]
        return [Panel(sample.task.grade, plane, [(name.split()[-1], *rest) for name, *rest in coloured])]
    shown = sorted((name for name in groups if name in sample.names), key=lambda name: -groups[name].sum())
    panels = []
    for name in shown[:FINDINGS]:
        without = sample.labels[sample.test, sample.names.index(name)] == 0
        panels.append(Panel(name, plane, [("without", WITHOUT, without), ("with", WITH, groups[name])]))
    return panels


def _largest_groups(groups: Mapping[str, Mask]) -> list[tuple[str, Any, Mask]]:
    """The largest groups, at most one per colour, largest first."""
    ordered = sorted(groups, key=lambda name: -groups[name].sum())
    return [(name, colour, groups[name]) for name, colour in zip(ordered, CLASSES, strict=False)]
