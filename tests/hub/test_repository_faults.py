"""Faults of the hub, the network, the disk and the cache: what the client waits for, and what it says."""

import hashlib
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hub_clients import DATA, FILE, SHA256, Client, blobs, new_requests, register, small_weights
from hub_repositories import Fault
from hub_stand_in import HubStandIn
from small_disk import mounted_disk

from c2l_models.errors import HubUnavailable
from c2l_models.hub.repository import HubRepository, download

pytestmark = pytest.mark.usefixtures("slow_clients")


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


def test_a_hub_that_cannot_be_reached(slow_clients: dict[str, Client]) -> None:
    answer = slow_clients["unreachable"].answer()
    assert answer["error"] == "HubUnavailable"
    endpoint = slow_clients["unreachable"].environment["HF_ENDPOINT"]
    assert answer["message"].startswith(f"{endpoint}, repository owner/name, revision main, {FILE}: not received")
    assert "Connection refused" in answer["message"]
    assert f"curl -L -O {endpoint}/owner/name/resolve/main/{FILE}" in answer["message"]


def test_an_error_of_the_large_file_storage_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised here, because hf_xet would raise it only after minutes."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Task error: CAS Client Error: error sending request")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(HubUnavailable, match=r"owner/name, revision v1, a\.json: not received \(Task error: CAS"):
        download(HubRepository("owner/name", "v1"), "a.json")
