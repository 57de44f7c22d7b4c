"""A finished run -> a release: the weight file, where it came from, and its entry in the registry."""

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from c2l_models.errors import RunError, WeightsNotFound
from c2l_models.files import write_atomically
from c2l_models.models import create_model
from c2l_models.releases import registry as registry
from c2l_models.releases.registry import Weights
from c2l_models.verification import golden_embedding

from ..batches import training_rows
from ..datasets import PUBLIC
from ..evaluation.predictions import KAPPA
from ..evaluation.report import Report
from ..evaluation.result import estimate_as_json
from ..evaluation.tasks import check_no_shared_patients, load_tasks
from ..features import calibration_rows, extract_features
from ..probing.probe import probe
from ..recipe import from_dict
from ..run_files import checkpoint, log
from ..run_files.backbone import export_backbone, load_run_backbone
from ..run_files.run_folder import load_run_store, read_run
from ..store.image_store import ImageStore
from .first_steps import first_steps

LAST_LINES = 5
ROUNDED = 2**-11
"""How far a released weight may be from the trained one, as a share of its tensor's largest, or of `SMALLEST`, down to
which float16 has its 11 bits."""
SMALLEST = 2**-14
LEAST_COSINE = 0.9999
"""Of a film's released features with its trained ones, both in float32."""
FILMS = 64
"""That the features are compared on, drawn from those that were trained on."""


def release_run(
    run_folder: Path,
    tag: str,
    out: Path,
    size: int | None = None,
    license: str = "CC-BY-4.0",
    default: bool = False,
) -> Weights:
    """Export a run, probe it beside the floors, and write what makes it a release, its first steps' losses included.

    Args:
        run_folder: a folder that `pretrain` wrote.
        tag: the release is called `architecture.tag`.
        out: folder for the probes' tables and pictures, one a task.
        size: side of the images that the release is for; the recipe's by default.
        license: of the weights.
        default: whether `pretrained=True` is to mean this release.

    Returns:
        The release's record.

    Raises:
        RunError: a release of this name, or another default, exists; the run trained on a test patient; or float16
            does not hold its weights or features closely enough.
    """
    recipe = from_dict(checkpoint.load(run_folder).state["recipe"])
    name = f"{recipe.architecture}.{tag}"
    check_free(name, default)
    store = load_run_store(run_folder)
    rows, tasks = training_rows(recipe, store), load_tasks(store)
    for task in tasks:
        check_no_shared_patients(store, rows, task.test_rows(store))
    began = first_steps(recipe, store)

    file = registry.REGISTRY.parent / "weights" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    trained, _ = load_run_backbone(run_folder, store, size=size)
    export_backbone(trained, recipe, file, store, tag, size, license)
    weights = Weights.from_file(file)
    rounding = compare_with_trained(weights, trained, store, rows)
    reports = [probe(str(file), store, task, out=out / task.name) for task in tasks]
    metrics = {key: value for report in reports for key, value in headline_metrics(report).items()}
    made = {key: value for key, value in read_run(run_folder).items() if key != "store"}  # a folder of this machine
    provenance = {
        "release": name,
        "sha256": weights.sha256,
        **made,
        "recipe": recipe.to_dict(),
        "trained_on": list(weights.trained_on),
        "metrics": metrics,
        "rounding": rounding,
        "first_steps": dataclasses.asdict(began),
        "log": log.read(run_folder)[-LAST_LINES:],
        "patients": patients_seen(store.patients[rows], store.index["dataset"].to_numpy()[rows]),
        "golden_embedding": golden_embedding(create_model(recipe.architecture, weights=weights), weights),
    }
    write_atomically(file.with_suffix(".json"), (json.dumps(provenance, indent=1) + "\n").encode())
    entry = registry_entry(weights, metrics, default)
    write_atomically(registry.REGISTRY, (registry.REGISTRY.read_text() + entry).encode())
    return registry.get_weights(name)


