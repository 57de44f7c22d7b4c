"""Download files from the Hugging Face hub with huggingface_hub, which has its own cache.

huggingface_hub reads its environment variables (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and others) when it is
imported. It does not verify downloaded or cached files, so every reader of a file must verify it.
"""

import errno
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import C2LError, HubCacheError, HubRefused, HubUnavailable, WeightsNotFound

PREFIX = "hf-hub:"
COMMIT = re.compile(r"[0-9a-f]{40}")

_NAME = re.compile(r"hf-hub:(?P<repo_id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@]+))?")
_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/(?P<repo_id>[\w.-]+/[\w.-]+)(?:/.*)?")
_NO_FILE = "the repository has no such file at this revision"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR}


class HubRepository(NamedTuple):
    """A model repository on the hub. `revision` is a branch, a tag or a commit; None means the branch `main`."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> "HubRepository":
        """Parse `hf-hub:owner/name` or `hf-hub:owner/name@revision`. Raises `C2LError` for any other text."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise C2LError(f"expected hf-hub:owner/name or hf-hub:owner/name@revision, found {text!r}")
        return cls(**match.groupdict())


def download(repository: HubRepository, file: str) -> Path:
    """Return the path of a repository's file in the hub's cache; download the file if it is not cached.

    If the revision is a commit (40 hex digits) and the cache has the file, or knows that the commit lacks it, no
    request is sent. If it is a branch or a tag, the hub is asked for its current commit; if the hub does not answer,
    the last cached commit is used. Raises `WeightsNotFound`, `HubRefused`, `HubUnavailable` or `HubCacheError`.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    revision = repository.revision or "main"
    try:
        if COMMIT.fullmatch(revision):  # hf_hub_download sends requests before it looks into the cache
            cached = try_to_load_from_cache(repository.repo_id, file, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
            if cached is not None:  # an earlier request found that this commit does not have the file
                raise WeightsNotFound(f"{_where(repository, file)}: {_NO_FILE}")
        from ..progress import stage  # only here, because torch.hub loads packaged weights without rich

        with stage(f"downloading {repository.repo_id}"):
            return Path(hf_hub_download(repository.repo_id, file, revision=revision, library_name="c2l-models"))
    # The client's own errors are OSErrors; a malformed name is a ValueError, a failure of large-file storage a
    # RuntimeError.
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        raise _translate(error, repository, file) from error


def hint_for(text: str) -> str:
    """The end of an error about a missing path that looks like a repository or an address; otherwise empty."""
    address = _URL.fullmatch(text)
    name = PREFIX + (address["repo_id"] if address else text)
    if address or (_NAME.fullmatch(name) and not text.startswith(".") and not text.endswith(".safetensors")):
        return f". For a repository on the Hugging Face hub write {name}, or run c2l download {name} --to DIR"
    if text.startswith(("http://", "https://")):
        return f". Addresses are not read: run `curl -L -O {text}`, and pass the path of the file"
    return ""


def how_to_replace(repository: HubRepository, file: str) -> str:
    """Text for an error about a corrupted file: its origin, and the command that downloads it again."""
    revision = f" --revision {repository.revision}" if repository.revision else ""
    return (
        f"It was downloaded from {_where(repository, file)}, into the hub's cache. If the download or the cache "
        f"damaged it, replace it: hf download {repository.repo_id} {file}{revision} --force-download"
    )


def _where(repository: HubRepository, file: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}, repository {repository.repo_id}, revision {repository.revision or 'main'}, {file}"


def _translate(error: Exception, repository: HubRepository, file: str) -> C2LError:
    """Turn an error of huggingface_hub into a C2LError that says what to do."""
    from huggingface_hub import constants, errors

    where = _where(repository, file)
    # A network error reaches us as "not found in the cache"; its cause is the network error itself.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    reason = " ".join(str(cause).split())
    if isinstance(error, errors.GatedRepoError) or (
        status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError)
    ):
        return HubRefused(
            f"{where}: the hub denies this user access ({reason}). Ask for access on the repository's page, then "
            "`hf auth login`, or set HF_TOKEN to a token that may read the repository"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsNotFound(
            f"{where}: the repository does not exist or is private. Check the name; if it is private, `hf auth "
            "login` or set HF_TOKEN. `c2l list` lists the names of releases"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsNotFound(f"{where}: the repository has no such revision; expected a branch, a tag or a commit")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return WeightsNotFound(f"{where}: {_NO_FILE}")
    if isinstance(error, errors.HFValidationError):
        return C2LError(f"expected hf-hub:owner/name or hf-hub:owner/name@revision, found {repository}: {reason}")
    causes = [each for each in (error, cause) if isinstance(each, OSError)]
    if any(each.errno in _DISK for each in causes):
        return HubCacheError(
            f"{where}: the hub's cache {constants.HF_HUB_CACHE} cannot be written ({reason}). Free some space, or set "
            f"HF_HOME to a writable folder. Or run `c2l download {repository} --to DIR` on another machine, copy DIR "
            "here, and pass weights='DIR'"
        )
    url = f"{constants.ENDPOINT}/{repository.repo_id}/resolve/{repository.revision or 'main'}/{file}"
    if constants.HF_HUB_OFFLINE:
        return HubUnavailable(
            f"{where}: not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids requests. Unset it, or "
            f"run `c2l download {repository} --to DIR` on a machine with a network, copy DIR here, and pass "
            "weights='DIR'"
        )
    return HubUnavailable(
        f"{where}: not received ({reason}), and not in the cache {constants.HF_HUB_CACHE}. Try again; check the "
        f"network, the proxy and HF_ENDPOINT; or run `curl -L -O {url}` and pass the file's path as weights="
    )
