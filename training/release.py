"""A finished run -> a release: the weight file, where it came from, and its entry in the registry."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from c2l_models import weights as registry
from c2l_models.errors import RunError
from c2l_models.hub import write_atomically
from c2l_models.models import create_model
from c2l_models.verify import golden_embedding
from c2l_models.weights import Weights

from . import log
from .datasets import PUBLIC
from .evaluation.probe import probe
from .evaluation.report import ProbeReport
from .evaluation.tasks import load_tasks
from .export import export_run, load_run_store
from .pretrain import training_rows
from .recipe import Recipe, from_dict

LICENSE = "CC-BY-4.0"
LAST_LINES = 5


def release_run(run_folder: Path, tag: str, out: Path, size: int | None = None, default: bool = False) -> Weights:
    """Export a run, probe it beside the floors, and write what makes it a release.

    Args:
        run_folder: a folder that `pretrain` wrote.
        tag: the release is called `architecture.tag`.
        out: folder for the probes' tables and pictures, one a task.
        size: side of the images that the release is for; the recipe's by default.
        default: whether `pretrained=True` is to mean this release.

    Returns:
        The release's record.

    Raises:
        RunError: a release of this name exists. A release is immutable: better weights get another tag.
    """
    recipe = from_dict(json.loads((run_folder / "recipe.json").read_text()))
    name = f"{recipe.architecture}.{tag}"
    if name in registry.list_weights():
        raise RunError(f"{name} is released, and a release does not change; choose another --tag")
    file = registry.REGISTRY.parent / "released" / f"{name}.safetensors"
    store = load_run_store(run_folder)
    export_run(run_folder, file, store, tag=tag, size=size, license=LICENSE)
    weights = Weights.from_file(file)
    reports = [probe(str(file), store, task, out=out / task.name) for task in load_tasks(store)]
    metrics = {key: value for report in reports for key, value in figures(report).items()}
    rows = training_rows(recipe, store)
    provenance = {
        "release": name,
        "sha256": weights.sha256,
        **json.loads((run_folder / "run.json").read_text()),
        "code": code_version(),
        "recipe": recipe.to_dict(),
        "index_sha256": store.sha256,
        "trained_on": list(weights.trained_on),
        "metrics": metrics,
        "log": log.read(run_folder)[-LAST_LINES:],
        "patients": patients_seen(store.patients[rows], store.index["dataset"].to_numpy()[rows]),
        "golden_embedding": golden_embedding(create_model(recipe.architecture, weights=weights), weights),
    }
    del provenance["store"]  # a folder of this machine
    write_atomically(file.with_suffix(".json"), (json.dumps(provenance, indent=1) + "\n").encode())
    entry = registry_entry(weights, recipe, metrics, default)
    write_atomically(registry.REGISTRY, (registry.REGISTRY.read_text() + entry).encode())
    return registry.get_weights(name)


def figures(report: ProbeReport) -> dict[str, dict[str, float]]:
    """A probe's means with their 95 % intervals, under names that say what they are."""
    task = report.facts["task"]
    means = [(name, mask) for name, mask in report.rows() if name.startswith("mean") or len(report.labels) == 1]
    result = {}
    for name, mask in means:
        estimate = report.target.auroc.mean_of(mask)
        shown = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        result[f"{task} linear probe, AUROC, {name}"] = {key: round(value, 4) for key, value in shown.items()}
    return result


def patients_seen(patients: np.ndarray, datasets: np.ndarray) -> dict[str, list[str]]:
    """The ids of the patients trained on, for public data sets; of others none is published."""
    return {
        str(dataset): sorted(set(patients[datasets == dataset].tolist()))
        for dataset in np.unique(datasets)
        if dataset in PUBLIC
    }


def code_version() -> str:
    """The commit that the code stands at, "-dirty" where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def registry_entry(weights: Weights, recipe: Recipe, metrics: dict[str, dict[str, float]], default: bool) -> str:
    """The release's tables for releases.toml. Strings, numbers and lists read the same in JSON and TOML."""
    table: dict[str, Any] = {"default": default, "file": weights.location.name, "sha256": weights.sha256}
    config = weights.config
    table |= {key: config[key] for key in config if key not in ("architecture", "tag")}
    lines = [f"\n[{recipe.architecture}.{weights.tag}]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    lines += [f"\n[{recipe.architecture}.{weights.tag}.metrics]"]
    for name, metric in metrics.items():
        inline = ", ".join(f"{key} = {value}" for key, value in metric.items())
        lines.append(f"{json.dumps(name, ensure_ascii=False)} = {{ {inline} }}")
    return "\n".join(lines) + "\n"
