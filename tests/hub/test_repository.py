"""Weights are loaded from a stand-in for the hub by the hub's own client."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from hub_clients import C2L, DATA, FILE, SHA256, Client, blobs, new_requests, python, register, small_weights
from hub_repositories import Fault
from hub_stand_in import TOKEN, HubStandIn

from c2l_models.errors import C2LError
from c2l_models.hub.repository import HubRepository


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


@pytest.mark.parametrize("revision", ["", "@main"])
def test_a_folder_is_written_again_without_a_network(hub: HubStandIn, tmp_path: Path, revision: str) -> None:
    """The repository has no provenance and no notices; the first call asked for them."""
    commit = hub.add_commit("owner/bare", {FILE: DATA})
    command = "from c2l_models.cli import main; main()"
    first = python(
        command, "download", f"hf-hub:owner/bare{revision}", "--to", "a", cwd=tmp_path, endpoint=hub.endpoint
    )
    assert first.returncode == 0, first.stderr
    new_requests(hub)
    arguments = ("download", f"hf-hub:owner/bare@{commit}", "--to", "b")
    offline = f"import os; os.environ['HF_HUB_OFFLINE'] = '1'; {C2L}"
    for code, endpoint in ((C2L, hub.endpoint), (C2L, "http://127.0.0.1:1"), (offline, hub.endpoint)):
        again = python(code, *arguments, cwd=tmp_path, endpoint=endpoint)
        assert again.returncode == 0, again.stderr
        names = sorted(path.name for path in (tmp_path / "b").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "a").iterdir())
    assert new_requests(hub) == []


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


def test_what_the_client_itself_refuses(client: Client) -> None:
    answer = client(weights="hf-hub:owner/na--me")
    assert answer["error"] == "C2LError"
    assert "expected hf-hub:owner/name" in answer["message"].lower()
