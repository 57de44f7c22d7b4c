"""Upload a release to a Hugging Face repository, in timm's layout, with its model card."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import C2LError, HubRefused, HubUnavailable
from ..hub.weight_file import FILE_NAME
from ..releases.record import Weights
from .card import model_card
from .release_folder import write_release_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Publication:
    """The result of `publish`: names of the uploaded files, and the commit that holds all files of the release."""

    repository: str
    sent: tuple[str, ...]
    commit: str


def repository_of(weights: Weights, namespace: str) -> str:
    """Return `namespace/architecture.tag`. Raises `C2LError` if the hub rejects the name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository = f"{namespace}/{weights.name}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise C2LError(
            f"--namespace: expected the name of a user or organisation, found {namespace}: {error}"
        ) from None
    return repository


def write_repository(weights: Weights, repository: str, folder: Path) -> list[Path]:
    """Write the files for the hub's `repository` to a local folder, and return their paths.

    Raises as `write_release_folder` and `model_card`.
    """
    return write_release_folder(weights, folder, card=str(model_card(weights, repository)))


def publish(weights: Weights, repository: str, files: list[Path]) -> Publication:
    """Upload the files that differ from the repository's, in one commit; if none differ, nothing is committed.

    The repository is created if it does not exist. The token is the one stored by `hf auth login`, or `HF_TOKEN`.
    Raises `HubRefused` if the token is missing or may not write, `HubUnavailable` if the hub cannot be reached, and
    `C2LError` if the repository holds other weights or no release.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="c2l-models")
    with _translated_errors(repository):
        api.create_repo(repository, exist_ok=True)
        head = str(api.model_info(repository).sha)
        held = _file_ids(api, repository, head)
        if held.get(FILE_NAME) not in (None, weights.sha256):
            raise C2LError(
                f"{repository}: expected weights with sha256 {weights.sha256}, found {held[FILE_NAME]}. A release "
                "never changes: publish other weights under another tag, or delete the repository"
            )
        if FILE_NAME not in held and (others := sorted(set(held) - {".gitattributes"})):
            raise C2LError(
                f"{repository}: expected an empty repository or one that holds a release, found "
                f"{', '.join(others[:5])}. Publish under another --namespace or tag, or delete the repository"
            )
        sent = [file for file in files if held.get(file.name) not in _possible_ids(file.read_bytes())]
        if not sent:
            return Publication(repository, (), head)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in sent],
            commit_message=f"{weights.name}: {', '.join(file.name for file in sent)}",
            parent_commit=head,
        )
    return Publication(repository, tuple(file.name for file in sent), commit.oid)


def _file_ids(api: "HfApi", repository: str, commit: str) -> dict[str, str]:
    """Return the hub's id of each file: git's blob id for a small file, the sha256 for a large one."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repository, recursive=True, revision=commit)
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def _possible_ids(data: bytes) -> tuple[str, str]:
    """Return the two ids that the hub may use for these bytes: git's blob id and the sha256."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha256(data).hexdigest()


@contextmanager
def _translated_errors(repository: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into C2LErrors that say what to do."""
    from huggingface_hub import constants, errors

    namespace, at = repository.partition("/")[0], f"{constants.ENDPOINT}, repository {repository}"
    token = f"`hf auth login`, or set HF_TOKEN to a token with write permission ({constants.ENDPOINT}/settings/tokens)"
    try:
        yield
    # The client's own errors are OSErrors; a failed large file is a RuntimeError, a rejected card a ValueError.
    except (OSError, errors.HTTPError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        reason = " ".join(str(cause).split())
        if status == 401:
            raise HubRefused(f"{at}: the hub got no valid token ({reason}). {token}") from error
        if status in (403, 404):
            raise HubRefused(
                f"{at}: your token has no permission to write to {namespace} ({reason}). Use your own name, or an "
                f"organisation that you can write to, as --namespace; then {token}"
            ) from error
        if status in (409, 412):
            raise HubUnavailable(f"{at}: another process changed it at the same time ({reason}). Try again") from error
        if isinstance(error, ValueError):
            raise C2LError(f"{at}: rejected ({reason})") from error
        raise HubUnavailable(f"{at}: not uploaded ({reason}). Try again; check the network and HF_ENDPOINT") from error
