"""What a probe reaches without pretraining: pixels and random networks. A figure alone proves nothing."""

import hashlib
import io
import json
from dataclasses import asdict, dataclass

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from rich.progress import track
from timm.models.resnet import BasicBlock
from torch import nn

from c2l_models.files import write_atomically

from ..evaluation.tasks import Task
from ..features import CALIBRATION_IMAGES, MEAN, STD, extract_features, recalibrate
from ..networks import random_network
from ..patient_splits import STREAMS
from ..store.image_store import ImageStore
from . import linear_probe
from .classifiers import Classifier, fit_and_score

SEEDS = (0, 1, 2, 3, 4)
PIXELS = 16
"""Side of the mean-pooled image that is the features of the pixel floor."""
VERSION = 2
"""Goes up when the code computes other floors from the same constants: cached ones are then made anew."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class BaselineSpec:
    """One floor: pixels where `architecture` is empty, else that network at random."""

    name: str
    architecture: str = ""
    zero_init_last: bool | None = None
    """Whether residual branches start at zero; None: the architecture has no such choice."""
    recalibrated: bool = False
    seeds: tuple[int, ...] = SEEDS


def baseline_specs(architecture: str) -> list[BaselineSpec]:
    """Pixels, and the architecture at random: as timm makes it, with and without recalibrated batch norm.

    Where the architecture can start its residual branches at zero (`zero_init_last`), both ways.
    """
    specs = [BaselineSpec(f"pixels {PIXELS}×{PIXELS}", seeds=SEEDS[:1])]
    residual = isinstance(timm.create_model(architecture), timm.models.ResNet)
    for zero in (False, True) if residual else (None,):
        name = f"random {architecture}" + (", zero init" if zero else "")
        specs.append(BaselineSpec(name, architecture, zero, recalibrated=False))
        specs.append(BaselineSpec(f"{name}, BN recalibrated", architecture, zero, recalibrated=True))
    return specs


def baseline_scores(
    spec: BaselineSpec,
    store: ImageStore,
    task: Task,
    size: int,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = True,
    classifier: Classifier = "linear",
) -> Scores:
    """A floor's scores on the test rows of a task, float32 [seeds, M, L].

    They are kept in the store's folder `floors` and computed once; what they depend on is in the file's name.

    Args:
        size: input side of a network; pixels are pooled from the stored image.
        seed: of the probe's tuning split; the networks have seeds of their own.
        classifier: what stands on the features.
    """
    file = store.path / "floors" / f"{_key(spec, store, task, size, seed, classifier)}.npz"
    if file.is_file():
        with np.load(file) as cached:
            scores: Scores = cached["scores"]
        return scores
    seeds = track(spec.seeds, description=f"floor: {spec.name}", transient=True, disable=not progress)
    scores = np.stack([_scores(spec, one, store, task, size, device, seed, classifier) for one in seeds])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=scores)
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, buffer.getvalue())
    return scores


def without_zero_branches(network: nn.Module) -> nn.Module:
    """The same function at a third of the cost: a residual branch that ends in a zero weight adds nothing.

    Changes the network in place; batch norm's statistics cannot bring such a branch back.
    """
    for stage in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for name, block in stage.named_children():
            if isinstance(block, BasicBlock) and not any(p.any() for p in block.bn2.parameters()):
                setattr(stage, name, nn.Sequential(block.downsample or nn.Identity(), block.act2))
    return network


def _scores(
    spec: BaselineSpec,
    network_seed: int,
    store: ImageStore,
    task: Task,
    size: int,
    device: str | torch.device,
    seed: int,
    classifier: Classifier,
) -> Scores:
    train, test, labels = task.train_rows(store), task.test_rows(store), task.labels(store)
    if spec.architecture:
        network = random_network(spec.architecture, network_seed, spec.zero_init_last)
        network = without_zero_branches(network).to(device)
    else:
        network, size = nn.Sequential(nn.AdaptiveAvgPool2d(PIXELS), nn.Flatten()), store.size
    if spec.recalibrated:
        recalibrate(network, store, train, size, MEAN, STD, device)
    known, asked = (extract_features(network, store, rows, size, MEAN, STD, device) for rows in (train, test))
    return fit_and_score(classifier, known, labels[train], store.patients[train], asked, seed).scores


def _key(spec: BaselineSpec, store: ImageStore, task: Task, size: int, seed: int, classifier: Classifier) -> str:
    """A file name that changes with whatever the scores depend on."""
    depends = {
        "spec": asdict(spec),
        "store": (store.sha256, store.size),
        "task": (asdict(task), task.label_names(store)),
        "size": size if spec.architecture else store.size,
        "seed": seed,
        "classifier": classifier,
        "probe": (
            linear_probe.C_GRID,
            linear_probe.HELD_OUT,
            STREAMS["probe_tuning"](0),
            linear_probe.TOLERANCE,
            linear_probe.MAX_ITERATIONS,
        ),
        "floor": (PIXELS, CALIBRATION_IMAGES, MEAN, STD, VERSION),
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    name = f"{classifier} {task.name} {depends['size']} {spec.name}"
    words = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{words}-{digest[:16]}"
