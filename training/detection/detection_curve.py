"""Curve of a detection run: loss, mAP and COCO's AP over the steps, as CSV and PNG."""

from pathlib import Path

from c2l_models.files import write_atomically

from ..evaluation.csv_text import csv_text
from ..evaluation.plotting import LABEL, SMALL, new_figure, save_png, style_axes
from ..run_files.log import of_kind, read
from .box_metrics import COCO_NAMES, MAP_NAMES

SHOWN = (*MAP_NAMES[:4], COCO_NAMES[1])
"""Metrics in the picture. At higher thresholds few boxes are left."""


def draw_curve(folder: Path, name: str) -> Path:
    """Write curve.csv and curve.png of a run from its log. `name` is the initialization's. Returns the picture's path.

    The CSV has one line per point: the step, then each metric on the test part; empty if it cannot be computed.
    """
    lines = read(folder)
    points, losses = (of_kind(lines, kind) for kind in ("probe", "train"))
    header = ("step", *MAP_NAMES, *COCO_NAMES)
    rows = ([line.get(name) for name in header] for line in points)
    write_atomically(folder / "curve.csv", csv_text([header, *rows]).encode())
    figure = new_figure(9, 3.6)
    loss, metrics = figure.subplots(1, 2)
    for key, label in (("loss_class", "classes"), ("loss_box", "boxes")):
        loss.plot([line["step"] for line in losses], [line[key] for line in losses], label=label)
    for metric in SHOWN:
        known = [(line["step"], line[metric]) for line in points if line.get(metric) is not None]
        if known:
            metrics.plot(*zip(*known, strict=True), "o-", markersize=3, label=metric)
    style_axes(loss, f"Training loss, from {name}", grid="y")
    style_axes(metrics, "Test part; no step is chosen by it", grid="y")
    for axes in (loss, metrics):
        axes.set_xlabel("step", fontsize=LABEL)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=SMALL)
    save_png(figure, folder / "curve.png")
    return folder / "curve.png"
