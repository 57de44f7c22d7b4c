"""A release's folder is complete or absent; timm and c2l_models load it without a network."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from hub_clients import small_weights
from weight_config import CONFIG

from c2l_models import cli, get_weights, list_weights
from c2l_models.errors import C2LError, WeightsCorrupted
from c2l_models.models import create_model
from c2l_models.publishing import release_folder as module
from c2l_models.publishing.release_folder import license_text, plain_card, write_release_folder
from c2l_models.releases.record import Weights, save_weights

torch.set_num_threads(1)
NAMES = ["LICENSE", "README.md", "SHA256SUMS", "config.json", "model.safetensors", "provenance.json"]


@pytest.fixture
def record(tmp_path: Path) -> Weights:
    """Weights that are not a release and have no provenance."""
    (tmp_path / "a.safetensors").write_bytes(small_weights())
    return Weights.from_file(tmp_path / "a.safetensors")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("timm_reads_folders")
def test_the_command_writes_what_timm_and_we_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release, folder = list_weights("resnet18")[0], tmp_path / "some" / "where"
    cli.main(["download", release, "--to", str(folder)])
    assert release in capsys.readouterr().out
    assert names(folder) == sorted([*NAMES, "THIRD-PARTY-NOTICES.txt"])
    assert names(folder.parent) == ["where"]
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == len(NAMES)
    original = get_weights(release).path()
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()
    assert json.loads((folder / "provenance.json").read_text())["release"] == release

    batch = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    models = [
        create_model("resnet18", pretrained=True, in_chans=1),
        create_model("resnet18", weights=folder, in_chans=1),
        timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1),
    ]
    with torch.inference_mode():
        expected, ours, theirs = (model.eval()(batch) for model in models)
    assert torch.equal(ours, expected)
    torch.testing.assert_close(theirs, expected, rtol=1e-6, atol=1e-6)


def test_the_same_again_is_replaced_and_other_files_are_not(record: Weights, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    files = write_release_folder(record, folder, card="# First\n")
    assert files == [folder / name for name in sorted(names(folder), key=lambda name: (name == "SHA256SUMS", name))]
    assert (folder / "README.md").read_text() == "# First\n"
    write_release_folder(record, folder)
    assert (folder / "README.md").read_text() == plain_card(record)
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("LICENSE", "README.md", "config.json", "model.safetensors")
    }
    (folder / "mine.txt").touch()
    for taken in (folder, folder / "mine.txt"):
        with pytest.raises(C2LError, match="expected a new or empty folder, or a release, found other files in"):
            write_release_folder(record, taken)
    assert (folder / "mine.txt").exists()


def test_a_users_own_readme_and_license_stay(record: Weights, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("README.md", "LICENSE"):
        (mine / name).write_text("precious")
    with pytest.raises(C2LError, match="expected a new or empty folder, or a release, found other files in"):
        write_release_folder(record, mine)
    assert (mine / "README.md").read_text() == "precious"


def test_a_folder_is_complete_or_not_there(record: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = tmp_path / "folder", module.write_atomically
    before = names(tmp_path)

    def full(path: Path, data: bytes) -> None:
        if path.name == "SHA256SUMS":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            write_release_folder(record, folder)
        assert names(tmp_path) == before
    write_release_folder(record, folder)
    written = {path: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            write_release_folder(record, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == written
    assert names(tmp_path) == sorted([*before, "folder"])


@pytest.mark.parametrize("text", ['{"sha256": "00"}', "[1]", "no JSON"])
def test_the_provenance_of_other_weights_is_not_passed_on(record: Weights, tmp_path: Path, text: str) -> None:
    """As if the weight file was exported again under the name of converted weights."""
    record.path().with_suffix(".json").write_text(text)
    with pytest.raises(WeightsCorrupted, match="remove it if it belongs to other weights"):
        write_release_folder(record, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_changed_bytes_are_not_passed_on(record: Weights, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(small_weights(seed=1))
    with pytest.raises(WeightsCorrupted, match="sha256"):
        write_release_folder(record, tmp_path / "folder")
    assert names(tmp_path) == ["a.safetensors"]


def test_the_license_and_the_card_are_of_the_weights(record: Weights) -> None:
    assert "creativecommons.org/licenses/by/4.0" in license_text(record)
    other = replace(record, license="Apache-2.0")
    assert license_text(other) == "The weights resnet18.test are licensed: Apache-2.0\n"
    _, front, text = plain_card(record).split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    assert "64×64 pixels: one grey channel in 0..1, minus 0.4, divided by 0.2" in text


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv3_small_050"])
def test_the_call_on_the_card_loads_the_folder(architecture: str, tmp_path: Path) -> None:
    network = timm.create_model(architecture, num_classes=0, in_chans=1)
    save_weights(tmp_path / "a.safetensors", network.state_dict(), CONFIG | {"architecture": architecture})
    folder = tmp_path / "folder"
    write_release_folder(Weights.from_file(tmp_path / "a.safetensors"), folder)
    (call,) = (
        line for line in (folder / "README.md").read_text().splitlines() if line.startswith("model = c2l_models")
    )
    variables: dict[str, Any] = {}
    exec(f"import c2l_models\n{call.replace('FOLDER', str(folder))}", variables)
    assert variables["model"](torch.zeros(1, 1, 64, 64)).ndim == 2


def test_leftovers_of_a_killed_call_are_removed(record: Weights, tmp_path: Path) -> None:
    killed = f"""
import os, signal
from c2l_models.publishing import release_folder as module
from c2l_models.releases.record import Weights, save_weights
module.plain_card = lambda weights: os.kill(os.getpid(), signal.SIGKILL)
module.write_release_folder(Weights.from_file({str(record.location)!r}), {str(tmp_path / "release")!r})
"""
    done = subprocess.run([sys.executable, "-c", killed], capture_output=True)
    assert done.returncode == -9, done.stderr
    (left,) = set(names(tmp_path)) - {"a.safetensors"}
    assert left.startswith(".release.")
    write_release_folder(record, tmp_path / "release")
    assert names(tmp_path) == ["a.safetensors", "release"]