def check_free(name: str, default: bool) -> None:
    """Raise RunError where the name is taken, or where there is a default already and this is to be one."""
    if name in registry.list_weights():
        raise RunError(f"{name} is released, and a release does not change; choose another --tag")
    architecture = name.partition(".")[0]
    if default:
        with suppress(WeightsNotFound):
            other = registry.default_weights(architecture).name
            raise RunError(f"{other} is the default; first say `default = false` of it in releases.toml")


def compare_with_trained(
    weights: Weights, trained: nn.Module, store: ImageStore, rows: np.ndarray
) -> dict[str, float | int]:
    """How far the released float16 weights are from the trained float32 ones, and the features of films of each.

    Returns:
        weights: the largest difference of two weights, as a share of its tensor's largest; cosine: the least of a
        film's two feature vectors; films: how many.

    Raises:
        RunError: they are farther apart than `ROUNDED` or `LEAST_COSINE`; the weight file is removed.
    """
    size, mean, std = weights.input_size[-1], weights.mean[0], weights.std[0]
    released = create_model(weights.architecture, weights=weights, in_chans=1).eval()
    ours, theirs = released.state_dict(), trained.state_dict()
    shares = [
        float((ours[name] - tensor).abs().max() / tensor.abs().max().clamp_min(SMALLEST))
        for name, tensor in theirs.items()
        if tensor.is_floating_point()
    ]
    films = calibration_rows(rows)[:FILMS]
    one, two = (
        torch.from_numpy(extract_features(network, store, films, size, mean, std)) for network in (released, trained)
    )
    cosines = functional.cosine_similarity(one, two)
    found = {"weights": max(shares), "cosine": float(cosines.min()), "films": len(films)}
    if not (found["weights"] <= ROUNDED and found["cosine"] > LEAST_COSINE):
        weights.path().unlink()
        raise RunError(
            f"{weights.name} in float16 is not the trained network: weights off by {found['weights']:.2g} of their "
            f"tensor's largest (at most {ROUNDED:.2g}), cosine of features {found['cosine']:.6f} (above "
            f"{LEAST_COSINE}); look for weights beyond float16's range, or train with weight decay"
        )
    return found


def headline_metrics(report: Report) -> dict[str, dict[str, float | None]]:
    """The metrics that stand for a probe's task with their 95 % intervals, under names that say what they are."""
    names = dict.fromkeys([report.headline, *report.summaries])
    known = {name: estimate for name in names if not np.isnan((estimate := report.target.metrics[name]).value)}
    return {figure_name(report.facts["task"], name): estimate_as_json(estimate) for name, estimate in known.items()}


def figure_name(task: str, figure: str) -> str:
    """What the registry calls a figure of a task's linear probe: "TASK HOW, METRIC, WHAT", which a card reads."""
    return f"{task} linear probe, {KAPPA}, grade" if figure == KAPPA else f"{task} linear probe, AUROC, {figure}"


def patients_seen(patients: np.ndarray, datasets: np.ndarray) -> dict[str, list[str]]:
    """The ids of the patients trained on, for public data sets; of others none is published."""
    return {
        str(dataset): sorted(set(patients[datasets == dataset].tolist()))
        for dataset in np.unique(datasets)
        if dataset in PUBLIC
    }


def registry_entry(weights: Weights, metrics: dict[str, dict[str, float | None]], default: bool) -> str:
    """The release's tables for releases.toml. Strings, numbers and lists read the same in JSON and TOML."""
    table: dict[str, Any] = {"default": default, "file": weights.path().name, "sha256": weights.sha256}
    config = weights.config
    table |= {key: config[key] for key in config if key not in ("architecture", "tag")}
    lines = [f"\n[{weights.name}]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    lines += [f"\n[{weights.name}.metrics]"]
    for name, metric in metrics.items():
        inline = ", ".join(f"{key} = {value}" for key, value in metric.items())
        lines.append(f"{json.dumps(name, ensure_ascii=False)} = {{ {inline} }}")
    return "\n".join(lines) + "\n"
