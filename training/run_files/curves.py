"""A run's log as a picture: is it learning, and does it collapse?"""

from pathlib import Path

from ..evaluation.plotting import SMALL, new_figure, save_png, style_axes
from .log import read


def draw_curves(run_folder: Path) -> Path:
    """Draw a run's log: loss terms; contrast and feature spread; k-NN AUROC; learning rate. Gives the PNG's path."""
    lines = read(run_folder)
    train = [line for line in lines if line["kind"] == "train"]
    probes = [line for line in lines if line["kind"] == "probe"]
    steps = [line["step"] for line in train]
    figure = new_figure(10, 6)
    axes = figure.subplots(2, 2, sharex=True)
    losses = {"loss": "loss", "loss_a": "A", "loss_m": "M (two terms)", "given": "of the spoilt views as they are"}
    panels = (
        (axes[0, 0], "loss, mean over the batch", losses),
        (axes[0, 1], "contrast", {"top1": "top-1 of the contrast", "spread": "feature spread (1: even)"}),
        (axes[1, 1], "learning rate", {"lr": "learning rate"}),
    )
    for axis, title, curves in panels:
        for key, label in curves.items():
            if train and key not in train[0]:  # of another method
                continue
            axis.plot(steps, [line[key] for line in train], "." if len(steps) == 1 else "-", label=label)
        style_axes(axis, title, grid="both")
        if axis.lines:
            axis.legend(frameon=False, fontsize=SMALL)
    axes[0, 1].set_ylim(0, 1.05)
    style_axes(axes[1, 0], "k-NN AUROC, held-out training patients", grid="both")
    tasks = sorted({key for line in probes for key in line} - {"kind", "step", "epoch"})
    for task in tasks:
        axes[1, 0].plot([line["step"] for line in probes], [line[task] for line in probes], "o-", ms=3, label=task)
    if tasks:
        axes[1, 0].legend(frameon=False, fontsize=SMALL)
    for axis in axes[1]:
        axis.set_xlabel("step")
    path = run_folder / "curves.png"
    save_png(figure, path)
    return path
