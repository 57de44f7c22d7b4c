"""A release is published to a stand-in for the hub by the real client, and loaded back."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_clients import C2L, python
from hub_stand_in import TOKEN, HubStandIn

import c2l_models
from c2l_models.errors import C2LError
from c2l_models.publishing.publish import repository_of

RELEASE = "resnet18.c2l_open26k"
REPOSITORY = f"owner/{RELEASE}"
SENT = {
    "README.md",
    "config.json",
    "model.safetensors",
    "provenance.json",
    "LICENSE",
    "THIRD-PARTY-NOTICES.txt",
    "SHA256SUMS",
}

# Only the text of the card changes.
REWORDED = """
import sys
from pathlib import Path
from c2l_models import cli
from c2l_models.publishing import card
words = Path("cards.toml")
words.write_text(card.WORDS.read_text().replace("Not for diagnosis", "Never for diagnosis"))
card.WORDS = words
cli.main(sys.argv[1:])
"""

LOADED = """
import re, sys
import timm, torch, c2l_models
from huggingface_hub import hf_hub_download

name, repository = sys.argv[1:]
torch.manual_seed(0)
films = torch.rand(2, 1, 64, 64)

def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

def both(**options):
    theirs = timm.create_model(f"hf-hub:{name}", pretrained=True, in_chans=1, **options).eval()
    ours = c2l_models.resnet18(weights=f"hf-hub:{name}", in_chans=1, **options).eval()
    return theirs, ours

with torch.inference_mode():
    features = c2l_models.resnet18(pretrained=True, in_chans=1).eval()(films)
    assert features.std() > 0.01
    theirs, ours = both(num_classes=14)
    assert theirs(films).shape == ours(films).shape == (2, 14)
    for model in (theirs, ours):
        model.reset_classifier(0)
        same(model(films), features)
    for one, other in zip(*(model(films) for model in both(features_only=True)), strict=True):
        same(one, other)

