"""Files of the Hugging Face hub, through its own client, cache and variables.

Those are HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the others of huggingface_hub, which reads them when it is
imported. It does not check what it receives, nor what lies in its cache: whoever reads a file checks it.
"""

import errno
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import C2LError, HubCacheError, HubRefused, HubUnavailable, WeightsNotFound

PREFIX = "hf-hub:"
COMMIT = re.compile(r"[0-9a-f]{40}")

_NAME = re.compile(r"hf-hub:(?P<repo_id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@]+))?")
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class HubRepository(NamedTuple):
    """A repository of models on the hub; `revision` is a branch, a tag or a commit, None the main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> "HubRepository":
        """`hf-hub:owner/name` or `hf-hub:owner/name@revision`. Raises `C2LError` for anything else."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise C2LError(f"{text!r}: wanted hf-hub:owner/name, or hf-hub:owner/name@revision")
        return cls(**match.groupdict())


def download(repository: HubRepository, file: str) -> Path:
    """The file in the hub's cache, which is filled first where need be.

    A file of a commit (40 hex digits) that is in the cache takes no request. Of a branch or a tag, the hub is asked
    what it is now; where it does not answer, what it was last is taken. Raises `WeightsNotFound`, `HubRefused`,
    `HubUnavailable` or `HubCacheError`.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    revision = repository.revision or "main"
    try:
        if COMMIT.fullmatch(revision):  # the client itself asks the hub for other things before it looks
            cached = try_to_load_from_cache(repository.repo_id, file, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        return Path(hf_hub_download(repository.repo_id, file, revision=revision, library_name="c2l-models"))
    # OSError holds the client's own, ValueError a malformed name, RuntimeError what its large-file storage raises.
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        raise _explained(error, repository, file) from error


def how_to_replace(repository: HubRepository, file: str) -> str:
    """The end of a message about a file that is not what it should be: where it came from, and how to replace it."""
    revision = f" --revision {repository.revision}" if repository.revision else ""
    return (
        f"It came from {_where(repository, file)}, into the hub's cache. If it was damaged on the way or since, "
        f"replace it: hf download {repository.repo_id} {file}{revision} --force-download"
    )


def _where(repository: HubRepository, file: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}, repository {repository.repo_id}, revision {repository.revision or 'main'}, {file}"


def _explained(error: Exception, repository: HubRepository, file: str) -> C2LError:
    """What the client's error means for who wanted weights, and what helps."""
    from huggingface_hub import constants, errors

    where = _where(repository, file)
    # Unless it is about the repository, the client says "not found in the cache", because of the error that it met.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    said = " ".join(str(cause).split())
    if isinstance(error, errors.GatedRepoError) or (
        status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError)
    ):
        return HubRefused(
            f"{where}: the hub refuses it to this user ({said}). Ask for access on the repository's page, then "
            "`hf auth login`, or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsNotFound(
            f"{where}: no such repository, or a private one. Check the name; for a private one `hf auth login`, or set "
            "HF_TOKEN. Releases have names of their own: c2l list"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsNotFound(f"{where}: the repository has no such revision. Wanted a branch, a tag or a commit")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return WeightsNotFound(f"{where}: the repository has no such file at this revision")
    if isinstance(error, errors.HFValidationError):
        return C2LError(f"{repository}: {said}. Wanted hf-hub:owner/name, or hf-hub:owner/name@revision")
    if isinstance(error, OSError) and error.errno in _DISK:
        return HubCacheError(
            f"{where}: the hub's cache {constants.HF_HUB_CACHE} cannot be written ({said}). Make room there, or "
            f"set HF_HOME to a folder that can be; `c2l download {repository} --to DIR` makes one that needs no cache"
        )
    url = f"{constants.ENDPOINT}/{repository.repo_id}/resolve/{repository.revision or 'main'}/{file}"
    if constants.HF_HUB_OFFLINE:
        return HubUnavailable(
            f"{where}: not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to ask the hub. Unset it, "
            f"or, where there is a network, `c2l download {repository} --to DIR`; bring DIR here and pass weights='DIR'"
        )
    return HubUnavailable(
        f"{where}: not received ({said}), and not in the cache {constants.HF_HUB_CACHE}. Try again; check the network, "
        f"the proxy and HF_ENDPOINT; or fetch it by hand, `curl -L -O {url}`: weights= takes a file's path"
    )
