"""What the stand-in for the hub holds: repositories of commits, and what goes wrong on the way to their files."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Files = dict[str, bytes]

LARGE = re.compile(r".*\.(safetensors|onnx|pt|pt2|bin|parquet)")
"""Files that go to large file storage, as a new repository's `.gitattributes` says."""


@dataclass
class Fault:
    """What goes wrong with a repository's files, for the next `times` requests that it concerns.

    busy: 503. portal: a page of HTML with status 200, as an access point shows it. cut: half of the body, then the
    connection is closed. flip: one bit of the body is another one. slow: `seconds` before the answer.
    silent: the connection is closed without an answer.
    """

    kind: Literal["busy", "portal", "cut", "flip", "slow", "silent"]
    times: int = 1_000_000
    seconds: float = 0.0

    def strikes(self, method: str) -> bool:
        concerned = self.times > 0 and (method == "GET" or self.kind not in ("cut", "flip"))
        self.times -= concerned
        return concerned


@dataclass
class Repository:
    """Commits, oldest first, and the branches and tags that name some of them."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    fault: Fault | None = None

    def commit(self, files: Files, branch: str = "main") -> str:
        """Set a branch to these files; the commit's 40 hex digits follow from them and its parent."""
        digest = hashlib.sha1(self.branches.get(branch, "").encode())
        for name in sorted(files):
            digest.update(name.encode() + b"\0" + files[name] + b"\0")
        self.branches[branch] = commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        return commit

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a tag or 40 hex digits name."""
        named = self.branches.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)

    @property
    def files(self) -> Files:
        """What `main` holds."""
        return self.commits[self.branches["main"]]


def oid_of(data: bytes) -> str:
    """git's name of a blob, which is also the ETag of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listing(path: str, data: bytes) -> dict[str, Any]:
    """A file as the tree's listing has it."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": oid_of(data)}
    if LARGE.fullmatch(path):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
