"""A network's features on their first two principal components, coloured by what is known of the films."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..evaluation.classification_metrics import Mask
from ..evaluation.intervals import Floats
from ..evaluation.plotting import LABEL, PALETTE, SMALL, new_figure, save_png
from .samples import DataSet, Features

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FINDINGS = 5
"""Panels of findings that a data set has: those that most of its test films show."""
COLUMNS = 4
REST, SHOWN = "#c9ced6", PALETTE[0]
CLASSES = (PALETTE[1], PALETTE[5], PALETTE[4], PALETTE[3])
"""Colours that are told apart with any colour vision."""
GRADES = "viridis"


@dataclass(frozen=True)
class Plane:
    """The first two principal components of training films' features.

    Attributes:
        films: whose, as a title says it.
        shares: of the training films' variance, [2].
        points: the test films on them, [n, 2].
    """

    films: str
    shares: Floats
    points: Floats


@dataclass(frozen=True)
class Panel:
    """One colouring of a plane: what each group is called, its colour, and its points, bool [n]; drawn in order."""

    title: str
    plane: Plane
    groups: Sequence[tuple[str, Any, Mask]]


def fit_plane(films: str, train: NDArray[np.float32], test: NDArray[np.float32]) -> Plane:
    """PCA of features [N, D], N and D at least 2, and [n, D] projected. Raises DatasetError for fewer films."""
    from sklearn.decomposition import PCA

    if len(train) < 2:
        raise DatasetError(f"{len(train)} training film of {films}; wanted two or more for a map")
    pca = PCA(2, svd_solver="covariance_eigh").fit(train.astype(np.float64))
    return Plane(films, pca.explained_variance_ratio_, pca.transform(test.astype(np.float64)))


def panels(sets: Sequence[DataSet], known: Features, asked: Features) -> list[Panel]:
    """All films by data set, where there are several; then each data set's by view and finding, or by grade.

    Each data set has a plane of its own: on that of all films, most of what is seen is which data set is which.
    """
    found = []
    if len(sets) > 1:
        train, test = (np.concatenate([getattr(films, part) for films in sets]) for part in ("train", "test"))
        plane = fit_plane("all films", known.of(train), asked.of(test))
        of = np.repeat([films.name for films in sets], [len(films.test) for films in sets])
        found.append(Panel("data set", plane, _classes({films.name: of == films.name for films in sets})))
    for films in sets:
        plane = fit_plane(films.name, known.of(films.train), asked.of(films.test))
        views = films.store.index["view"].to_numpy()[films.test].astype(str)
        by_view = {view: views == view for view in np.unique(views) if view}
        if len(by_view) > 1:
            found.append(Panel("view", plane, _classes(by_view)))
        found += _labelled(films, plane)
    return found


def draw_map(path: Path, drawn: Sequence[Panel], title: str) -> None:
    """Draw the panels as a PNG, four a row; it shows no film."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    apart = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.15, wspace=0.03, hspace=0.03)
    figure = new_figure(3.2 * max(columns, 2), 3.6 * rows + 0.5, layout=apart)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i < len(drawn):
            _draw_panel(axes, drawn[i])
        else:
            axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    save_png(figure, path)


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    points = panel.plane.points
    # Fewer points, larger dots; what is drawn last lies on top.
    size = float(np.clip(6000 / len(points), 3, 16))
    for name, colour, mask in panel.groups:
        label = f"{name} ({mask.sum():,})"
        axes.scatter(points[mask, 0], points[mask, 1], s=size, color=colour, linewidths=0, alpha=0.75, label=label)
    axes.set_title(f"{panel.plane.films}: {panel.title}", loc="left", fontsize=LABEL)
    first, second = (f"{100 * share:.0f} % of the variance" for share in panel.plane.shares)
    axes.set_xlabel(f"component 1, {first}", fontsize=SMALL, color="0.3")
    axes.set_ylabel(f"component 2, {second}", fontsize=SMALL, color="0.3")
    axes.set_box_aspect(1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.8")
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


def _labelled(films: DataSet, plane: Plane) -> list[Panel]:
    groups = films.groups(films.test)
    if films.task.is_graded:
        from matplotlib import colormaps

        shades = colormaps[GRADES](np.linspace(0, 0.92, len(groups)))
        coloured = [(name, shade, mask) for (name, mask), shade in zip(groups.items(), shades, strict=True)]
        return [Panel(films.task.grade, plane, [(name.split()[-1], *rest) for name, *rest in coloured])]
    shown = sorted((name for name in groups if name in films.names), key=lambda name: -groups[name].sum())
    found = []
    for name in shown[:FINDINGS]:
        without = films.labels[films.test, films.names.index(name)] == 0
        found.append(Panel(name, plane, [("without", REST, without), ("with", SHOWN, groups[name])]))
    return found


def _classes(groups: Mapping[str, Mask]) -> list[tuple[str, Any, Mask]]:
    """The largest groups, as many as there are colours; the largest drawn first."""
    ordered = sorted(groups, key=lambda name: -groups[name].sum())
    return [(name, colour, groups[name]) for name, colour in zip(ordered, CLASSES, strict=False)]
