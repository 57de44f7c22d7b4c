"""Weights are loaded from a stand-in for the hub by the hub's own client, with and without faults."""

import hashlib
import json
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hub_clients import Client, small_weights
from hub_repositories import Fault
from hub_stand_in import TOKEN, HubStandIn
from small_disk import mounted_disk

from c2l_models.errors import C2LError, HubUnavailable
from c2l_models.hub.repository import HubRepository, download

FILE = "model.safetensors"
DATA = small_weights()
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(tmp_path_factory.mktemp("home"), hub.endpoint) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def slow_clients(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Two slow clients, one without a hub and one with a hub that always cuts. They start early to save time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    hub.add_commit("owner/cut", {FILE: DATA})
    hub.repositories["owner/cut"].fault = Fault("cut")
    with (
        Client(tmp_path_factory.mktemp("home"), closed) as unreachable,
        Client(tmp_path_factory.mktemp("home"), hub.endpoint) as cut,
    ):
        unreachable.ask(weights="hf-hub:owner/name")
        cut.ask(weights="hf-hub:owner/cut")
        yield {"unreachable": unreachable, "cut": cut}


def new_requests(hub: HubStandIn) -> list[str]:
    """Return the requests since the last call, without the client's own."""
    found = [request for request in hub.requests if "agent-harnesses" not in request and "owner/cut" not in request]
    hub.requests.clear()
    return found


def blobs(client: Client, repo_id: str) -> list[Path]:
    """Return the cached files that the client considers complete; old versions also keep partial files."""
    folder = Path(client.environment["HF_HOME"], "hub", f"models--{repo_id.replace('/', '--')}")
    return [path for path in folder.glob("blobs/*") if path.suffix != ".incomplete"]


def test_a_branch_a_tag_and_a_commit_are_loaded(hub: HubStandIn, client: Client) -> None:
    first = hub.add_commit("owner/three", {FILE: DATA})
    hub.repositories["owner/three"].tags["v1"] = first
    newer = small_weights(seed=1)
    second = hub.add_commit("owner/three", {FILE: newer})
    hub.add_commit("owner/three", {FILE: DATA}, branch="refs/pr/1")
    for revision, data, commit in (
        ("", newer, second),
        ("@main", newer, second),
        ("@v1", DATA, first),
        (f"@{first}", DATA, first),
        ("@refs/pr/1", DATA, hub.repositories["owner/three"].branches["refs/pr/1"]),
    ):
        answer = client(weights=f"hf-hub:owner/three{revision}")
        expected = {"name": "resnet18.test", "sha256": hashlib.sha256(data).hexdigest()}
        assert answer == expected | {"location": f"hf-hub:owner/three@{commit}"}, revision


def test_a_commit_in_the_cache_takes_no_request_in_a_new_process(hub: HubStandIn, tmp_path: Path) -> None:
    commit = hub.add_commit("owner/pinned", {FILE: DATA})
    new_requests(hub)
    with Client(tmp_path, hub.endpoint) as first:
        assert first(weights=f"hf-hub:owner/pinned@{commit}")["sha256"] == SHA256
    assert new_requests(hub) == [f"{method} /owner/pinned/resolve/{commit}/{FILE}" for method in ("HEAD", "GET")]
    for path in tmp_path.iterdir():
        if path.name != "hub":  # the client's own file; without it, the client sends one more request
            path.unlink()
    with Client(tmp_path, hub.endpoint) as second:
        assert second(weights=f"hf-hub:owner/pinned@{commit}")["sha256"] == SHA256
    assert [request for request in hub.requests if "owner/cut" not in request] == []


def register(folder: Path, table: str, sha256: str = SHA256) -> str:
    """Write a registry with one release, `resnet18.test`. Returns its path."""
    path = folder / "releases.toml"
    path.write_text(
        f'[resnet18.test]\ndefault = true\n{table}\nsha256 = "{sha256}"\nnum_params = 1\nmean = [0.4, 0.4, 0.4]\n'
        'std = [0.2, 0.2, 0.2]\ninput_size = [3, 64, 64]\ntrained_on = ["noise"]\nrecipe = "none"\n'
        'license = "CC-BY-4.0"\n'
    )
    return str(path)


def test_a_release_on_the_hub_is_pinned_and_hashed(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    commit = hub.add_commit("owner/release", {FILE: DATA})
    hub.add_commit("owner/release", {FILE: small_weights(seed=2)})  # its main branch now holds other weights
    on_hub = f'repo_id = "owner/release"\nrevision = "{commit}"'
    answer = client(weights="resnet18.test", registry=register(tmp_path, on_hub))
    assert answer == {"name": "resnet18.test", "sha256": SHA256, "location": f"hf-hub:owner/release@{commit}"}
    other = client(weights="resnet18.test", registry=register(tmp_path, on_hub, sha256="0" * 64))
    assert other["error"] == "WeightsCorrupted"
    assert f"expected sha256 {'0' * 64}, found {SHA256}" in other["message"]
    assert f"hf download owner/release {FILE} --revision {commit} --force-download" in other["message"]


def test_the_file_in_the_package_comes_first(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.safetensors").write_bytes(DATA)
    both = f'file = "a.safetensors"\nrepo_id = "owner/nowhere"\nrevision = "{"0" * 40}"'
    new_requests(hub)
    answer = client(weights="resnet18.test", registry=register(tmp_path, both))
    assert answer["location"] == str(tmp_path / "weights" / "a.safetensors")
    assert client(weights="resnet18.c2l_open26k", registry=str(releases()))["name"] == "resnet18.c2l_open26k"
    assert new_requests(hub) == []
    (tmp_path / "weights" / "a.safetensors").unlink()
    assert "owner/nowhere" in client(weights="resnet18.test", registry=str(tmp_path / "releases.toml"))["message"]


def releases() -> Path:
    from c2l_models.releases.registry import REGISTRY

    return REGISTRY


@pytest.mark.parametrize("revision", ['"main"', '"ABCDEF"', "7", f'"{"0" * 39}"'])
def test_a_release_that_is_not_pinned_is_the_registrys_fault(revision: str, client: Client, tmp_path: Path) -> None:
    registry = register(tmp_path, f'repo_id = "owner/release"\nrevision = {revision}')
    answer = client(weights="resnet18.test", registry=registry)
    assert answer["error"] == "WeightsCorrupted"
    assert re.search(
        r"releases\.toml, table resnet18\.test: expected the 40 hex digits of a commit under 'revision', found .*",
        answer["message"],
    )


def test_sha256_holds_an_unregistered_repository_to_its_bytes(hub: HubStandIn, client: Client) -> None:
    hub.add_commit("owner/any", {FILE: DATA})
    assert client(weights="hf-hub:owner/any", sha256=SHA256.upper())["sha256"] == SHA256
    answer = client(weights="hf-hub:owner/any", sha256="1" * 64)
    assert answer["error"] == "WeightsCorrupted"
    assert SHA256 in answer["message"]
    assert "1" * 64 in answer["message"]


def test_what_is_not_there_is_told(hub: HubStandIn, client: Client) -> None:
    hub.add_commit("owner/empty", {"README.md": b"nothing"})
    for name, reason in (
        ("owner/nobody", "does not exist or is private.*hf auth login.*c2l list"),
        ("owner/empty@v7", "no such revision; expected a branch, a tag or a commit"),
        (f"owner/empty@{'a' * 40}", "no such revision"),
        ("owner/empty", "no such file at this revision"),
    ):
        answer = client(weights=f"hf-hub:{name}")
        repo_id, _, revision = name.partition("@")
        where = f"{hub.endpoint}, repository {repo_id}, revision {revision or 'main'}, {FILE}: "
        assert answer["error"] == "WeightsNotFound"
        assert answer["message"].startswith(where)
        assert re.search(reason, answer["message"]), answer["message"]


def test_gated_and_private_repositories_take_a_token(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    hub.add_commit("owner/gated", {FILE: DATA})
    hub.repositories["owner/gated"].gated = True
    hub.add_commit("owner/private", {FILE: DATA})
    hub.repositories["owner/private"].private = True
    gated, private = (client(weights=f"hf-hub:owner/{name}") for name in ("gated", "private"))
    assert gated["error"] == "HubRefused"
    assert re.search(r"owner/gated, .* denies this user access.*hf auth login.*HF_TOKEN", gated["message"])
    assert private["error"] == "WeightsNotFound"
    assert re.search(r"owner/private, .* or is private.*hf auth login.*HF_TOKEN", private["message"])
    with Client(tmp_path, hub.endpoint, HF_TOKEN=TOKEN) as known:
        assert known(weights="hf-hub:owner/gated")["sha256"] == SHA256
        assert known(weights="hf-hub:owner/private")["sha256"] == SHA256


@pytest.mark.parametrize(
    "fault", [Fault("busy", times=1), Fault("cut", times=1), Fault("slow", seconds=0.3)], ids=lambda fault: fault.kind
)
def test_what_passes_is_waited_for(fault: Fault, hub: HubStandIn, client: Client) -> None:
    hub.add_commit(f"owner/once-{fault.kind}", {FILE: DATA})
    hub.repositories[f"owner/once-{fault.kind}"].fault = fault
    answer = client(weights=f"hf-hub:owner/once-{fault.kind}")
    if version("huggingface-hub").startswith("0.") and fault.kind != "slow":  # it leaves retries to its users
        assert answer["error"] == "HubUnavailable"
        answer = client(weights=f"hf-hub:owner/once-{fault.kind}")
    assert answer["sha256"] == SHA256


@pytest.mark.parametrize("kind", ["portal", "silent"])
def test_an_answer_that_is_not_the_hubs(kind: Any, hub: HubStandIn, client: Client) -> None:
    hub.add_commit(f"owner/{kind}", {FILE: DATA})
    hub.repositories[f"owner/{kind}"].fault = Fault(kind)
    answer = client(weights=f"hf-hub:owner/{kind}")
    assert answer["error"] == "HubUnavailable"
    url = f"{hub.endpoint}/owner/{kind}/resolve/main/{FILE}"
    assert f"curl -L -O {url}" in answer["message"]
    assert "HF_ENDPOINT" in answer["message"]
    hub.repositories[f"owner/{kind}"].fault = None
    assert client(weights=f"hf-hub:owner/{kind}")["sha256"] == SHA256


def test_a_cut_connection_leaves_nothing(hub: HubStandIn, slow_clients: dict[str, Client]) -> None:
    answer = slow_clients["cut"].answer()
    assert answer["error"] == "HubUnavailable"
    assert f"{hub.endpoint}, repository owner/cut, revision main, {FILE}: not received" in answer["message"]
    assert "Try again" in answer["message"]
    assert blobs(slow_clients["cut"], "owner/cut") == []
    hub.repositories["owner/cut"].fault = None
    assert slow_clients["cut"](weights="hf-hub:owner/cut")["sha256"] == SHA256


def test_wrong_bytes_of_the_right_length(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    """The hub's client accepts and caches the corrupted bytes."""
    commit = hub.add_commit("owner/flip", {FILE: DATA})
    hub.repositories["owner/flip"].fault = Fault("flip", times=1)
    registry = register(tmp_path, f'repo_id = "owner/flip"\nrevision = "{commit}"')
    for _ in range(2):  # the second time from the cache
        answer = client(weights="resnet18.test", registry=registry)
        assert answer["error"] == "WeightsCorrupted"
        assert SHA256 in answer["message"]
    by_hand = re.search(r"hf (download .*--force-download)", answer["message"])
    assert by_hand
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", *by_hand[1].split()]
    done = subprocess.run(hf, env=client.environment, capture_output=True, text=True)
    if "No module named" in done.stderr:
        pytest.skip("this huggingface_hub has no command named hf")
    assert done.returncode == 0, done.stderr
    assert client(weights="resnet18.test", registry=registry)["sha256"] == SHA256


def test_a_file_swapped_in_the_cache(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    commit = hub.add_commit("owner/swapped", {FILE: DATA})
    registry = register(tmp_path, f'repo_id = "owner/swapped"\nrevision = "{commit}"')
    assert client(weights="resnet18.test", registry=registry)["sha256"] == SHA256
    (blob,) = blobs(client, "owner/swapped")
    blob.write_bytes(small_weights(seed=3))  # a valid file of the same length
    answer = client(weights="resnet18.test", registry=registry)
    assert answer["error"] == "WeightsCorrupted"
    assert hashlib.sha256(small_weights(seed=3)).hexdigest() in answer["message"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"weight": 1}), "is a pickle.*A pickle is never loaded"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-LFS pointer"),
        (DATA[: len(DATA) // 2], "bytes according to its header, found"),
        (b"", "empty"),
    ],
    ids=["pickle", "zip", "HTML", "LFS pointer", "half", "empty"],
)
def test_what_is_no_weight_file(content: bytes, reason: str, hub: HubStandIn, client: Client) -> None:
    hub.repositories.pop("owner/other", None)
    commit = hub.add_commit("owner/other", {FILE: content})
    answer = client(weights="hf-hub:owner/other")
    assert answer["error"] == "WeightsCorrupted"
    assert re.search(reason, answer["message"]), answer["message"]
    assert f"It was downloaded from {hub.endpoint}, repository owner/other, revision main, {FILE}" in answer["message"]
    assert client(weights=f"hf-hub:owner/other@{commit}")["error"] == "WeightsCorrupted"


def test_a_repository_of_timms_users_is_left_to_timm(hub: HubStandIn, client: Client) -> None:
    import numpy as np
    from safetensors.numpy import save

    commit = hub.add_commit("owner/timm", {FILE: save({"a": np.zeros(1)}), "config.json": b"{}"})
    answer = client(weights="hf-hub:owner/timm")
    assert answer["error"] == "WeightsCorrupted"
    assert answer["message"].startswith(
        f"hf-hub:owner/timm@{commit}: expected normalisation and input size in the metadata key 'c2l', found none"
    )
    assert "timm.create_model" in answer["message"]


def test_offline_with_and_without_the_file(hub: HubStandIn, client: Client) -> None:
    commit = hub.add_commit("owner/offline", {FILE: DATA})
    client(weights="hf-hub:owner/offline")
    new_requests(hub)
    with Client(Path(client.environment["HF_HOME"]), hub.endpoint, HF_HUB_OFFLINE="1") as offline:
        for revision in ("", "@main", f"@{commit}"):
            answer = offline(weights=f"hf-hub:owner/offline{revision}")
            assert answer["location"] == f"hf-hub:owner/offline@{commit}"
        answer = offline(weights="hf-hub:owner/absent@v1")
    assert answer["error"] == "HubUnavailable"
    assert "owner/absent, revision v1" in answer["message"]
    assert "HF_HUB_OFFLINE" in answer["message"]
    assert "c2l download hf-hub:owner/absent@v1 --to DIR" in answer["message"]
    assert new_requests(hub) == []


def test_the_command_line_says_to_try_again(tmp_path: Path) -> None:
    environment = Client(tmp_path, "http://127.0.0.1:1", HF_HUB_OFFLINE="1").environment
    command = [sys.executable, "-c", "from c2l_models.cli import main; main()", "download", "hf-hub:owner/absent"]
    done = subprocess.run([*command, "--to", str(tmp_path / "to")], env=environment, capture_output=True, text=True)
    assert done.returncode == 75
    assert done.stderr.startswith("c2l: http://127.0.0.1:1, repository owner/absent")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "to").exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 128 kB."""
    with mounted_disk(tmp_path / "disk", "128k") as folder:
        yield folder


def test_a_cache_that_cannot_be_written(hub: HubStandIn, tiny_disk: Path) -> None:
    commit = hub.add_commit("owner/read", {FILE: DATA})
    hub.add_commit("owner/not-read", {FILE: DATA})
    with Client(tiny_disk, hub.endpoint) as client:
        assert client(weights="hf-hub:owner/read")["sha256"] == SHA256
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with Client(tiny_disk, hub.endpoint) as client:
        assert client(weights=f"hf-hub:owner/read@{commit}")["sha256"] == SHA256
        assert client(weights="hf-hub:owner/read")["sha256"] == SHA256
        answer = client(weights="hf-hub:owner/not-read")
    assert answer["error"] == "HubCacheError"
    assert f"cache {tiny_disk}/hub cannot be written" in answer["message"]
    assert "Read-only file system" in answer["message"]
    assert "HF_HOME" in answer["message"]


def test_a_cache_that_is_a_file(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add_commit("owner/name", {FILE: DATA})
    (tmp_path / "home").write_text("not a folder", encoding="utf-8")
    with Client(tmp_path / "home", hub.endpoint) as client:
        answer = client(weights="hf-hub:owner/name")
    assert answer["error"] == "HubCacheError"
    assert "Not a directory" in answer["message"]
    assert "HF_HOME" in answer["message"]


def test_a_full_disk(hub: HubStandIn, tiny_disk: Path) -> None:
    hub.add_commit("owner/large", {FILE: small_weights(size=1_000_000)})
    with Client(tiny_disk, hub.endpoint) as client:
        answer = client(weights="hf-hub:owner/large")
        assert blobs(client, "owner/large") == []
    assert answer["error"] == "HubCacheError"
    assert "No space left on device" in answer["message"]
    assert str(tiny_disk) in answer["message"]


def test_two_processes_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add_commit("owner/both", {FILE: small_weights(size=3_000_000)})
    hub.repositories["owner/both"].fault = Fault("slow", seconds=0.3)
    with Client(tmp_path, hub.endpoint) as one, Client(tmp_path, hub.endpoint) as two:
        for client in (one, two):
            client.ask(weights="hf-hub:owner/both")
        answers = [one.answer(), two.answer()]
    assert answers[0] == answers[1]
    assert answers[0]["sha256"] == hashlib.sha256(small_weights(size=3_000_000)).hexdigest()
    assert len(blobs(one, "owner/both")) == 1


def test_a_folder_for_machines_without_a_network(hub: HubStandIn, client: Client, tmp_path: Path) -> None:
    provenance = json.dumps({"sha256": SHA256}).encode()
    commit = hub.add_commit("owner/folder", {FILE: DATA, "provenance.json": provenance, "README.md": b"the hub's"})
    answer = client(weights="hf-hub:owner/folder", to=str(tmp_path / "a" / "folder"))
    folder = tmp_path / "a" / "folder"
    assert answer["location"] == f"hf-hub:owner/folder@{commit}"
    assert sorted(answer["files"]) == sorted(path.name for path in folder.iterdir())
    assert (folder / FILE).read_bytes() == DATA
    assert (folder / "provenance.json").read_bytes() == provenance
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert client(weights=str(folder), sha256=SHA256)["location"] == str(folder / FILE)


def test_a_hub_that_cannot_be_reached(slow_clients: dict[str, Client]) -> None:
    answer = slow_clients["unreachable"].answer()
    assert answer["error"] == "HubUnavailable"
    endpoint = slow_clients["unreachable"].environment["HF_ENDPOINT"]
    assert answer["message"].startswith(f"{endpoint}, repository owner/name, revision main, {FILE}: not received")
    assert "Connection refused" in answer["message"]
    assert f"curl -L -O {endpoint}/owner/name/resolve/main/{FILE}" in answer["message"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf-hub:owner/name", HubRepository("owner/name")),
        ("hf-hub:o-w/n.a_m@v1.0", HubRepository("o-w/n.a_m", "v1.0")),
        ("hf-hub:owner/name@refs/pr/1", HubRepository("owner/name", "refs/pr/1")),
    ],
)
def test_names_of_repositories_are_read_and_written(text: str, expected: HubRepository) -> None:
    assert HubRepository.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/name@", "owner/name@a b", "", "owner/na me", "../name@x@y"])
def test_other_names_are_refused_before_any_request(name: str, client: Client) -> None:
    with pytest.raises(C2LError, match="expected hf-hub:owner/name"):
        HubRepository.parse(f"hf-hub:{name}")
    assert client(weights=f"hf-hub:{name}")["error"] == "C2LError"


def test_an_error_of_the_large_file_storage_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised here, because hf_xet would raise it only after minutes."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Task error: CAS Client Error: error sending request")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(HubUnavailable, match=r"owner/name, revision v1, a\.json: not received \(Task error: CAS"):
        download(HubRepository("owner/name", "v1"), "a.json")


def test_what_the_client_itself_refuses(client: Client) -> None:
    answer = client(weights="hf-hub:owner/na--me")
    assert answer["error"] == "C2LError"
    assert "expected hf-hub:owner/name" in answer["message"].lower()
