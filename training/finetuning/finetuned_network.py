"""Save and load a fine-tuned network: model.safetensors with backbone, head and their metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors.torch import load, save
from torch import Tensor, nn

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError, WeightsCorrupted
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import FILE_NAME, read_verified

METADATA_KEY = "c2l-finetuned"


def save_network(folder: Path, state: Mapping[str, Tensor], about: dict[str, Any]) -> Path:
    """Write model.safetensors: float32 tensors under timm's keys, and `about` as JSON under one metadata key."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    data = save(tensors, metadata={METADATA_KEY: json.dumps(about, sort_keys=True, ensure_ascii=False)})
    write_atomically(folder / FILE_NAME, data)
    return folder / FILE_NAME


class FinetunedNetwork(NamedTuple):
    """A fine-tuned network and its metadata.

    Attributes:
        network: float [B, in_chans, size, size], normalised with mean and std -> logits [B, L].
        about: the metadata that `save_network` wrote, and the file's "sha256".
    """

    network: nn.Module
    about: dict[str, Any]


def load_network(folder: Path) -> FinetunedNetwork:
    """Load the network that `save_network` wrote, in evaluation mode.

    Raises:
        C2LError: the file is missing or damaged, is not from `c2l finetune`, or has an unknown architecture.
    """
    file = read_verified(folder)
    try:
        about = json.loads(file.header["__metadata__"][METADATA_KEY])
        architecture, labels, channels = about["architecture"], about["labels"], about["in_chans"]
    except (KeyError, TypeError, ValueError):
        raise C2LError(
            f"expected a network of `c2l finetune`, found {folder / FILE_NAME} without its metadata; "
            "choose the folder of a finished `c2l finetune` run"
        ) from None
    find_architecture(architecture)
    network: nn.Module = timm.create_model(architecture, in_chans=channels, num_classes=len(labels))
    try:
        network.load_state_dict(load(file.data))
    except RuntimeError as error:
        raise WeightsCorrupted(
            f"{folder / FILE_NAME} does not fit {architecture}: {error}; run `c2l finetune` again"
        ) from None
    return FinetunedNetwork(network.eval(), about | {"sha256": file.sha256})
