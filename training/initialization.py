"""What a downstream run starts from: a release, a file, a pretraining run, ImageNet's weights, or chance."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError, DatasetError, WeightsNotFound
from c2l_models.hub import weight_file as hub
from c2l_models.models import create_model
from c2l_models.publishing.normalisation import fold_normalisation
from c2l_models.releases.provenance import damaged, read_provenance
from c2l_models.releases.registry import Weights, resolve, stored_tensors

from .batches import training_rows
from .features import MEAN, STD, recalibrate
from .networks import random_network
from .run_files import checkpoint
from .run_files.backbone import load_run_backbone
from .run_files.run_folder import load_run_store, read_run
from .store.image_store import ImageStore

RANDOM, IMAGENET = "random", "imagenet"
RANDOM_SIZE, IMAGENET_SIZE = 64, 224
IMAGENET_TAG = "tv_in1k"
"""torchvision's supervised weights, as timm keeps them."""
PATIENCE = 5
"""Seconds within which the hub has to answer: its own client would try for a minute."""


class InitializationNotAvailable(C2LError):
    """A start that exists, and cannot be had here and now; the message says what was wanted, from where."""


@dataclass(frozen=True)
class Initialization:
    """A network without a head, and the input that it wants.

    Attributes:
        name: as a table shows it.
        architecture: one of `list_models()`.
        network: timm's, float [B, 1, S, S], normalised with mean and std -> [B, F]; in evaluation mode where weights
            were loaded.
        size: side of the input that it was made for, or that was asked for.
        mean, std: of intensities in [0, 1].
        about: for reports, as JSON knows it.
        seen: the patients that it was pretrained on, as a store names them ("chestxray14:00001336"); None where it was
            pretrained on radiographs and nothing tells on whose. A release tells of public data sets only.
    """

    name: str
    architecture: str
    network: nn.Module
    size: int
    mean: float
    std: float
    about: dict[str, Any]
    seen: frozenset[str] | None


def load_initialization(
    spec: str,
    architecture: str = "resnet18",
    size: int | None = None,
    seed: int = 0,
    store: ImageStore | None = None,
    device: str | torch.device = "cpu",
    calibrate_on: NDArray[np.int64] | None = None,
) -> Initialization:
    """The network that `spec` names, on the device.

    Args:
        spec: a release's name, a .safetensors file, a run folder of `c2l pretrain`, "random" or "imagenet"; these two
            also with an architecture, "random:densenet121".
        architecture: of "random" and "imagenet"; all others have their own.
        size: input side in pixels; by default the weights' own.
        seed: of "random".
        store: the images of the task: a run that trained on them needs no other copy of its store.
        calibrate_on: rows of `store` whose clean images give a random network the batch-norm statistics that a frozen
            one needs; None: as timm makes it, for one that is trained.

    Raises:
        InitializationNotAvailable: ImageNet's weights are not in the hub's cache, and the hub cannot be reached.
        WeightsNotFound: no such release, file or architecture.
        C2LError: weights that are damaged; a run whose checkpoint or store is gone.
    """
    kind, _, named = spec.partition(":")
    if kind == RANDOM:
        return _random(named or architecture, size or RANDOM_SIZE, seed, store, device, calibrate_on)
    if kind == IMAGENET:
        return _imagenet(named or architecture, size or IMAGENET_SIZE, device)
    if (Path(spec) / "run.json").is_file():
        return _run(Path(spec), store, size, device)
    try:
        weights = resolve(spec)
    except C2LError as error:
        also = f"a start can also be a run folder of `c2l pretrain`, {RANDOM!r} or {IMAGENET!r}"
        raise type(error)(f"{error}; {also}") from error
    return _weights(weights, size, device)


