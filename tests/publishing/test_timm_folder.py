"""timm loads the folder that `write_timm_folder` writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from c2l_models.errors import WeightsCorrupted
from c2l_models.models import create_model
from c2l_models.publishing.timm_folder import write_timm_folder
from c2l_models.releases.record import Weights, save_weights

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["resnet18", "densenet121"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's folder, written from random weights."""
    root = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = timm.create_model(request.param, num_classes=0, in_chans=1)
    config = {"architecture": request.param, "tag": "test", "mean": 0.4, "std": 0.2, "recipe": "none"}
    save_weights(root / "a.safetensors", model.state_dict(), config | {"input_size": [3, 64, 64], "trained_on": []})
    return write_timm_folder(Weights.from_file(root / "a.safetensors"), root / "new" / "folder")


def name_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["architecture"]


@pytest.mark.usefixtures("timm_reads_folders")
@pytest.mark.parametrize("options", [{}, {"in_chans": 1}, {"num_classes": 14}, {"features_only": True}])
def test_timm_and_we_give_the_same_features(folder: Path, options: dict[str, Any]) -> None:
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()
    ours = create_model(name_of(folder), weights=folder, **options).eval()
    batch = torch.rand(2, options.get("in_chans", 3), 64, 64)
    with torch.inference_mode():
        if options.get("num_classes"):
            assert theirs(batch).shape == ours(batch).shape == (2, 14)
            theirs.reset_classifier(0)
            ours.reset_classifier(0)
        torch.testing.assert_close(theirs(batch), ours(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("timm_reads_folders")
def test_without_arguments_timm_builds_a_network_without_head(folder: Path) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.num_classes == 0
    assert timm.data.resolve_data_config(model=model)["mean"] == [0.4, 0.4, 0.4]
    assert model.num_features == json.loads((folder / "config.json").read_text())["num_features"]


def test_the_weight_file_is_the_releases_own(folder: Path) -> None:
    original = folder.parent.parent / "a.safetensors"
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()
    assert Weights.from_file(folder).sha256 == Weights.from_file(original).sha256
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_changed_bytes_are_not_passed_on(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    (tmp_path / "a.safetensors").write_bytes(data)
    record = Weights.from_file(tmp_path / "a.safetensors")
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(WeightsCorrupted, match="sha256"):
        write_timm_folder(record, tmp_path / "folder")
    assert not list((tmp_path / "folder").glob("*"))
