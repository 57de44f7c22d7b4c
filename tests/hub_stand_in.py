"""A stand-in for the Hugging Face hub on 127.0.0.1: it answers the real client's requests and simulates faults.

>>> with HubStandIn() as hub:
...     commit = hub.add_commit("owner/name", {"model.safetensors": data, "config.json": b"{}"})
...     hub.repositories["owner/name"].fault = Fault("cut")
...     subprocess.run(..., env=os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": ..., "HF_TOKEN": TOKEN})
...     assert hub.requests == []

`huggingface_hub` reads `HF_ENDPOINT` when it is imported: run the client in another process, or start the stand-in
before the import. The stand-in has no xet storage, and version 2 of the client does not check this: to upload files,
set `HF_HUB_DISABLE_XET=1`, so that large files are sent by LFS.

Tested with huggingface_hub 0.30.0 and 2.4.0. In a new `HF_HOME`, 2.4.0 requests `/api/agent-harnesses` first. 0.30.0
validates cards at huggingface.co and ignores `HF_ENDPOINT`.
"""

import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from hub_repositories import LARGE, Fault, Files, Repository, listing

TOKEN = "hf_of_the_stand_in"
"""The only valid token. It permits reading gated and private repositories, and writing."""

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


class Refused(Exception):
    """An error answer: HTTP status, the hub's error code, and its message."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        self.status, self.message = status, message or code
        self.headers = {"X-Error-Code": code, "X-Error-Message": self.message, "X-Repo-Commit": commit}


class HubStandIn:
    """The server, which runs inside a `with` block. `requests` lists "METHOD /path"; `repositories` can be changed."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files under their sha256
        self.requests: list[str] = []
        self.closed: set[str] = set()  # namespaces that the token has no permission to write to
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStandIn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_commit(self, repo_id: str, files: Files, branch: str = "main") -> str:
        """Create a repository, or add a commit to one. Returns the commit."""
        return self.repositories.setdefault(repo_id, Repository()).commit(files, branch)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, *_: object) -> None:
        """Log nothing: tests read `requests`."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for method, pattern, action in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, path)):
                    action(self, **match.groupdict())
                    return
            raise Refused(404, message=f"the stand-in does not know {self.command} {path}")
        except Refused as refused:
            self.reply(refused.status, json.dumps({"error": refused.message}).encode(), refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def reply_json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode())

    def repository(self, repo: str, write: bool = False) -> Repository:
        """Find a repository as the hub does: without a token, a private one seems absent and a gated one is refused."""
        knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not knows):
            raise Refused(404 if knows else 401, "RepoNotFound", "Repository not found")
        if write and not knows:
            raise Refused(401, message="Invalid username or password.")
        if write:
            self.check_open(repo.partition("/")[0])
        if found.gated and not knows:
            raise Refused(403, "GatedRepo", f"Access to model {repo} is restricted and you are not in the list.")
        return found

    def check_open(self, namespace: str) -> None:
        if namespace in self.hub.closed:
            raise Refused(403, message=f"You don't have the rights to create a model under the namespace {namespace}")

    def commit_of(self, repository: Repository, revision: str) -> str:
        if (commit := repository.find(revision)) is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Reading

    def file(self, repo: str, revision: str, path: str) -> None:
        repository = self.repository(repo)
        fault = repository.fault if repository.fault and repository.fault.affects(self.command) else Fault("slow")
        time.sleep(fault.seconds)
        if fault.kind == "silent":
            self.close_connection = True
            return
        if fault.kind == "busy":
            raise Refused(503, message="The hub is busy")
        if fault.kind == "portal":
            self.reply(200, b"<!DOCTYPE html><title>Log in</title>", {"Content-Type": "text/html"})
            return
        commit = self.commit_of(repository, revision)
        data = repository.commits[commit].get(path)
        if data is None:
            raise Refused(404, "EntryNotFound", "Entry not found", commit)
        entry = listing(path, data)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        if fault.kind == "flip":
            data = data[:-1] + bytes([data[-1] ^ 1])
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        status, first, last = 200, 0, len(data) - 1
        if part:
            status, first, last = 206, int(part[1]), int(part[2] or last)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.reply(status, data[first : last + 1], headers, cut=fault.kind == "cut")

    def info(self, repo: str, revision: str | None = None) -> None:
        repository = self.repository(repo)
        commit = self.commit_of(repository, revision or "main")
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        facts = {"private": repository.private, "gated": "manual" if repository.gated else False, "tags": []}
        self.reply_json({"id": repo, "sha": commit, "siblings": siblings, **facts})

    def tree(self, repo: str, revision: str) -> None:
        repository = self.repository(repo)
        files = repository.commits[self.commit_of(repository, revision)]
        self.reply_json([listing(path, data) for path, data in files.items()])

    def refs(self, repo: str) -> None:
        repository = self.repository(repo)
        named = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
        listed = {
            kind: [{"name": name, "ref": f"refs/{at}/{name}", "targetCommit": commit} for name, commit in refs.items()]
            for kind, (at, refs) in named.items()
        }
        self.reply_json(listed | {"converts": []})

    def whoami(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, message="Invalid username or password.")
        self.reply_json({"type": "user", "name": "owner", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    # Writing

    def create(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, message="Invalid username or password.")
        request = json.loads(self.body)
        namespace = request.get("organization") or "owner"
        self.check_open(namespace)
        repo = f"{namespace}/{request['name']}"
        url = f"{self.hub.endpoint}/{repo}"
        if repo in self.hub.repositories:
            self.reply_json({"error": "You already created this model repo", "url": url}, 409)
            return
        self.hub.add_commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repositories[repo].private = bool(request.get("private") or request.get("visibility") == "private")
        self.reply_json({"url": url, "name": repo, "id": repo})

    def validate_yaml(self) -> None:
        front = FRONT_MATTER.match(json.loads(self.body)["content"])
        try:
            good = front is None or isinstance(yaml.safe_load(front[1]), dict)
        except yaml.YAMLError:
            good = False
        if not good:
            raise Refused(400, message="the card's metadata is not a YAML mapping")
        self.reply_json({"errors": [], "warnings": [] if front else [{"message": "empty or missing yaml metadata"}]})

    def preupload(self, repo: str, revision: str) -> None:
        held = {path: listing(path, data) for path, data in self.repository(repo, write=True).files.items()}
        self.reply_json(
            {
                "files": [
                    {
                        "path": path,
                        "uploadMode": "lfs" if LARGE.fullmatch(path) else "regular",
                        "shouldIgnore": False,
                        "oid": held[path].get("lfs", held[path])["oid"] if path in held else None,
                    }
                    for path in (file["path"] for file in json.loads(self.body)["files"])
                ]
            }
        )

    def lfs_batch(self, repo: str) -> None:
        self.repository(repo, write=True)
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}"}}
        self.reply_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, message="the bytes have another hash")
        self.hub.objects[oid] = self.body
        self.reply(200, b"")

    def commit(self, repo: str, revision: str) -> None:
        repository = self.repository(repo, write=True)
        parent = self.commit_of(repository, revision)
        files = dict(repository.commits[parent])
        for line in self.body.splitlines():
            item = json.loads(line)
            value, path = item["value"], item["value"].get("path", "")
            if item["key"] == "header" and value.get("parentCommit", parent) != parent:
                raise Refused(412, message="A commit has happened since. Please refresh and try again.")
            if item["key"] == "file":
                files[path] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refused(400, message=f"{path} was not uploaded")
                files[path] = self.hub.objects[value["oid"]]
            elif item["key"] in ("deletedFile", "deletedFolder"):
                files = {name: data for name, data in files.items() if name != path and not name.startswith(f"{path}/")}
        commit = repository.commit(files, revision)
        url = f"{self.hub.endpoint}/{repo}/commit/{commit}"
        self.reply_json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def tag(self, repo: str, revision: str) -> None:
        repository = self.repository(repo, write=True)
        if self.command == "DELETE":
            if repository.tags.pop(revision, None) is None:
                raise Refused(404, "RevisionNotFound", f"no tag {revision}")
            self.reply(200, b"")
            return
        name = json.loads(self.body)["tag"]
        if name in repository.tags:
            raise Refused(409, message=f"Tag reference exists already: {name}")
        repository.tags[name] = self.commit_of(repository, revision)
        self.reply(201, b"")


REPO = r"(?P<repo>[^/]+/[^/]+)"
API, REVISION = f"/api/models/{REPO}", r"(?P<revision>.+)"
ROUTES = (
    (("GET", "HEAD"), f"/{REPO}/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<path>.+)", _Handler.file),
    (("GET",), f"{API}/revision/{REVISION}", _Handler.info),
    (("GET",), f"{API}/tree/{REVISION}", _Handler.tree),
    (("GET",), f"{API}/refs", _Handler.refs),
    (("GET",), API, _Handler.info),
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), f"{API}/preupload/{REVISION}", _Handler.preupload),
    (("POST",), f"/{REPO}\\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    (("POST",), f"{API}/commit/{REVISION}", _Handler.commit),
    (("POST", "DELETE"), f"{API}/tag/{REVISION}", _Handler.tag),
)
