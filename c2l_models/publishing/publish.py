"""A release -> a repository of the Hugging Face hub: timm's layout, with its card."""

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
    """What a repository was sent: the files' names, and the commit that holds them all, sent or there before."""

    repository: str
    sent: tuple[str, ...]
    commit: str


def repository_of(weights: Weights, namespace: str) -> str:
    """`namespace/architecture.tag`. Raises `C2LError` for what the hub takes for no name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository = f"{namespace}/{weights.name}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise C2LError(f"--namespace {namespace}: {error}. Wanted the name of a user or an organisation") from None
    return repository


def write_repository(weights: Weights, repository: str, folder: Path) -> list[Path]:
    """Write into `folder` all that the hub is to hold under the name `repository`. Returns the files.

    Raises as `write_release_folder` and `model_card`.
    """
    return write_release_folder(weights, folder, card=str(model_card(weights, repository)))


def publish(weights: Weights, repository: str, files: list[Path]) -> Publication:
    """Send those of the files that the hub does not have yet, in one commit, or in none where it has them all.

    The repository is made where there is none. The token is the one that `hf auth login` stored, or
    `HF_TOKEN`. Raises `HubRefused` where it is missing or may not write, `HubUnavailable` where the
    hub cannot be reached, and `C2LError` where the repository holds other weights.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="c2l-models")
    with _explained(repository):
        api.create_repo(repository, exist_ok=True)
        head = str(api.model_info(repository).sha)
        held = _hashes(api, repository, head)
        if held.get(FILE_NAME) not in (None, weights.sha256):
            raise C2LError(
                f"{repository} holds other weights (sha256 {held[FILE_NAME]}, wanted {weights.sha256}), and a "
                "release does not change. Publish better weights under another tag, or delete the repository"
            )
        if FILE_NAME not in held and (others := sorted(set(held) - {".gitattributes"})):
            raise C2LError(
                f"{repository} is there and holds no release, but {', '.join(others[:5])}. Publish under another "
                "--namespace or tag, or delete the repository"
            )
        sent = [file for file in files if held.get(file.name) not in _names(file.read_bytes())]
        if not sent:
            return Publication(repository, (), head)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in sent],
            commit_message=f"{weights.name}: {', '.join(file.name for file in sent)}",
            parent_commit=head,
        )
    return Publication(repository, tuple(file.name for file in sent), commit.oid)


def _hashes(api: "HfApi", repository: str, commit: str) -> dict[str, str]:
    """What the hub knows its files by: git's name of a small one, the sha256 of a large one."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repository, recursive=True, revision=commit)
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def _names(data: bytes) -> tuple[str, str]:
    """The two names that the hub may know these bytes by."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha256(data).hexdigest()


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """The client's errors as ours, with what helps."""
    from huggingface_hub import constants, errors

    namespace, at = repository.partition("/")[0], f"{constants.ENDPOINT}, repository {repository}"
    token = f"`hf auth login`, or set HF_TOKEN to a token with write permission ({constants.ENDPOINT}/settings/tokens)"
    try:
        yield
    # OSError holds the client's own, RuntimeError what went wrong with a large file, ValueError a card refused.
    except (OSError, errors.HTTPError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        said = " ".join(str(cause).split())
        if status == 401:
            raise HubRefused(f"{at}: the hub knows no token of yours ({said}). {token}") from error
        if status in (403, 404):
            raise HubRefused(
                f"{at}: your token may not write to {namespace} ({said}). Wanted --namespace with your own name or an "
                f"organisation's that you may write to; then {token}"
            ) from error
        if status in (409, 412):
            raise HubUnavailable(f"{at}: somebody else is writing to it ({said}). Try again") from error
        if isinstance(error, ValueError):
            raise C2LError(f"{at}: refused ({said})") from error
        raise HubUnavailable(f"{at}: not sent ({said}). Try again; check the network and HF_ENDPOINT") from error
