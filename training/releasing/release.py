"""Turn a finished run into a release: weight file, provenance, metrics and an entry in the registry."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from c2l_models.errors import RunError, WeightsNotFound
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import BESIDE, NOTICES_NAME, PROVENANCE_NAME
from c2l_models.models import create_model
from c2l_models.publishing.release_folder import kept_notices
from c2l_models.releases import registry
from c2l_models.releases.record import Weights
from c2l_models.releases.training_data import names_of_earlier
from c2l_models.verification import golden_embedding

from ..batches import training_rows
from ..datasets.adapters import public_data_sets
from ..evaluation.predictions import KAPPA
from ..evaluation.report import Report
from ..evaluation.result import estimate_as_json
from ..evaluation.tasks import check_no_shared_patients, load_tasks, measurable_tasks
from ..features import calibration_rows, extract_features
from ..probing.probe import probe
from ..recipe_files import from_dict
from ..run_files import checkpoint, log
from ..run_files.backbone import export_backbone, load_run_backbone
from ..run_files.run_folder import load_run_store, parts_before, patients_before, read_initialization, read_run
from ..store.image_store import ImageStore
from .first_steps import first_steps

LOG_LINES = 5
"""Last lines of the run's log that the provenance keeps. Notes are left out: they may name paths of this machine."""
ROUNDING = 2**-11
"""Largest allowed rounding of a weight, as a share of the largest weight in its tensor (at least `SMALLEST`)."""
SMALLEST = 2**-14
"""Smallest number that float16 holds with all 11 bits."""
MIN_COSINE = 0.9999
"""Smallest allowed cosine between an image's released and trained features, both computed in float32."""
COMPARED_IMAGES = 64
"""Number of training images whose features are compared."""


def release_run(
    run_folder: Path,
    tag: str,
    out: Path,
    size: int | None = None,
    license: str = "CC-BY-4.0",
    default: bool = False,
    store_folder: Path | None = None,
    baselines: bool = True,
) -> Weights:
    """Export a run, probe it beside the baselines, and write weight file, provenance and registry entry.

    Args:
        run_folder: a folder that `pretrain` wrote.
        tag: second part of the release's name, `architecture.tag`.
        out: gets one folder per task with the probe's tables and pictures.
        size: side of the images that the release is for, pixels; None: the recipe's.
        license: of the weights.
        default: whether `pretrained=True` loads this release.
        store_folder: the store that the run trained on; None: where it was then.
        baselines: probe untrained networks and pixels beside the run, which takes most of the time.

    Returns:
        The release's record.

    Raises:
        RunError: the name is taken, or the architecture has another default; the run trained on a test patient; or
            float16 changes its weights or features too much.
    """
    recipe = from_dict(checkpoint.load(run_folder).state["recipe"])
    name = f"{recipe.architecture}.{tag}"
    check_free(name, default)
    store = load_run_store(run_folder, store_folder)
    rows, tasks = training_rows(recipe, store), load_tasks(store)
    for task in tasks:  # an out-of-fold task has no test part: its images may be seen without labels
        check_no_shared_patients(store, rows, task.select(store, task.test))
    tasks = measurable_tasks(tasks, store)
    steps = first_steps(recipe, store)

    file = registry.REGISTRY.parent / "weights" / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    trained, _ = load_run_backbone(run_folder, store, size=size)
    initialization = read_initialization(run_folder)
    export_backbone(trained, recipe, initialization, file, store, tag, size, license)
    weights = Weights.from_file(file)
    rounding = compare_with_trained(weights, trained, store, rows)
    lines = log.read(run_folder)
    trained_on = set(store.index["dataset"].take(rows).to_pylist())
    described = store.data_sets().items()
    public = public_data_sets() | {name for name, facts in described if facts.get("public_patient_ids")}
    run = {key: value for key, value in read_run(run_folder).items() if key != "store"}  # a path of this machine
    provenance = {
        "release": name,
        "sha256": weights.sha256,
        **run,
        "recipe": recipe.to_dict(),
        "initialization": without_patients(initialization),
        "trained_on": list(weights.trained_on),
        "data_sets": {name: facts for name, facts in described if name in trained_on},
        "metrics": {},
        "rounding": rounding,
        "first_steps": dataclasses.asdict(steps),
        "training_seconds": max(log.training_seconds(lines, recipe.batch_size).values()) or None,
        "log": last_lines(lines),
        "patients": patients_seen(store.patients[rows], initialization, public),
        "golden_embedding": golden_embedding(create_model(recipe.architecture, weights=weights), weights),
    }
    write_provenance(file, provenance)  # probes read the patients from it
    reports = [probe(str(file), store, task, out=out / task.name, baselines=baselines) for task in tasks]
    metrics = {key: value for report in reports for key, value in headline_metrics(report).items()}
    write_provenance(file, provenance | {"metrics": metrics})
    if notices := notices_of(initialization):
        write_atomically(file.with_suffix(BESIDE[NOTICES_NAME]), notices.encode())
    entry = registry_entry(weights, metrics, default)
    write_atomically(registry.REGISTRY, (registry.REGISTRY.read_text(encoding="utf-8") + entry).encode())
    return registry.get_weights(name)


