"""Load a network's first weights: a release, a weight file, a pretraining run, ImageNet, or random."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError, DatasetError, WeightsNotFound
from c2l_models.models import create_model
from c2l_models.releases.provenance import damaged, earlier_patients_known, read_provenance
from c2l_models.releases.record import Weights
from c2l_models.releases.registry import resolve
from c2l_models.releases.training_data import data_set_of

from .batches import training_rows
from .datasets import chestxray14, rsna
from .features import MEAN, STD, recalibrate
from .imagenet import imagenet_config, load_imagenet
from .networks import has_zero_init, random_network
from .run_files import checkpoint
from .run_files.backbone import describe_initialization, describe_rows, load_run_backbone
from .run_files.run_folder import load_run_store, patients_before, read_initialization, read_run
from .store.image_store import ImageStore

RANDOM, UNTRAINED, IMAGENET, PIXELS = "random", "untrained", "imagenet", "pixels"
RANDOM_SIZE, IMAGENET_SIZE = 64, 224
PIXELS_SIDE = 16
"""Side of the pooled image whose pixels are the features of "pixels"."""
OTHER_IDS = {rsna.NAME: chestxray14.NAME, chestxray14.NAME: rsna.NAME}
"""The data set that may list the same patients under other ids: an id of RSNA is that of an image whose ChestX-ray14
patient is unknown."""


@dataclass(frozen=True)
class Initialization:
    """A network without a head, and the input that it expects.

    Attributes:
        name: the name to show in a table.
        architecture: its name in timm, or "pixels".
        network: timm network, float [B, 1, S, S], normalised with mean and std -> [B, F]. It is in evaluation mode if
            its weights were loaded.
        size: input side S in pixels: the weights' own, or the one that the caller chose.
        mean, std: normalisation of intensities, which lie in [0, 1].
        about: facts for reports, JSON-serialisable.
        seen: patients that the network was pretrained on, as a store names them ("chestxray14:00001336"). A release
            lists patients of public data sets only. None if it was pretrained and its patients are unknown.
    """

    name: str
    architecture: str
    network: nn.Module
    size: int
    mean: float
    std: float
    about: dict[str, Any]
    seen: frozenset[str] | None

    def count_seen(self, patients: NDArray[np.str_]) -> int | None:
        """Number of these patients that were seen in pretraining.

        None if it is unknown: `seen` is None; the network was pretrained on the data set of one of these patients and
        no patient of this data set is listed; or RSNA images of unknown patients of ChestX-ray14 are on one side, and
        patients of ChestX-ray14 on the other.
        """
        if self.seen is None:
            return None
        listed = {_data_set(patient) for patient in self.seen}
        unlisted = {data_set_of(line) for line in self.about.get("trained_on", ())} - listed
        unlisted |= {other for one, other in OTHER_IDS.items() if one in listed}
        if unlisted.intersection(map(_data_set, patients.tolist())):
            return None
        return len(self.seen.intersection(patients.tolist()))


def load_initialization(
    spec: str,
    architecture: str = "resnet18",
    size: int | None = None,
    seed: int = 0,
    store: ImageStore | None = None,
    device: str | torch.device = "cpu",
    calibrate_on: NDArray[np.int64] | None = None,
) -> Initialization:
    """Load the network that `spec` names.

    Args:
        spec: a release's name, a .safetensors file, a run folder of `c2l pretrain`, "random" (weights to begin
            training with), "untrained" (the random baseline of frozen features), "pixels" (no network: 16 × 16 pixels)
            or "imagenet". All but pixels can name an architecture: "random:densenet121". "imagenet" loads torchvision's
            weights through the hub; the release "resnet18.imagenet" has other ImageNet weights, and needs no network.
        architecture: used if `spec` is "random", "untrained" or "imagenet" without an architecture.
        size: input side in pixels; None: the weights' own, 64 for random weights, 224 for "imagenet".
        seed: seed of random weights.
        store: the task's images. A run folder that trained on the same store does not open its own copy.
        device: the device of the network.
        calibrate_on: rows of `store` on whose clean images a random network's batch-norm statistics are set. Needed
            if the network stays frozen; None leaves timm's statistics.

    Raises:
        InitializationNotAvailable: ImageNet's weights are not in the hub's cache, and the hub does not answer.
        WeightsNotFound: no such release, file or architecture.
        C2LError: the weights are damaged, or a run has no checkpoint or no store.
    """
    kind, _, named = spec.partition(":")
    if kind == RANDOM:
        return _random(named or architecture, size or RANDOM_SIZE, seed, store, device, calibrate_on)
    if kind == UNTRAINED:
        return _untrained(named or architecture, size or RANDOM_SIZE, seed, device)
    if kind == PIXELS:
        return _pixels(store, device)
    if kind == IMAGENET:
        return _imagenet(named or architecture, size or IMAGENET_SIZE, device)
    if (Path(spec) / "run.json").is_file():
        return _from_run(Path(spec), store, size, device)
    return _from_weights(_resolve(spec), size, device)


def check_has_network(spec: str) -> None:
    """Raise C2LError if a spec names no network that can be trained."""
    if spec.partition(":")[0] == PIXELS:
        raise C2LError(
            f"expected the weights of a network to train, found {PIXELS!r}, which has no network; choose {RANDOM!r} as "
            f"the baseline, or measure {PIXELS!r} with `c2l probe`"
        )


def weights_facts(spec: str) -> dict[str, Any]:
    """The facts among `Initialization.about` that identify the weights which `spec` means now; no network is built.

    Hash of a release or file, newest checkpoint and store of a run, hub repository of "imagenet", and "pixels". Random
    weights have none: their names and seeds identify them. Raises as `load_initialization`.
    """
    kind, _, named = spec.partition(":")
    if kind in (RANDOM, UNTRAINED):
        return {}
    if kind == PIXELS:
        return {"architecture": PIXELS}
    if kind == IMAGENET:
        return {"weights": imagenet_config(named or "resnet18").hf_hub_id}
    if (Path(spec) / "run.json").is_file():
        return {"checkpoint": checkpoint.newest(Path(spec)), "trained_on_store": read_run(Path(spec))["store_sha256"]}
    return {"weights_sha256": _resolve(spec).sha256}


def _data_set(patient: str) -> str:
    """The data set of a patient's id."""
    return patient.partition(":")[0]


