"""Class-activation maps of a fine-tuned network, and the boxes that they are held against.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016. ResNet-18 and DenseNet-121 end in an
average over positions and a linear head, so a label's logit is the mean over positions of w · features, plus the
bias: the map is exact, and no gradient is needed.
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
from ..finetuning.tuned_network import load_network
from ..store.image_store import ImageStore
from .samples import Rows


@dataclass(frozen=True)
class Finetuned:
    """What a run of `c2l finetune chestxray14` made, and says of itself.

    Attributes:
        network: in evaluation mode, float [B, 1, size, size] -> logits [B, L].
        labels: names of the L labels.
        learnt: those that had both answers to be learnt from.
        about: its input, architecture and sha256.
        result: its metrics and what they were computed on.
    """

    network: nn.Module
    labels: tuple[str, ...]
    learnt: frozenset[str]
    about: dict[str, Any]
    result: Result


class Boxed(NamedTuple):
    """A film, a finding on it, and where: boxes [n, 4], left, top, right, bottom, in shares of the film's side."""

    row: int
    finding: str
    boxes: Floats


class Cam(NamedTuple):
    """A finding's map on a film, [h, w], in logits, and the network's probability of it."""

    map: Floats
    probability: float


def load_finetuned(folder: Path, store: ImageStore, architecture: str) -> Finetuned:
    """The run in a folder.

    Args:
        store: has to be the one that it was fine-tuned on, at any size: its lists say what was not trained on.
        architecture: that it has to have.

    Raises:
        C2LError: no finished run, or one on another task, another store or another architecture.
    """
    result = Result.read(folder)
    if (result.kind, result.task) != ("finetune", chestxray14.NAME):
        raise C2LError(f"{folder} is of {result.kind} on {result.task}; wanted a run of `c2l finetune chestxray14`")
    if result.architecture != architecture:
        raise C2LError(
            f"the run in {folder} is a {result.architecture}, what is looked at a {architecture}: wanted one "
            "fine-tuned from it"
        )
    if result.facts.get("store_sha256") != store.sha256:
        raise C2LError(
            f"the run in {folder} was fine-tuned on the store {str(result.facts.get('store_sha256'))[:12]}…, this one "
            f"is {store.sha256[:12]}…: which of its films were trained on is not known. Give that store"
        )
    network, about = load_network(folder)
    scores = Predictions.load(folder).scores
    labels = tuple(about["labels"])
    learnt = frozenset(name for name, known in zip(labels, ~np.isnan(scores).all(axis=0), strict=True) if known)
    return Finetuned(network, labels, learnt, about, result)


def boxed_films(store: ImageStore, table: Path, findings: frozenset[str]) -> list[Boxed]:
    """The findings with boxes on the films of the test list, which no fine-tuning is trained on, by row and finding.

    Films as distributed are squares of 1,024 pixels, and a store holds the whole of a square, so a box keeps its place
    whatever the store's size; what of it reaches over the edge is cut off.

    Args:
        table: BBox_List_2017.csv.
        findings: those that are asked for.

    Raises:
        DatasetError: as `chestxray14.boxes`; a store without test films; none of them has a box of these findings.
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
            f"none of the {len(listed)} boxes in {table.name} is of a finding that the run learnt, on one of the "
            f"store's {len(test)} test films; wanted the store's own list"
        )
    square = Square(chestxray14.SIDE, chestxray14.SIDE, size=1)
    return [Boxed(*key, square.inward(np.array(boxes)).clip(0, 1)) for key, boxes in sorted(found.items())]


def compute_cams(
    finetuned: Finetuned, store: ImageStore, boxed: Sequence[Boxed], device: str | torch.device = "cpu"
) -> list[Cam]:
    """The map of each film's finding, on the film's clean view at the run's own size."""
    about, network = finetuned.about, finetuned.network.to(device)
    rows: Rows = np.array([one.row for one in boxed], dtype=np.int64)
    columns = [finetuned.labels.index(one.finding) for one in boxed]
    maps, logits = [], []
    with torch.inference_mode():
        for films in clean_batches(store, rows, about["size"], about["mean"], about["std"], device):
            activation, logit = class_activation(network, films)
            maps.append(activation.cpu())
            logits.append(logit.cpu())
    activations, probabilities = torch.cat(maps).double().numpy(), torch.cat(logits).double().sigmoid().numpy()
    return [Cam(activations[i, column], float(probabilities[i, column])) for i, column in enumerate(columns)]


def class_activation(network: nn.Module, films: Tensor) -> tuple[Tensor, Tensor]:
    """Each label's map, [B, L, h, w], and logit, [B, L], of films [B, 1, S, S].

    The mean of a map over positions, plus the head's bias, is the logit.
    """
    timm_network: Any = network
    features = timm_network.forward_features(films)  # [B, C, h, w], what is averaged over positions
    maps = torch.einsum("lc,bchw->blhw", timm_network.get_classifier().weight, features)
    return maps, timm_network.forward_head(features)