def write_provenance(file: Path, provenance: Mapping[str, Any]) -> None:
    """Write the provenance of a weight file beside it."""
    write_atomically(file.with_suffix(BESIDE[PROVENANCE_NAME]), (json.dumps(provenance, indent=1) + "\n").encode())


def last_lines(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last `LOG_LINES` lines of a run's log that have metrics."""
    return [line for line in lines if line["kind"] != "note"][-LOG_LINES:]


def check_free(name: str, default: bool) -> None:
    """Raise RunError if the name is taken, or if the architecture already has another default."""
    if name in registry.list_weights() or name in registry.withdrawn_weights():
        raise RunError(f"{name} is already released, and a release never changes; choose another --tag")
    architecture = name.partition(".")[0]
    if default:
        with suppress(WeightsNotFound):
            other = registry.default_weights(architecture).name
            raise RunError(f"{other} is the default release; first set `default = false` for it in releases.toml")


def compare_with_trained(
    weights: Weights, trained: nn.Module, store: ImageStore, rows: np.ndarray
) -> dict[str, float | int]:
    """Compare the released float16 weights with the trained float32 ones, and the features of both on images.

    Returns:
        `weights`: the largest difference of two weights, as a share of the largest weight in the tensor.
        `cosine`: the smallest cosine of an image's two feature vectors.
        `films`: the number of images.

    Raises:
        RunError: the weights differ by more than `ROUNDING`, or a cosine is not above `MIN_COSINE`. The weight file is
            removed.
    """
    size, mean, std = weights.input_size[-1], weights.mean[0], weights.std[0]
    released = create_model(weights.architecture, weights=weights, in_chans=1).eval()
    rounded = released.state_dict()
    shares = [
        float((rounded[name] - tensor).abs().max() / tensor.abs().max().clamp_min(SMALLEST))
        for name, tensor in trained.state_dict().items()
        if tensor.is_floating_point()
    ]
    images = calibration_rows(rows)[:COMPARED_IMAGES]
    one, two = (
        torch.from_numpy(extract_features(network, store, images, size, mean, std)) for network in (released, trained)
    )
    cosines = functional.cosine_similarity(one, two)
    found = {"weights": max(shares), "cosine": float(cosines.min()), "films": len(images)}
    if not (found["weights"] <= ROUNDING and found["cosine"] > MIN_COSINE):
        weights.path().unlink()
        raise RunError(
            f"{weights.name} in float16 differs too much from the trained network: expected weights within "
            f"{ROUNDING:.2g} of their tensor's largest and cosines of features above {MIN_COSINE}, found "
            f"{found['weights']:.2g} and {found['cosine']:.6f}; look for weights beyond float16's range, or train with "
            "weight decay"
        )
    return found


def headline_metrics(report: Report) -> dict[str, dict[str, float | None]]:
    """The headline and summary metrics of a probe with their 95 % intervals, by the registry's names."""
    known = {name: estimate for name in report.main if not np.isnan((estimate := report.target.metrics[name]).value)}
    return {metric_name(report.facts["task"], name): estimate_as_json(estimate) for name, estimate in known.items()}


def metric_name(task: str, metric: str) -> str:
    """The registry's name of a linear probe's metric: "TASK linear probe, METRIC, LABEL". The model card parses it."""
    return f"{task} linear probe, {KAPPA}, grade" if metric == KAPPA else f"{task} linear probe, AUROC, {metric}"


def without_patients(initialization: Mapping[str, Any]) -> dict[str, Any]:
    """The facts about an initialization, and about a distillation's source, without their lists of patients.

    `patients` stays if it is None: some are unknown.
    """
    return {
        key: without_patients(value) if isinstance(value, Mapping) else value
        for key, value in initialization.items()
        if key != "patients" or value is None
    }


def notices_of(initialization: Mapping[str, Any]) -> str:
    """The licenses that weights trained from other releases must keep, such as MIT's; empty if there are none.

    Of weights that are no release, such as a run's, those of the releases that they were made from.
    """
    released, found = set(registry.list_weights()), set[str]()
    for facts in parts_before(initialization):
        earlier = [name for line in facts.get("trained_on", ()) for name in names_of_earlier(line)]
        found.update([facts["name"]] if facts["name"] in released else earlier)
    names = sorted(found & released)
    texts = {name: kept_notices(registry.get_weights(name)) for name in names}
    return "\n".join(f"Made from the weights {name}.\n\n{text}" for name, text in texts.items() if text)


def patients_seen(
    patients: np.ndarray, initialization: Mapping[str, Any], public: Collection[str]
) -> dict[str, list[str]]:
    """The ids of the patients trained on, before or after the initialization, by data set; `public` data sets only.

    An id begins with its data set: "chestxray14:00001336".
    """
    ids = sorted({*patients.tolist(), *(patients_before(initialization) or ())})
    by_dataset = groupby(ids, key=lambda patient: patient.partition(":")[0])
    return {dataset: list(group) for dataset, group in by_dataset if dataset in public}


def registry_entry(weights: Weights, metrics: dict[str, dict[str, float | None]], default: bool) -> str:
    """The release's tables for releases.toml. JSON and TOML write strings, numbers and lists alike."""
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
