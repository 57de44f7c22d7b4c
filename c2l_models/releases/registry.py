"""The registry of releases, what else `weights=` takes, and the writing of weight files."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..architectures import find_architecture, suggest
from ..errors import C2LError, WeightsCorrupted, WeightsNotFound
from ..hub import weight_file
from ..hub.repository import COMMIT, PREFIX, HubRepository
from .record import Weights, make_record, read_record

REGISTRY = Path(__file__).with_name("releases.toml")
"""The releases, one table each; their files lie in the folder `weights` beside it, or on the hub."""

Source = str | os.PathLike[str] | Weights
"""A release's name, a file, a folder with `model.safetensors`, `hf-hub:owner/name[@revision]`, or a record."""


def list_weights(model: str | None = None) -> list[str]:
    """The releases' names, of one architecture where `model` names it."""
    if model is not None:
        find_architecture(model)
    return sorted(name for name in _releases() if model in (None, name.partition(".")[0]))


def get_weights(name: str) -> Weights:
    """The record of the release `architecture.tag`, or of the repository `hf-hub:owner/name[@revision]`.

    Raises `WeightsNotFound`, which says what there is; for a repository as `Weights.from_file`.
    """
    return Weights.from_file(name) if name.startswith(PREFIX) else _release(name, _releases())


def default_weights(architecture: str) -> Weights:
    """The release that `pretrained=True` means.

    Raises `WeightsNotFound` where there is none, `WeightsCorrupted` where several are marked so.
    """
    find_architecture(architecture)
    releases = _releases()
    own = [name for name in sorted(releases) if name.partition(".")[0] == architecture]
    defaults = [name for name in own if releases[name].get("default", False)]
    if len(defaults) > 1:
        raise WeightsCorrupted(f"{REGISTRY}: {' and '.join(defaults)} are marked default, wanted one of them")
    if not defaults:
        raise WeightsNotFound(
            f"{architecture} has no default release yet (there are: {', '.join(sorted(releases)) or 'none'}). "
            "Pass weights= with one of them or a .safetensors file of your own, or pretrained=False"
        )
    return _release(defaults[0], releases)


def resolve(weights: Source) -> Weights:
    """The record for a `Source`. Raises `WeightsNotFound`, `WeightsCorrupted`, and as `weight_file.locate`."""
    return _known(weights) or Weights.from_file(weights)  # type: ignore[arg-type]


def open_weights(weights: Source, sha256: str | None = None) -> tuple[Weights, weight_file.VerifiedFile]:
    """As `resolve`, with the verified file, which is read once.

    `sha256`: what the file has to hash to. A release has to besides to what the registry says.
    """
    record = _known(weights)
    if record is None:
        file = weight_file.read_verified(weights, sha256)  # type: ignore[arg-type]
        return read_record(file), file
    if sha256 is not None and sha256.lower() != record.sha256:
        raise WeightsCorrupted(f"{record.name} has the sha256 {record.sha256}, wanted sha256={sha256}")
    return record, record.read()


def _releases() -> dict[str, dict[str, Any]]:
    """The registry's tables under `architecture.tag`."""
    tables = tomllib.loads(REGISTRY.read_text(encoding="utf-8"))
    return {f"{architecture}.{tag}": table for architecture, tags in tables.items() for tag, table in tags.items()}


def _release(name: str, releases: Mapping[str, Mapping[str, Any]]) -> Weights:
    """The record of a release's table. Raises as `get_weights`."""
    if name not in releases:
        raise WeightsNotFound(f"no release {name!r}{suggest(name, releases)}")
    table = {key: value for key, value in releases[name].items() if key != "default"}
    source = f"{REGISTRY}, table {name}"
    location = _location(table.pop("file", None), table.pop("repo_id", None), table.pop("revision", None), source)
    architecture, _, tag = name.partition(".")
    return make_record({"architecture": architecture, "tag": tag, **table}, source, location=location)


def _location(file: object, repo_id: object, revision: object, source: str) -> weight_file.Location:
    """The file in the package where it is there, so that no network is needed; else the repository's commit."""
    packaged = REGISTRY.parent / "weights" / file if isinstance(file, str) else None
    if packaged and (repo_id is None or packaged.is_file()):
        return packaged
    if repo_id is None:
        raise WeightsCorrupted(f"{source}: 'file' is {file!r}, wanted the name of the weight file")
    if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
        raise WeightsCorrupted(f"{source}: 'revision' is {revision!r}, wanted the 40 hex digits of a commit")
    return HubRepository.parse(f"{PREFIX}{repo_id}@{revision}")


def _known(weights: Source) -> Weights | None:
    """The record itself, or the release of that name; None for what is a path."""
    if isinstance(weights, Weights):
        return weights
    if not isinstance(weights, str | os.PathLike):
        raise C2LError(
            f"weights is {type(weights).__name__}, wanted a release's name, a path, hf-hub:owner/name or a Weights"
        )
    if isinstance(weights, str):
        releases = _releases()
        if weights in releases or not _is_path(weights):
            return _release(weights, releases)
    return None


def _is_path(text: str) -> bool:
    named = text.startswith(PREFIX) or text.endswith(".safetensors")
    return named or "/" in text or os.sep in text or Path(text).exists()