def _weights(weights: Weights, size: int | None, device: str | torch.device) -> Initialization:
    network = create_model(weights.architecture, weights=weights, in_chans=1).eval().to(device)
    about = {
        "architecture": weights.architecture,
        "weights_sha256": weights.sha256,
        "trained_on": list(weights.trained_on),
        "recipe": weights.recipe,
    }
    side, mean, std = size or weights.input_size[-1], weights.mean[0], weights.std[0]
    return Initialization(weights.name, weights.architecture, network, side, mean, std, about, _published(weights))


def _published(weights: Weights) -> frozenset[str] | None:
    """The patients that a weight file's provenance lists; None where there is none of it."""
    with suppress(WeightsNotFound):
        patients = read_provenance(weights, "patients")
        try:
            return frozenset(patient for ids in patients.values() for patient in ids)
        except (TypeError, AttributeError):
            raise damaged(weights, "lists of patients") from None
    return None


def _run(folder: Path, store: ImageStore | None, size: int | None, device: str | torch.device) -> Initialization:
    """A run's student; its own store is not opened where it is the one that was given."""
    run = read_run(folder)
    if store is None or (run["store_sha256"], run["store_size"]) != (store.sha256, store.size):
        store = None
        with suppress(DatasetError):  # a recipe that does not recalibrate needs no images
            store = load_run_store(folder)
    network, recipe = load_run_backbone(folder, store=store, size=size)
    about = {
        "architecture": recipe.architecture,
        "recipe": recipe.name,
        "checkpoint": checkpoint.newest(folder),
        "trained_on_store": run["store_sha256"],
    }
    seen = frozenset(store.patients[training_rows(recipe, store)].tolist()) if store else None
    side = size or recipe.size
    return Initialization(
        folder.name, recipe.architecture, network.to(device), side, recipe.mean, recipe.std, about, seen
    )


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


def _imagenet(architecture: str, size: int, device: str | torch.device) -> Initialization:
    """timm's weights, their three channels' normalisation folded into one channel's: exact but for the border."""
    classifier = find_architecture(architecture).classifier
    config: Any = timm.get_pretrained_cfg(f"{architecture}.{IMAGENET_TAG}")
    file = hub.read_verified(_from_hub(config.hf_hub_id))
    state = _as_timm_has_it(architecture, stored_tensors(file))
    folded = fold_normalisation(state, architecture, config.mean, config.std, MEAN, STD)
    network = timm.create_model(architecture, in_chans=1, num_classes=0)
    network.load_state_dict({key: value for key, value in folded.items() if not key.startswith(f"{classifier}.")})
    network = network.eval().to(device)
    about = {
        "architecture": architecture,
        "weights": config.hf_hub_id,
        "weights_sha256": file.sha256,
        "trained_on": ["ImageNet-1k, with its labels"],
    }
    return Initialization(f"{IMAGENET}:{architecture}", architecture, network, size, MEAN, STD, about, frozenset())


def _as_timm_has_it(architecture: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the keys of timm's network, head included, every one of them there.

    Raises C2LError where they do not fit.
    """
    try:
        network = timm.create_model(
            f"{architecture}.{IMAGENET_TAG}", pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}
        )
    except RuntimeError as error:
        raise C2LError(f"ImageNet's weights in the hub's cache do not fit {architecture}: {error}") from None
    state: dict[str, Tensor] = network.state_dict()
    return state


def _from_hub(repository: str) -> Path:
    """The weight file of a repository, from the hub's cache or from the hub; fails within seconds where it must."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, hub.FILE_NAME)
    if isinstance(cached, str):
        return Path(cached)
    url = huggingface_hub.hf_hub_url(repository, hub.FILE_NAME)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=PATIENCE)  # tries once; a download tries many times
        return Path(huggingface_hub.hf_hub_download(repository, hub.FILE_NAME))
    except Exception as error:  # of whichever HTTP library this version of the hub's client uses
        reason = str(error).partition("\n")[0]
        raise InitializationNotAvailable(
            f"the start {IMAGENET!r} wants {url}, which is not in the hub's cache and cannot be had: {reason}. Run it "
            f"once with a network, or copy the cache of a machine that has one (HF_HOME, `hf download {repository}`)"
        ) from error
