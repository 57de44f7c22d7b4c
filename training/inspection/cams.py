"""Class-activation maps of a fine-tuned network, and the radiologists' boxes to compare them with.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016. ResNet-18 and DenseNet-121 end in an
average over positions and a linear head, so the logit of a label is the mean of w · features over positions, plus the
bias. The map w · features is therefore exact and needs no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from c2l_models.errors import C2LError, DatasetError

from ..datasets import chestxray14
from ..detection.geometry import Square
from ..evaluation.intervals import Floats
from ..evaluation.predictions import Predictions
from ..evaluation.result import Result
from ..evaluation.tasks import load_task
from ..features import clean_batches
from ..finetuning.finetuned_network import load_network
from ..store.image_store import ImageStore
from .samples import Rows


@dataclass(frozen=True)
class FinetunedRun:
    """Network and result of a run of `c2l finetune chestxray14`.

    Attributes:
        network: float [B, 1, size, size] -> logits [B, L], in evaluation mode.
        labels: names of the L labels.
        learned: labels that had both classes in the training part.
        about: input size, mean, std, architecture and sha256 of the network.
        result: metrics of the run, with the data and settings behind them.
    """

    network: nn.Module
    labels: tuple[str, ...]
    learned: frozenset[str]
    about: dict[str, Any]
    result: Result


class BoxedFinding(NamedTuple):
    """A finding on an image, and its boxes.

    Attributes:
        row: row of the image in the store.
        finding: name of the label.
        boxes: float64 [n, 4]: left, top, right, bottom, as shares of the image's side.
    """

    row: int
    finding: str
    boxes: Floats


class Cam(NamedTuple):
    """Activation map of a finding, float64 [h, w], in logits, and the network's probability of the finding."""

    map: Floats
    probability: float


def load_finetuned(folder: Path, store: ImageStore, architecture: str) -> FinetunedRun:
    """Load a finished fine-tuning run.

    Args:
        folder: folder of the run.
        store: store of the run. Its splits define the images that the run was not trained on.
        architecture: expected architecture.

    Raises:
        C2LError: no finished run, or a run of another kind, task, store or architecture.
    """
    result = Result.read(folder)
    if (result.kind, result.task) != ("finetune", chestxray14.NAME):
        raise C2LError(
            f"expected a run of `c2l finetune chestxray14`, found {result.kind} on {result.task} in {folder}"
        )
    if result.architecture != architecture:
        raise C2LError(
            f"expected a run fine-tuned from the inspected network, a {architecture}; the run in {folder} is a "
            f"{result.architecture}"
        )
    if result.facts.get("store_sha256") != store.sha256:
        raise C2LError(
            f"the run in {folder} was fine-tuned on the store {str(result.facts.get('store_sha256'))[:12]}…, but this "
            f"store is {store.sha256[:12]}…, and the run may have been trained on its test images; use the run's store"
        )
    network, about = load_network(folder)
    scores = Predictions.load(folder).scores
    labels = tuple(about["labels"])
    learned = frozenset(name for name, known in zip(labels, ~np.isnan(scores).all(axis=0), strict=True) if known)
    return FinetunedRun(network, labels, learned, about, result)


def find_boxed_findings(store: ImageStore, table: Path, findings: frozenset[str]) -> list[BoxedFinding]:
    """Findings with boxes on test images, on which the run was not trained, sorted by row and finding.

    The original images are squares of 1,024 pixels, and a store keeps the whole square, so boxes as shares of the side
    do not depend on the store's size. Boxes are clipped to the image.

    Args:
        store: image store.
        table: BBox_List_2017.csv.
        findings: names of the findings to return.

    Raises:
        DatasetError: an error of `chestxray14.boxes`, a store without test images, or no box of these findings on a
            test image.
    """
    test = load_task(chestxray14.NAME).test_rows(store)
    paths = store.index["path"].to_numpy()[test]
    row_of = {path.rpartition("/")[2]: int(row) for path, row in zip(paths, test, strict=True)}
    found: dict[tuple[int, str], list[Sequence[float]]] = {}
    listed = chestxray14.boxes(table)
    for image, finding, *box in listed:
        if image in row_of and finding in findings:
            found.setdefault((row_of[image], finding), []).append(box)
    if not found:
        raise DatasetError(
            f"expected boxes of findings that the run learned, on the store's {len(test)} test images; found none "
            f"among the {len(listed)} boxes in {table.name}; give the full BBox_List_2017.csv "
            "and a store with its images"
        )
    square = Square(chestxray14.SIDE, chestxray14.SIDE, size=1)
    return [BoxedFinding(*key, square.inward(np.array(boxes)).clip(0, 1)) for key, boxes in sorted(found.items())]


def compute_cams(
    finetuned: FinetunedRun, store: ImageStore, boxed: Sequence[BoxedFinding], device: str | torch.device = "cpu"
) -> list[Cam]:
    """Compute the activation map of each finding on the clean view of its image, at the input size of the run."""
    about, network = finetuned.about, finetuned.network.to(device)
    rows: Rows = np.array([one.row for one in boxed], dtype=np.int64)
    columns = [finetuned.labels.index(one.finding) for one in boxed]
    maps, logits = [], []
    with torch.inference_mode():
        for images in clean_batches(store, rows, about["size"], about["mean"], about["std"], device):
            activation, logit = class_activation(network, images)
            maps.append(activation.cpu())
            logits.append(logit.cpu())
    activations, probabilities = torch.cat(maps).double().numpy(), torch.cat(logits).double().sigmoid().numpy()
    return [Cam(activations[i, column], float(probabilities[i, column])) for i, column in enumerate(columns)]


def class_activation(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Activation maps [B, L, h, w] and logits [B, L] of images [B, 1, S, S].

    The logit is the mean of the map over positions plus the head's bias.
    """
    timm_network: Any = network
    features = timm_network.forward_features(images)  # [B, C, h, w], before the average over positions
    maps = torch.einsum("lc,bchw->blhw", timm_network.get_classifier().weight, features)
    return maps, timm_network.forward_head(features)
