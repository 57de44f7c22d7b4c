"""The k-NN monitor of several runs over their hours: which run had better features after the same time."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from c2l_models.errors import RunError
from c2l_models.files import write_atomically

from ..evaluation.csv_text import csv_text
from ..evaluation.plotting import LABEL, LINE_STYLES, SMALLEST_SPAN, new_figure, save_png, style_axes, widen
from .log import of_kind, read, tasks_of, training_seconds
from .run_folder import LOG, read_recipe, read_run

COLUMNS: dict[str, Callable[[str], Any]] = {
    "run": str,
    "task": str,
    "step": int,
    "epoch": float,
    "hours": float,
    "auroc": lambda text: float(text) if text else None,
}
"""The columns of curves.csv, and how each reads its fields. A probe without a value has an empty field."""


def compare_curves(run_folders: Sequence[Path], out: Path, earlier: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Write curves.csv and curves.png: k-NN AUROC on tuning patients over hours, one panel per task, one curve per run.

    Hours are the time of the training steps on the run's own machine; the monitor's time is left out.

    Args:
        run_folders: folders of `c2l pretrain`, finished or not.
        out: folder for the two files.
        earlier: files curves.csv of other calls, such as a release's, whose rows are added. A run whose name is taken
            has its file's path in its name.

    Returns:
        The rows of curves.csv: run, task, step, epoch, hours and AUROC.

    Raises:
        RunError: a folder is not a run, no run has a probe in its log, or an earlier file is no curves.csv.
    """
    rows = [{"run": name, **row} for name, folder in named(run_folders).items() for row in monitored(folder)]
    for file in earlier:
        taken = {row["run"] for row in rows}
        rows += [row | {"run": f"{row['run']} ({file})"} if row["run"] in taken else row for row in read_curves(file)]
    if not rows:
        found = ", ".join(map(str, run_folders))
        raise RunError(f"expected a probe in the log of a run, found none in {found}; set `probe_every` in the recipe")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(
        out / "curves.csv", csv_text([list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]).encode()
    )
    draw(rows, out / "curves.png")
    return rows


def named(run_folders: Sequence[Path]) -> dict[str, Path]:
    """The runs by the names of their folders, or by their paths if two folders have the same name."""
    names = {folder.name for folder in run_folders}
    return {folder.name if len(names) == len(run_folders) else str(folder): folder for folder in run_folders}


def monitored(run_folder: Path) -> list[dict[str, Any]]:
    """A row of curves.csv, without the run's name, for each task of each probe in a run's log.

    Raises RunError if the folder is not a run.
    """
    read_run(run_folder)
    if not (run_folder / LOG).is_file():
        return []
    recipe = read_recipe(run_folder)
    lines = read(run_folder)
    seconds = training_seconds(lines, recipe["batch_size"])
    return [
        {"task": task, "step": line["step"], "epoch": line["epoch"], "auroc": line[task]}
        | {"hours": max((after for step, after in seconds.items() if step <= line["step"]), default=0.0) / 3600}
        for line in of_kind(lines, "probe")
        for task in tasks_of([line])
    ]


def read_curves(file: Path) -> list[dict[str, Any]]:
    """The rows of a curves.csv. Raises RunError if the file is anything else."""
    try:
        with file.open(encoding="utf-8", newline="") as text:
            return [{name: kind(row[name]) for name, kind in COLUMNS.items()} for row in csv.DictReader(text)]
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}; name a curves.csv of `c2l curves`") from error
    except (KeyError, ValueError, TypeError):
        raise RunError(
            f"{file}: expected the columns {', '.join(COLUMNS)} of a curves.csv of `c2l curves`, found others"
        ) from None


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows: one panel per task, one curve per run."""
    tasks, runs = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "run"))
    figure = new_figure(5 * len(tasks), 4)
    panels = figure.subplots(1, len(tasks), sharex=True, squeeze=False)[0]
    for axis, task in zip(panels, tasks, strict=True):
        for run, (colour, line) in zip(runs, LINE_STYLES * len(runs), strict=False):
            points = [row for row in rows if (row["run"], row["task"]) == (run, task)]
            hours, values = ([row[key] for row in points] for key in ("hours", "auroc"))
            axis.plot(hours, values, marker="o", markersize=3, color=colour, linestyle=line, label=run)
        style_axes(axis, task, grid="both")
        axis.set_xlabel("hours of training")
        axis.set_xlim(left=0)
        widen(axis, SMALLEST_SPAN)
    panels[0].set_ylabel("k-NN AUROC, tuning patients")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=LABEL)
    save_png(figure, path)