# Run each snippet of the card in an empty namespace.
card = open(hf_hub_download(name, "README.md")).read()
snippets = re.findall(r"^```python\\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
assert len(snippets) == 4
for snippet in snippets:
    names = {}
    exec(snippet.replace('torch.hub.load("."', f"torch.hub.load({repository!r}"), names)
    model = names["model"]
    channels = next(model.parameters()).shape[1]
    with torch.inference_mode():
        same(model(films.expand(-1, channels, -1, -1)), features)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("publisher")


@pytest.fixture(scope="module")
def first(hub: HubStandIn, folder: Path) -> str:
    """The output of the first `c2l publish`."""
    done = python(C2L, "publish", RELEASE, "--namespace", "owner", cwd=folder, endpoint=hub.endpoint)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commits(hub: HubStandIn) -> list[str]:
    return list(hub.repositories[REPOSITORY].commits)


def test_the_first_time_makes_one_commit_of_all_files(hub: HubStandIn, first: str) -> None:
    created, commit = commits(hub)
    before, after = (hub.repositories[REPOSITORY].commits[one] for one in (created, commit))
    assert set(after) == SENT | set(before)
    assert commit in first
    weights = c2l_models.get_weights(RELEASE)
    assert hashlib.sha256(after["model.safetensors"]).hexdigest() == weights.sha256
    assert json.loads(after["config.json"])["pretrained_cfg"]["tag"] == weights.tag
    assert json.loads(after["provenance.json"])["sha256"] == weights.sha256
    assert after["README.md"].startswith(b"---\n")
    sums = dict(reversed(line.split()) for line in after["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(after[name]).hexdigest() for name in sums}
    assert "model.safetensors" in sums


def test_the_second_time_sends_nothing(hub: HubStandIn, folder: Path, first: str) -> None:
    before, count = commits(hub), len(hub.requests)
    done = python(C2L, "publish", RELEASE, "--namespace", "owner", cwd=folder, endpoint=hub.endpoint)
    assert (done.returncode, commits(hub)) == (0, before), done.stderr
    assert f"already up to date; commit {before[-1]}" in done.stdout
    assert not [request for request in hub.requests[count:] if re.search("preupload|lfs|/commit/", request)]


def test_other_words_are_one_more_commit_of_the_card(hub: HubStandIn, folder: Path, first: str) -> None:
    before, count = commits(hub), len(hub.requests)
    done = python(REWORDED, "publish", RELEASE, "--namespace", "owner", cwd=folder, endpoint=hub.endpoint)
    assert done.returncode == 0, done.stderr
    assert "uploaded README.md, SHA256SUMS; commit" in done.stdout
    assert commits(hub)[:-1] == before
    old, new = (hub.repositories[REPOSITORY].commits[one] for one in commits(hub)[-2:])
    assert {name for name in new if new[name] != old.get(name)} == {"README.md", "SHA256SUMS"}
    assert b"Never for diagnosis" in new["README.md"]
    assert not [request for request in hub.requests[count:] if "/lfs" in request]


def test_timm_and_we_and_the_cards_own_lines_load_it(hub: HubStandIn, repository: Path, tmp_path: Path) -> None:
    publisher = python(C2L, "publish", RELEASE, "--namespace", "owner", cwd=tmp_path, endpoint=hub.endpoint)
    assert publisher.returncode == 0, publisher.stderr
    done = python(LOADED, REPOSITORY, repository, cwd=tmp_path, endpoint=hub.endpoint, token=None)
    assert done.returncode == 0, done.stderr


def test_dry_run_writes_the_folder_and_asks_nothing(folder: Path) -> None:
    arguments = ["publish", RELEASE, "--namespace", "someone", "--dry-run", "--out", "dry"]
    done = python(C2L, *arguments, cwd=folder, endpoint="http://127.0.0.1:1", token=None)
    assert done.returncode == 0, done.stderr
    written = {path.name: path.stat().st_size for path in (folder / "dry").iterdir()}
    assert set(written) == SENT
    assert f"someone/{RELEASE}" in done.stdout
    for name, size in written.items():
        assert f"{name}, {size:,} bytes" in done.stdout


@pytest.mark.parametrize(
    ("namespace", "token", "said"),
    [
        ("new", None, r"hf auth login.*HF_TOKEN.*/settings/tokens"),
        ("new", "hf_wrong", r"hf auth login.*HF_TOKEN.*/settings/tokens"),
        ("closed", TOKEN, r"has no permission to write to closed.*--namespace"),
    ],
    ids=["no token", "wrong token", "closed namespace"],
)
def test_what_the_hub_refuses_is_explained(
    hub: HubStandIn, tmp_path: Path, namespace: str, token: str | None, said: str
) -> None:
    hub.closed.add("closed")
    publish = ["publish", RELEASE, "--namespace", namespace]
    done = python(C2L, *publish, cwd=tmp_path, endpoint=hub.endpoint, token=token)
    assert done.returncode == 2
    assert re.search(said, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert f"{namespace}/{RELEASE}" not in hub.repositories


def test_without_a_token_nothing_changes(hub: HubStandIn, folder: Path, first: str) -> None:
    publish, before = ["publish", RELEASE, "--namespace", "owner"], commits(hub)
    code = REWORDED.replace("Never", "Not ever")
    done = python(code, *publish, cwd=folder, endpoint=hub.endpoint, token=None)
    assert (done.returncode, commits(hub)) == (2, before), done.stderr
    assert "hf auth login" in done.stderr


def test_a_hub_that_is_away_is_tried_again_later(tmp_path: Path) -> None:
    done = python(C2L, "publish", RELEASE, "--namespace", "owner", cwd=tmp_path, endpoint="http://127.0.0.1:1")
    assert done.returncode == 75
    assert "http://127.0.0.1:1" in done.stderr
    assert "Try again" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_repository_with_other_weights_stays_as_it_is(hub: HubStandIn, tmp_path: Path) -> None:
    commit = hub.add_commit(f"rival/{RELEASE}", {"model.safetensors": b"others"})
    done = python(C2L, "publish", RELEASE, "--namespace", "rival", cwd=tmp_path, endpoint=hub.endpoint)
    assert done.returncode == 2
    assert re.search("expected weights with sha256 .*another tag", done.stderr)
    assert list(hub.repositories[f"rival/{RELEASE}"].commits) == [commit]


def test_a_repository_that_holds_no_release_stays_as_it_is(hub: HubStandIn, tmp_path: Path) -> None:
    commit = hub.add_commit(f"someone/{RELEASE}", {"README.md": b"mine", "pytorch_model.bin": b"others"})
    done = python(C2L, "publish", RELEASE, "--namespace", "someone", cwd=tmp_path, endpoint=hub.endpoint)
    assert done.returncode == 2
    assert "expected an empty repository or one that holds a release, found README.md, pytorch_model.bin" in done.stderr
    assert list(hub.repositories[f"someone/{RELEASE}"].commits) == [commit]


@pytest.mark.parametrize("namespace", ["two/names", "with space", "", "a--b"])
def test_what_is_no_name_for_the_hub_is_refused(namespace: str) -> None:
    with pytest.raises(C2LError, match=r"--namespace: expected the name of a user or organisation"):
        repository_of(c2l_models.get_weights(RELEASE), namespace)
