"""A pretraining run in an HTML page: its curves, its recipe and its weights."""

import math
from pathlib import Path
from typing import Any

from c2l_models.hub.repository import PREFIX

from ..evaluation.plotting import SMALLEST_SPAN
from ..objectives import class_of
from ..objectives.method import Panel
from ..pages.charts import Chart, Line
from ..pages.report import Charts, Facts, Section
from ..recipe_files import from_dict
from ..store.store_format import file_sha256
from . import checkpoint
from .curves import LEARNING_RATE, SMALLEST_SHARE
from .log import of_kind, read, series, tasks_of
from .run_folder import LOG, read_initialization, read_recipe, read_run


def training_curves(run_folder: Path) -> list[Section]:
    """The curves of a pretraining run's log; no section if the log has no lines."""
    lines = read(run_folder) if (run_folder / LOG).is_file() else []
    train, probes = (of_kind(lines, kind) for kind in ("train", "probe"))
    if not train:
        return []
    charts = [_chart(panel, train) for panel in class_of(from_dict(read_recipe(run_folder))).PANELS]
    charts += [_probes(probes)] if probes else []
    charts += [_chart(LEARNING_RATE, train)]
    return [Section("Training curves", [Charts([chart for chart in charts if chart.lines])])]


def run_facts(run_folder: Path) -> list[Facts]:
    """A pretraining run's store, machine, versions and weights, and its recipe. No path and no patient is in them.

    Weights that the recipe names by a path are shown by their name alone.
    """
    run = {key: value for key, value in read_run(run_folder).items() if key != "store"}
    facts = {"initialization": read_initialization(run_folder)["name"], **run, **_weights(run_folder)}
    recipe = read_recipe(run_folder)
    if "initialization" in recipe:
        recipe["initialization"] = _without_folder(recipe["initialization"])
    if "distillation" in recipe:
        recipe["distillation"]["source"] = _without_folder(recipe["distillation"]["source"])
    return [Facts("Pretraining run", facts), Facts("Recipe", recipe)]


def _without_folder(spec: str) -> str:
    """The name of weights without the folder of a path; a repository of the hub keeps its owner."""
    return spec if spec.startswith(PREFIX) else Path(spec).name


def _chart(panel: Panel, train: list[dict[str, Any]]) -> Chart:
    """A panel of curves.png; a metric that the log lacks is left out."""
    lines = [Line(label, *series(train, name)) for name, label in panel.curves.items() if name in train[0]]
    largest = max((abs(y) for line in lines for y in line.y if math.isfinite(y)), default=0.0)
    return Chart(panel.title, "step", "", lines, y_limits=panel.limits, least=SMALLEST_SHARE * largest)


def _probes(probes: list[dict[str, Any]]) -> Chart:
    """The monitor's AUROC, one line per task."""
    lines = [Line(task, *series(probes, task)) for task in tasks_of(probes)]
    title = "k-NN AUROC, held-out training patients"
    return Chart(title, "step", "", lines, points=True, least=SMALLEST_SPAN)


def _weights(run_folder: Path) -> dict[str, str]:
    """The sha256 of the newest checkpoint and of the exported weights, if they exist."""
    files = [run_folder / checkpoint.FOLDER / checkpoint.newest(run_folder), run_folder / "backbone.safetensors"]
    return {f"{file.name} sha256": file_sha256(file) for file in files if file.is_file()}
