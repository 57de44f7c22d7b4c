"""The releases by name, and every other source that `weights=` accepts."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..architectures import find_architecture, suggest
from ..errors import C2LError, WeightsCorrupted, WeightsNotFound
from ..hub import weight_file
from ..hub.repository import COMMIT, PREFIX, HubRepository, hint_for
from .record import Weights, make_record, read_record

REGISTRY = Path(__file__).with_name("releases.toml")
"""The registry, one table per release. The weight files are in the folder `weights` beside it, or on the hub."""

Source = str | os.PathLike[str] | Weights
"""A release's name, a file, a folder with `model.safetensors`, `hf-hub:owner/name[@revision]`, or a record."""


def list_weights(model: str | None = None) -> list[str]:
    """List the names of the releases; if `model` names an architecture, only its releases."""
    if model is not None:
        find_architecture(model)
    return sorted(name for name in _releases() if model in (None, name.partition(".")[0]))


def get_weights(name: str) -> Weights:
    """Return the record of a release, `architecture.tag`, or of a repository, `hf-hub:owner/name[@revision]`.

    Raises `WeightsNotFound` if no release has this name; for a repository, raises as `Weights.from_file`.
    """
    return Weights.from_file(name) if name.startswith(PREFIX) else _release(name, _releases())


def default_weights(architecture: str) -> Weights:
    """Return the record of an architecture's default release, which `pretrained=True` loads.

    Raises `WeightsNotFound` if the architecture has no default release, `WeightsCorrupted` if it has several.
    """
    find_architecture(architecture)
    releases = _releases()
    own = [name for name in sorted(releases) if name.partition(".")[0] == architecture]
    defaults = [name for name in own if releases[name].get("default", False)]
    if len(defaults) > 1:
        raise WeightsCorrupted(f"{REGISTRY}: {' and '.join(defaults)} are marked default, expected only one")
    if not defaults:
        raise WeightsNotFound(
            f"{architecture} has no default release (all releases: {', '.join(sorted(releases)) or 'none'}). "
            "Pass a release or a .safetensors file as weights=, or pass pretrained=False"
        )
    return _release(defaults[0], releases)


def resolve(weights: Source) -> Weights:
    """Return the record of a source. Raises `WeightsNotFound`, `WeightsCorrupted`, and as `weight_file.locate`."""
    return _known(weights) or Weights.from_file(weights)  # type: ignore[arg-type]


def open_weights(weights: Source, sha256: str | None = None) -> tuple[Weights, weight_file.VerifiedFile]:
    """Return the record of a source and its verified file, which is read once. Raises as `resolve`.

    `sha256`: the hash that the file must have. A release must also have the hash in the registry.
    """
    record = _known(weights)
    if record is None:
        file = weight_file.read_verified(weights, sha256)  # type: ignore[arg-type]
        return read_record(file), file
    if sha256 is not None and sha256.lower() != record.sha256:
        raise WeightsCorrupted(f"expected sha256={sha256}, found {record.sha256} registered for {record.name}")
    return record, record.read()


def withdrawn_weights() -> dict[str, str]:
    """Return the releases whose files are no longer distributed: the name of each, and of its successor."""
    return {name: table["successor"] for name, table in _tables().items() if "successor" in table}


def _tables() -> dict[str, dict[str, Any]]:
    """Read the registry: each release's table by its name, `architecture.tag`, withdrawn releases included."""
    tables = tomllib.loads(REGISTRY.read_text(encoding="utf-8"))
    return {f"{architecture}.{tag}": table for architecture, tags in tables.items() for tag, table in tags.items()}


def _releases() -> dict[str, dict[str, Any]]:
    """Each release's table by its name, without the withdrawn releases."""
    return {name: table for name, table in _tables().items() if "successor" not in table}


def _release(name: str, releases: Mapping[str, Mapping[str, Any]]) -> Weights:
    """Build the record of a release from its table. Raises as `get_weights`."""
    if name not in releases:
        if successor := withdrawn_weights().get(name):
            raise WeightsNotFound(
                f"the release {name} was withdrawn, because {successor} replaces it: load {successor}, or install the "
                "version of c2l-models that had it"
            )
        raise WeightsNotFound(f"no release {name!r}{hint_for(name) or suggest(name, releases)}")
    table = {key: value for key, value in releases[name].items() if key != "default"}
    source = f"{REGISTRY}, table {name}"
    location = _location(table.pop("file", None), table.pop("repo_id", None), table.pop("revision", None), source)
    architecture, _, tag = name.partition(".")
    return make_record({"architecture": architecture, "tag": tag, **table}, source, location=location)


def _location(file: object, repo_id: object, revision: object, source: str) -> weight_file.Location:
    """Return the packaged file if it exists, because it needs no network; otherwise the repository at its commit."""
    packaged = REGISTRY.parent / "weights" / file if isinstance(file, str) else None
    if packaged and (repo_id is None or packaged.is_file()):
        return packaged
    if repo_id is None:
        raise WeightsCorrupted(f"{source}: expected the name of the weight file under 'file', found {file!r}")
    if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
        raise WeightsCorrupted(f"{source}: expected the 40 hex digits of a commit under 'revision', found {revision!r}")
    return HubRepository.parse(f"{PREFIX}{repo_id}@{revision}")


def _known(weights: Source) -> Weights | None:
    """Return a `Weights` unchanged, or the record of a named release; None if `weights` is a path or a repository."""
    if isinstance(weights, Weights):
        return weights
    if not isinstance(weights, str | os.PathLike):
        raise C2LError(
            "expected weights= with a release's name, a path, hf-hub:owner/name or a Weights, "
            f"found {type(weights).__name__}"
        )
    if isinstance(weights, str):
        releases = _releases()
        if weights in releases or not _is_path(weights):
            return _release(weights, releases)
    return None


def _is_path(text: str) -> bool:
    named = text.startswith(PREFIX) or text.endswith(".safetensors")
    return named or "/" in text or os.sep in text or Path(text).exists()
