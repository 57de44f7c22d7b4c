"""Save and load a fine-tuned network."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from c2l_models.errors import C2LError, WeightsCorrupted, WeightsNotFound
from c2l_models.hub.weight_file import read_verified
from c2l_models.training.finetuning.finetuned_network import METADATA_KEY, load_network, save_network

ABOUT = {"architecture": "resnet18", "labels": ["a", "b"], "mean": 0.5, "std": 0.25, "size": 32, "in_chans": 1}


def test_what_was_saved_is_what_is_loaded(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", in_chans=1, num_classes=2).eval()
    save_network(tmp_path, network.state_dict(), ABOUT)
    loaded = load_network(tmp_path)
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.network(images), network(images))
    assert loaded.about == ABOUT | {"sha256": read_verified(tmp_path).sha256}
    assert not loaded.network.training


def test_what_is_no_such_network_is_refused(tmp_path):
    with pytest.raises(WeightsNotFound):
        load_network(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(C2LError, match=r"expected a network of `c2l finetune`, found .* without its metadata"):
        load_network(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {METADATA_KEY: json.dumps(ABOUT)})
    with pytest.raises(WeightsCorrupted, match="does not fit resnet18"):
        load_network(tmp_path)
