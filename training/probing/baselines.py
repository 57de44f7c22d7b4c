"""Baselines of a probe: the same classifier on pixels and on the features of random networks."""

import hashlib
import io
import json
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.resnet import BasicBlock
from torch import nn

from c2l_models.files import write_atomically
from c2l_models.progress import Stage

from ..evaluation.predictions import MIN_CASES
from ..evaluation.tasks import Task
from ..features import CALIBRATION_IMAGES, MEAN, STD, recalibrate
from ..initialization import PIXELS, PIXELS_SIDE
from ..networks import has_zero_init, random_network
from ..patient_splits import STREAMS
from ..store.image_store import ImageStore
from . import linear_probe, logistic_regression
from .classifiers import Classifier, score_task
from .feature_cache import cached_features

FOLDER = "floors"
"""Folder of cached scores in a store. It keeps the name of earlier versions, so that their caches are found."""
SEEDS = (0, 1, 2, 3, 4)
VERSION = 3
"""To be increased if a change of the code changes the scores, so that older cached scores are not used."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class BaselineSpec:
    """One baseline: a random network, or pixels if `architecture` is empty.

    Attributes:
        name: name in tables.
        architecture: architecture of the random network.
        zero_init_last: whether residual branches are initialized to zero; None: the architecture has no such option.
        recalibrated: whether the batch norm of the network is recalibrated on the training part.
        seeds: seeds of the networks.
    """

    name: str
    architecture: str = ""
    zero_init_last: bool | None = None
    recalibrated: bool = False
    seeds: tuple[int, ...] = SEEDS


def baseline_specs(architecture: str) -> list[BaselineSpec]:
    """Baselines of an architecture: pixels, and timm's random network with and without recalibrated batch norm.

    If the architecture can initialize its residual branches to zero (`zero_init_last`), the list has random networks
    with and without this option. The target "pixels" is a baseline itself: it has none.
    """
    if architecture == PIXELS:
        return []
    specs = [BaselineSpec(f"pixels {PIXELS_SIDE}×{PIXELS_SIDE}", seeds=SEEDS[:1])]
    for zero in (False, True) if has_zero_init(architecture) else (None,):
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
    line: Stage | None = None,
    classifier: Classifier = "linear",
) -> Scores:
    """A baseline's scores on the evaluated rows of a task, float32 [seeds, M, L].

    Scores are computed once and cached in the store's folder `floors`. The file name depends on all inputs. Without
    permission to write, or on a full disk, nothing is cached; a damaged file is computed again.

    Args:
        spec: baseline.
        store: images and labels.
        task: task.
        size: input side of a network in pixels. The pixel baseline ignores it and pools the stored images.
        device: torch device.
        seed: seed of the probe's tuning folds. The seeds of the networks are `spec.seeds`.
        line: advanced by one for each network.
        classifier: classifier on the features.
    """
    line = line or Stage()
    file = store.path / FOLDER / f"{_key(spec, store, task, size, seed, classifier)}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):  # missing or damaged
        with np.load(file) as cached:
            found: Scores = cached["scores"]
        line.advance(len(spec.seeds))
        return found
    line.note(f"baseline {spec.name}")
    of_seeds = []
    for network_seed in spec.seeds:
        of_seeds.append(_scores(spec, network_seed, store, task, size, device, seed, classifier))
        line.advance()
    scores: Scores = np.stack(of_seeds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=scores)
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, buffer.getvalue())
    return scores


def without_zero_branches(network: nn.Module) -> nn.Module:
    """Remove residual branches that output zero, in place. The output stays the same and takes a third of the time.

    A branch outputs zero if the weight and bias of its last batch norm are zero, for any running statistics.
    """
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for name, block in sequential.named_children():
            if isinstance(block, BasicBlock) and not any(p.any() for p in block.bn2.parameters()):
                setattr(sequential, name, nn.Sequential(block.downsample or nn.Identity(), block.act2))
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
    if spec.architecture:
        network = random_network(spec.architecture, network_seed, spec.zero_init_last)
        network = without_zero_branches(network).to(device)
    else:
        network, size = nn.Sequential(nn.AdaptiveAvgPool2d(PIXELS_SIDE), nn.Flatten()), store.size
    if spec.recalibrated:
        recalibrate(network, store, task.train_rows(store), size, MEAN, STD, device)

    def features_of(rows: NDArray[np.int64]) -> Scores:
        return cached_features(network, store, rows, size, MEAN, STD, device)

    return score_task(classifier, features_of, store, task, seed, device).scores


def _key(spec: BaselineSpec, store: ImageStore, task: Task, size: int, seed: int, classifier: Classifier) -> str:
    """File name of the cached scores, with a hash of all inputs."""
    inputs = {  # keys must not change, because they are hashed and existing caches would not be found
        "spec": asdict(spec),
        "store": (store.sha256, store.size),
        "task": (asdict(task), task.label_names(store)),
        "size": size if spec.architecture else store.size,
        "seed": seed,
        "classifier": classifier,
        "probe": (
            linear_probe.C_GRID,
            linear_probe.TUNING_FOLDS,
            STREAMS["probe_tuning"](0),
            STREAMS["out_of_fold"](0),
            MIN_CASES,
            logistic_regression.TOLERANCE,
        ),
        "floor": (PIXELS_SIDE, CALIBRATION_IMAGES, MEAN, STD, VERSION),
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    name = f"{classifier} {task.name} {inputs['size']} {spec.name}"
    words = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{words}-{digest[:16]}"