def _resolve(spec: str) -> Weights:
    """The record of a release or a file. The error also names the other forms of an initialization."""
    try:
        return resolve(spec)
    except C2LError as error:
        known = ", ".join(map(repr, (RANDOM, UNTRAINED, IMAGENET)))
        others = f"an initialization can also be a run folder of `c2l pretrain`, {known} or {PIXELS!r}"
        raise type(error)(f"{error}; {others}") from error


def _from_weights(weights: Weights, size: int | None, device: str | torch.device) -> Initialization:
    network = create_model(weights.architecture, weights=weights, in_chans=1).eval().to(device)
    about = {
        "architecture": weights.architecture,
        "weights_sha256": weights.sha256,
        "trained_on": list(weights.trained_on),
        "recipe": weights.recipe,
        "license": weights.license,
    }
    side, mean, std = size or weights.input_size[-1], weights.mean[0], weights.std[0]
    return Initialization(weights.name, weights.architecture, network, side, mean, std, about, _patients_of(weights))


def _patients_of(weights: Weights) -> frozenset[str] | None:
    """Patients that a weight file's provenance lists; None without a provenance, or if some patients are unknown."""
    with suppress(WeightsNotFound):
        provenance = read_provenance(weights, "patients")
        if not earlier_patients_known(provenance):
            return None
        try:
            return frozenset(patient for ids in provenance["patients"].values() for patient in ids)
        except (TypeError, AttributeError):
            raise damaged(weights, "lists of patients") from None
    return None


def _from_run(folder: Path, store: ImageStore | None, size: int | None, device: str | torch.device) -> Initialization:
    """The backbone of a run's newest checkpoint. The run's store is opened unless `store` holds the same images."""
    run = read_run(folder)
    if store is None or (run["store_sha256"], run["store_size"]) != (store.sha256, store.size):
        store = None
        with suppress(DatasetError):  # a recipe that does not recalibrate needs no images
            store = load_run_store(folder)
    network, recipe = load_run_backbone(folder, store=store, size=size, device=device)
    about: dict[str, Any] = {
        "architecture": recipe.architecture,
        "recipe": recipe.name,
        "checkpoint": checkpoint.newest(folder),
        "trained_on_store": run["store_sha256"],
    }
    initialization = read_initialization(folder)
    before, seen = patients_before(initialization), None
    if store is not None:
        rows = training_rows(recipe, store)
        about["trained_on"] = [*describe_rows(store, rows), *describe_initialization(initialization)]
        if before is not None:
            seen = before.union(store.patients[rows].tolist())
    side = size or recipe.size
    return Initialization(folder.name, recipe.architecture, network, side, recipe.mean, recipe.std, about, seen)


def _random(
    architecture: str,
    size: int,
    seed: int,
    store: ImageStore | None,
    device: str | torch.device,
    calibrate_on: NDArray[np.int64] | None,
) -> Initialization:
    find_architecture(architecture)
    network = random_network(architecture, seed).to(device)
    if store is not None and calibrate_on is not None:
        recalibrate(network, store, calibrate_on, size, MEAN, STD, device)
    about = {"architecture": architecture}
    return Initialization(f"{RANDOM}:{architecture}", architecture, network, size, MEAN, STD, about, frozenset())


def _untrained(architecture: str, size: int, seed: int, device: str | torch.device) -> Initialization:
    """The random network that is quoted as a baseline of frozen features.

    Its residual branches do not begin at zero, and its batch norm has its initial statistics: timm's own weights and
    recalibrated statistics have worse features.
    """
    find_architecture(architecture)
    network = random_network(architecture, seed, False if has_zero_init(architecture) else None).eval().to(device)
    name, about = f"{UNTRAINED}:{architecture}", {"architecture": architecture}
    return Initialization(name, architecture, network, size, MEAN, STD, about, frozenset())


def _pixels(store: ImageStore | None, device: str | torch.device) -> Initialization:
    """No network: the features are the pixels of an image pooled to 16 × 16. Raises C2LError without a store."""
    if store is None:
        raise C2LError(f"expected a store for the initialization {PIXELS!r}, whose side is that of the stored images")
    network = nn.Sequential(nn.AdaptiveAvgPool2d(PIXELS_SIDE), nn.Flatten()).eval().to(device)
    return Initialization(PIXELS, PIXELS, network, store.size, MEAN, STD, {"architecture": PIXELS}, frozenset())


def _imagenet(architecture: str, size: int, device: str | torch.device) -> Initialization:
    network, sha256 = load_imagenet(architecture, MEAN, STD)
    config = imagenet_config(architecture)
    about = {
        "architecture": architecture,
        "weights": config.hf_hub_id,
        "weights_sha256": sha256,
        "trained_on": ["ImageNet-1k, with its labels"],
        "license": config.license or "unknown",
    }
    name = f"{IMAGENET}:{architecture}"
    return Initialization(name, architecture, network.to(device), size, MEAN, STD, about, frozenset())
