"""A fine-tuning run's folder: made once, with what the run is; at its end, the network of the chosen epoch."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors.torch import load, save
from torch import Tensor, nn

from c2l_models.architectures import find_architecture
from c2l_models.errors import C2LError, RunError, WeightsCorrupted
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import FILE_NAME, read_verified

from ..run_files import checkpoint

SETTINGS, LOG = "settings.json", "log.jsonl"
METADATA_KEY = "c2l-finetuned"


def begin(folder: Path, what: dict[str, Any], resume: bool) -> None:
    """Make the folder with settings.json, or find that it is this same run's.

    Args:
        folder: the run's.
        what: all that decides what the run computes, as JSON knows it.
        resume: the folder may be there, of a run that is to go on.

    Raises:
        RunError: the folder exists and `resume` is not set, or it is of another run; says what differs.
    """
    file = folder / SETTINGS
    if not folder.exists():
        folder.mkdir(parents=True)
    elif not resume:
        raise RunError(f"{folder} exists; choose another folder, or go on with that run: --resume")
    elif file.is_file():
        began, now = _flat(json.loads(file.read_text())), _flat(what)
        if keys := sorted(key for key in began.keys() | now.keys() if began.get(key) != now.get(key)):
            differing = "; ".join(f"{key}: began with {began.get(key)!r}, now {now.get(key)!r}" for key in keys)
            raise RunError(f"the run in {folder} cannot go on, it would be another run: {differing}")
        return
    elif any(folder.iterdir()):
        raise RunError(f"{folder} holds no {SETTINGS}, and something else: choose another folder")
    write_atomically(file, (json.dumps(what, indent=2) + "\n").encode())


def write_log(folder: Path, lines: list[dict[str, Any]]) -> None:
    """log.jsonl, a line an epoch, whole each time: a resumed run tells each epoch once."""
    write_atomically(folder / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())


def save_network(folder: Path, state: Mapping[str, Tensor], about: dict[str, Any]) -> Path:
    """Write model.safetensors: backbone and head under timm's keys, float32; `about` is its one metadata key."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    data = save(tensors, metadata={METADATA_KEY: json.dumps(about, sort_keys=True, ensure_ascii=False)})
    write_atomically(folder / FILE_NAME, data)
    return folder / FILE_NAME


class Tuned(NamedTuple):
    """A fine-tuned network, float [B, in_chans, size, size], normalised with mean and std -> logits [B, L].

    `about` is what `save_network` was given, and "sha256", of the file.
    """

    network: nn.Module
    about: dict[str, Any]


def load_network(folder: Path) -> Tuned:
    """What `save_network` wrote, in evaluation mode.

    Raises C2LError where it is missing or damaged, or of an architecture that is not known.
    """
    file = read_verified(folder)
    try:
        about = json.loads(file.header["__metadata__"][METADATA_KEY])
        architecture, labels, channels = about["architecture"], about["labels"], about["in_chans"]
    except (KeyError, TypeError, ValueError):
        raise C2LError(f"{folder / FILE_NAME} is not of `c2l finetune`; wanted the folder of such a run") from None
    find_architecture(architecture)
    network: nn.Module = timm.create_model(architecture, in_chans=channels, num_classes=len(labels))
    try:
        network.load_state_dict(load(file.data))
    except RuntimeError as error:
        raise WeightsCorrupted(f"{folder / FILE_NAME} does not fit {architecture}: {error}; run it again") from None
    return Tuned(network.eval(), about | {"sha256": file.sha256})


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a finished run: they are many times its network."""
    shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as "outer.inner"."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
