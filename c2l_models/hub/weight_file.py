"""Find a weight file at a path, in a folder or on the hub, read its bytes once, and verify format and hash.

`releases/record.py` interprets the bytes.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import WeightsCorrupted, WeightsNotFound
from .repository import PREFIX, HubRepository, download, hint_for, how_to_replace

MAX_BYTES, MAX_HEADER_BYTES = 2**33, 10**8
"""Largest weight file and header that are read; safetensors has the same limit for the header."""

FILE_NAME = "model.safetensors"
"""Name of the weight file in a folder or repository, as in timm and the Hugging Face hub."""

PROVENANCE_NAME = "provenance.json"
LICENSE_NAME, NOTICES_NAME = "LICENSE", "THIRD-PARTY-NOTICES.txt"

BESIDE = {PROVENANCE_NAME: ".json", LICENSE_NAME: ".LICENSE.txt", NOTICES_NAME: ".NOTICES.txt"}
"""Files of a release by their name in a folder or repository. Beside NAME.safetensors they are NAME with these
endings."""

Location = Path | HubRepository

_NO_PICKLE = (
    "A pickle is never loaded, because loading it can run code. Convert it with c2l convert, or load it with "
    "torch.load(..., weights_only=True) and save the state dict with c2l_models.releases.record.save_weights"
)
_NOT_SAFETENSORS = (
    (b"PK\x03\x04", f"a zip archive, probably a pickle (torch.save). {_NO_PICKLE}"),
    (b"\x80", f"a pickle (torch.save). {_NO_PICKLE}"),
    (b"version https://git-lfs", "a git-LFS pointer, not the file it points to: run `git lfs pull`"),
    (b"<", "an HTML or XML page, probably an error or login page: download the file itself"),
)


class VerifiedFile(NamedTuple):
    """The bytes of a safetensors file, with their hash and parsed header. The hashed bytes are the loaded bytes.

    `location` is an absolute path, or a repository at the commit that was read.
    """

    location: Location
    data: bytes
    sha256: str
    header: dict[str, Any]


def locate(source: str | os.PathLike[str] | HubRepository) -> Path:
    """Return the path of a weight file: `source` itself, or the `model.safetensors` of a folder or repository.

    Raises `WeightsNotFound`; for a repository also `HubRefused`, `HubUnavailable` or `HubCacheError`.
    """
    location = _location(source)
    if isinstance(location, HubRepository):
        return download(location, FILE_NAME)
    path = location / FILE_NAME if location.is_dir() else location
    if not path.is_file():
        raise WeightsNotFound(
            f"expected a .safetensors file, or a folder with {FILE_NAME}; found no file {path}"
            + hint_for(os.fspath(source))  # type: ignore[arg-type]
        )
    return path


def locate_provenance(source: str | os.PathLike[str] | HubRepository) -> Path:
    """Return the path of the provenance file beside the weights at `source`. Raises as `locate`."""
    return locate_beside(source, PROVENANCE_NAME)


def locate_beside(source: str | os.PathLike[str] | HubRepository, name: str) -> Path:
    """Return the path of a release's file beside its weights. `name`: a key of `BESIDE`. Raises as `locate`."""
    location = _location(source)
    if isinstance(location, HubRepository):
        return download(location, name)
    file = locate(location)
    path = file.with_name(name) if file.name == FILE_NAME else file.with_suffix(BESIDE[name])
    if not path.is_file():
        raise WeightsNotFound(f"expected {name}, which is written with a release, found no file {path}")
    return path


def read_verified(source: str | os.PathLike[str] | HubRepository, sha256: str | None = None) -> VerifiedFile:
    """Read the weight file of a path, folder or repository, and verify its format and hash.

    `sha256`: 64 hex digits, or None to accept any hash. Raises as `locate`, and `WeightsCorrupted` if the file is not
    a safetensors file, is truncated, or has another hash.
    """
    location, path = _location(source), locate(source)
    try:
        data, found, header = _checked(path, sha256)
    except WeightsCorrupted as error:
        if isinstance(location, Path):
            raise
        raise WeightsCorrupted(f"{error}. {how_to_replace(location, FILE_NAME)}") from None
    # A branch can move later, so the commit is recorded; the cache names its folders after commits.
    location = path.absolute() if isinstance(location, Path) else location._replace(revision=path.parent.name)
    return VerifiedFile(location, data, found, header)


def is_safetensors(path: Path) -> bool:
    """Whether a file's content begins as a safetensors file: an 8-byte length, then a brace. Its name is ignored."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _location(source: str | os.PathLike[str] | HubRepository) -> Location:
    if isinstance(source, HubRepository):
        return source
    text = os.fspath(source)
    return HubRepository.parse(text) if text.startswith(PREFIX) else Path(text)


def _checked(path: Path, sha256: str | None) -> tuple[bytes, str, dict[str, Any]]:
    """Read a file; return its bytes, sha256 and header. Raises `WeightsCorrupted`."""
    with path.open("rb") as file:
        _refuse_other_formats(path, file.read(1024))
    if (size := path.stat().st_size) > MAX_BYTES:
        raise WeightsCorrupted(
            f"{path}: expected a weight file of at most {MAX_BYTES:,} bytes, found {size:,}; choose the "
            "network's weights without optimizer states"
        )
    data = path.read_bytes()
    header = read_header(path, data)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise WeightsCorrupted(
            f"{path}: expected sha256 {sha256}, found {found}. The file was changed or replaced: install or copy it "
            "again"
        )
    return data, found, header


def read_header(path: Path, data: bytes) -> dict[str, Any]:
    """Parse the header of a safetensors file: an 8-byte length, then JSON. Raises `WeightsCorrupted`."""
    length = int.from_bytes(data[:8], "little")
    try:
        if length > MAX_HEADER_BYTES:
            raise ValueError
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        promised = 8 + length + max(ends, default=0)
        texts = header.get("__metadata__", {}).values()
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise WeightsCorrupted(
            f"{path}: not a safetensors file, or its header is damaged or truncated ({len(data):,} bytes). Copy or "
            "download it again"
        ) from None
    if promised != len(data):
        raise WeightsCorrupted(
            f"{path}: expected {promised:,} bytes according to its header, found {len(data):,}. Copy or download it "
            "again"
        )
    return header


def _refuse_other_formats(path: Path, data: bytes) -> None:
    """Raise `WeightsCorrupted` if the first bytes of a file are not those of a safetensors file."""
    if not data:
        raise WeightsCorrupted(f"{path}: the file is empty. Copy or download it again")
    # A safetensors file starts with an 8-byte length, which can look like any prefix below. Byte 9 is a brace, which no
    # other format has there.
    if data[8:9] == b"{":  # as in is_safetensors
        return
    start = data.lstrip()
    for prefix, what in _NOT_SAFETENSORS:
        if start.startswith(prefix):
            raise WeightsCorrupted(f"{path} is {what}")
