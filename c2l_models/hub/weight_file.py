"""Bytes of a weight file: from a path, the package or the hub, read once, recognised and checked.

Takes file names and hashes, never a `Weights`: what the bytes mean is decided elsewhere.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import WeightsCorrupted, WeightsNotFound
from .repository import PREFIX, HubRepository, download, how_to_replace

FILE_NAME = "model.safetensors"
"""The weight file of a folder, as timm and the Hugging Face hub name it."""

PROVENANCE_NAME = "provenance.json"
"""Where the weights of a folder or a repository came from; of another file, the same name ending in .json."""

Location = Path | HubRepository

_NO_PICKLE = (
    "No pickle is ever loaded, because loading one runs code. Load it yourself with "
    "torch.load(..., weights_only=True) and save the state dict with c2l_models.releases.record.save_weights"
)
_NOT_SAFETENSORS = (
    (b"PK\x03\x04", f"a zip archive, most likely a pickle (torch.save). {_NO_PICKLE}"),
    (b"\x80", f"a pickle (torch.save). {_NO_PICKLE}"),
    (b"version https://git-lfs", "a git-LFS pointer, not the file it points to: run `git lfs pull`"),
    (b"<", "an HTML or XML page, most likely a saved error or login page: download the file itself"),
)


class VerifiedFile(NamedTuple):
    """A whole safetensors file, read once: what was hashed is what is loaded.

    `location` finds the same bytes again: an absolute path, or a repository at the commit that was read.
    """

    location: Location
    data: bytes
    sha256: str
    header: dict[str, Any]


def locate(source: str | os.PathLike[str] | HubRepository) -> Path:
    """The file that `source` names: its own path, or the `model.safetensors` of a folder or of a repository on the hub.

    Raises `WeightsNotFound`; for what is on the hub also `HubRefused`, `HubUnavailable` or `HubCacheError`.
    """
    location = _location(source)
    if isinstance(location, HubRepository):
        return download(location, FILE_NAME)
    path = location / FILE_NAME if location.is_dir() else location
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file. Wanted: a .safetensors file, or a folder with {FILE_NAME}")
    return path


def locate_provenance(source: str | os.PathLike[str] | HubRepository) -> Path:
    """The provenance of the weights at `source`. Raises as `locate`."""
    location = _location(source)
    if isinstance(location, HubRepository):
        return download(location, PROVENANCE_NAME)
    file = locate(location)
    path = file.with_name(PROVENANCE_NAME) if file.name == FILE_NAME else file.with_suffix(".json")
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file. Wanted: the provenance, which is written with a release")
    return path


def read_verified(source: str | os.PathLike[str] | HubRepository, sha256: str | None = None) -> VerifiedFile:
    """Read a safetensors file, a folder's or a repository's, and check its hash.

    `sha256`: 64 hex digits, or None where none is known. Raises as `locate`, and `WeightsCorrupted`
    for anything that is not a safetensors file, is cut short, or hashes otherwise.
    """
    location, path = _location(source), locate(source)
    try:
        data, found, header = _checked(path, sha256)
    except WeightsCorrupted as error:
        if isinstance(location, Path):
            raise
        raise WeightsCorrupted(f"{error}. {how_to_replace(location, FILE_NAME)}") from None
    # The cache's folders of files are named after their commits: what a branch names now, it may not name later.
    location = path.absolute() if isinstance(location, Path) else location._replace(revision=path.parent.name)
    return VerifiedFile(location, data, found, header)


def _location(source: str | os.PathLike[str] | HubRepository) -> Location:
    if isinstance(source, HubRepository):
        return source
    text = os.fspath(source)
    return HubRepository.parse(text) if text.startswith(PREFIX) else Path(text)


def _checked(path: Path, sha256: str | None) -> tuple[bytes, str, dict[str, Any]]:
    """The bytes, their hash, the header. Raises `WeightsCorrupted`."""
    data = path.read_bytes()
    _refuse_other_formats(path, data)
    header = _read_header(path, data)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise WeightsCorrupted(
            f"{path}: its sha256 is {found}, wanted {sha256}. Its bytes were changed or are another "
            "file's: install or copy it again"
        )
    return data, found, header


def _read_header(path: Path, data: bytes) -> dict[str, Any]:
    """The header of a safetensors file: an 8-byte length, then JSON. Raises `WeightsCorrupted`."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        promised = 8 + length + max(ends, default=0)
        texts = header.get("__metadata__", {}).values()
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise WeightsCorrupted(
            f"{path}: not a safetensors file, or one that is damaged or cut short in its header "
            f"({len(data):,} bytes). Copy or download it again"
        ) from None
    if promised != len(data):
        raise WeightsCorrupted(
            f"{path}: {len(data):,} bytes, where its header promises {promised:,}. Copy or download it again"
        )
    return header


def _refuse_other_formats(path: Path, data: bytes) -> None:
    if not data:
        raise WeightsCorrupted(f"{path}: the file is empty. Copy or download it again")
    # The first eight bytes of safetensors are a length, which may begin with any of these bytes;
    # what follows them is a brace, and in none of the other formats.
    if data[8:9] == b"{":
        return
    start = data[:1024].lstrip()
    for prefix, what in _NOT_SAFETENSORS:
        if start.startswith(prefix):
            raise WeightsCorrupted(f"{path} is {what}")
