"""The content of the stand-in for the hub: repositories with commits, and simulated faults."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Files = dict[str, bytes]

LARGE = re.compile(r".*\.(safetensors|onnx|pt|pt2|bin|parquet)")
"""Files that go to large file storage, as in the `.gitattributes` of a new repository."""


@dataclass
class Fault:
    """A simulated fault of a repository's files, for the next `times` requests that it affects.

    busy: status 503. portal: an HTML page with status 200, like a login page. cut: half of the body, then the
    connection is closed. flip: one bit of the body is flipped. slow: the answer comes after `seconds`. silent: the
    connection is closed without an answer.
    """

    kind: Literal["busy", "portal", "cut", "flip", "slow", "silent"]
    times: int = 1_000_000
    seconds: float = 0.0

    def affects(self, method: str) -> bool:
        affected = self.times > 0 and (method == "GET" or self.kind not in ("cut", "flip"))
        self.times -= affected
        return affected


@dataclass
class Repository:
    """Commits, oldest first, with branches and tags."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    fault: Fault | None = None

    def commit(self, files: Files, branch: str = "main") -> str:
        """Commit these files to a branch. The commit's 40 hex digits are a hash of the files and the parent."""
        digest = hashlib.sha1(self.branches.get(branch, "").encode())
        for name in sorted(files):
            digest.update(name.encode() + b"\0" + files[name] + b"\0")
        self.branches[branch] = commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        return commit

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or 40 hex digits; None if it does not exist."""
        named = self.branches.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)

    @property
    def files(self) -> Files:
        """The files of the branch `main`."""
        return self.commits[self.branches["main"]]


def oid_of(data: bytes) -> str:
    """Return git's blob id, which is also the ETag of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listing(path: str, data: bytes) -> dict[str, Any]:
    """Return a file's entry in the listing of a tree."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": oid_of(data)}
    if LARGE.fullmatch(path):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
