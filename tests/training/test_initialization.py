"""Each kind of initialization: its network, its input, and the patients that it was pretrained on."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from c2l_models.errors import C2LError, WeightsNotFound
from c2l_models.releases.record import save_weights
from c2l_models.training import initialization
from c2l_models.training.imagenet import InitializationNotAvailable
from c2l_models.training.initialization import load_initialization
from c2l_models.training.networks import random_network
from c2l_models.training.probing.baselines import baseline_specs
from c2l_models.training.recipe import Recipe


def test_a_weight_file_brings_its_own_size_and_normalisation(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    config = {
        "architecture": "resnet18",
        "tag": "mine",
        "mean": 0.4,
        "std": 0.2,
        "input_size": [3, 48, 48],
        "trained_on": ["phantoms"],
        "recipe": "smoke",
    }
    file = tmp_path / "mine.safetensors"
    sha256 = save_weights(file, network.state_dict(), config)
    init = load_initialization(str(file))
    assert (init.name, init.architecture, init.size) == ("resnet18.mine", "resnet18", 48)
    assert (init.mean, init.std) == (0.4, 0.2)
    assert init.about["weights_sha256"] == sha256
    assert init.about["trained_on"] == ["phantoms"]
    images = torch.randn(4, 1, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(init.network(images), network(images), rtol=2e-2, atol=2e-2)
    assert load_initialization(str(file), size=32).size == 32

    assert init.seen is None  # pretrained, without a list of its patients
    provenance = {"sha256": sha256, "patients": {"chestxray14": ["chestxray14:00000001"]}}
    file.with_suffix(".json").write_text(json.dumps(provenance))
    assert load_initialization(str(file)).seen == {"chestxray14:00000001"}
    before = {"name": "converted", "patients": None}
    file.with_suffix(".json").write_text(json.dumps(provenance | {"initialization": before}))
    assert load_initialization(str(file)).seen is None  # others are unknown
    file.with_suffix(".json").write_text(json.dumps({"sha256": sha256, "patients": 3}))
    with pytest.raises(C2LError, match="damaged, expected lists of patients"):
        load_initialization(str(file))


def test_a_release_says_whom_it_has_seen():
    init = load_initialization("resnet18.c2l_open26k")
    assert len(init.seen) == 7855 + 3302 + 3928 + 597  # chests, knees, FracAtlas, implants
    assert "chestxray14:00001336" in init.seen


def test_patients_of_a_data_set_whose_list_is_not_published_are_not_counted_as_unseen():
    init = load_initialization("random")
    assert init.count_seen(np.array(["mine:1", "mine:2"])) == 0
    lines = ["chestxray14 train: 2 images, 2 patients", "initialized from x (licence: MIT): mine train: 9 images"]
    init = replace(init, about={"trained_on": lines}, seen=frozenset({"chestxray14:00000001", "chestxray14:00000002"}))
    assert init.count_seen(np.array(["chestxray14:00000001", "chestxray14:00000003", "chestxray14:00000001"])) == 1
    assert init.count_seen(np.array(["knee_kl:9000099"])) == 0
    assert init.count_seen(np.array(["chestxray14:00000001", "mine:1"])) is None
    assert replace(init, seen=None).count_seen(np.array(["knee_kl:9000099"])) is None


def test_rsna_images_of_unknown_patients_are_not_counted_as_other_patients_than_those_of_chestxray14():
    chest, image = np.array(["chestxray14:00000001"]), np.array(["rsna:0004cfab-14fd-4e49-80ba-63a80b6bddd6"])
    init = load_initialization("random")
    for seen, tested in ((chest, image), (image, chest)):
        pretrained = replace(init, seen=frozenset(seen.tolist()))
        assert pretrained.count_seen(tested) is None
        assert pretrained.count_seen(seen) == 1
        assert pretrained.count_seen(np.array(["knee_kl:9000099"])) == 0


@pytest.mark.parametrize("store_is", ["given", "where it was", "gone"])
def test_a_run_folder(tiny_store, tmp_path, monkeypatch, store_is):
    """The run's own store may be missing if the caller passes the same images, or if no images are needed."""
    run = tmp_path / "a-run"
    run.mkdir()
    store_folder = tiny_store.path if store_is == "where it was" else tmp_path / "gone"
    run.joinpath("run.json").write_text(
        json.dumps({"store": str(store_folder), "store_sha256": tiny_store.sha256, "store_size": tiny_store.size})
    )
    network = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()

    def load_run_backbone(folder, store=None, teacher=False, size=None, device="cpu"):
        assert (folder, size, teacher) == (run, 40, False)
        assert (store is None) is (store_is == "gone")
        return network, Recipe(name="smoke", size=64, mean=0.3, std=0.1)

    monkeypatch.setattr(initialization, "load_run_backbone", load_run_backbone)
    init = load_initialization(str(run), store=tiny_store if store_is == "given" else None, size=40)
    assert (init.name, init.architecture, init.size) == ("a-run", "resnet18", 40)
    assert (init.mean, init.std) == (0.3, 0.1)
    assert init.about["recipe"] == "smoke"
    test = tiny_store.index["split"].to_numpy() == "test"
    assert init.seen == (None if store_is == "gone" else set(tiny_store.patients[~test]))


def test_random_is_timm_own_start_unless_it_is_calibrated(tiny_store):
    plain = load_initialization("random", seed=3)
    assert (plain.name, plain.size) == ("random:resnet18", 64)
    assert plain.network.bn1.running_mean.abs().max() == 0
    rows = np.arange(16)
    frozen = load_initialization("random", seed=3, size=32, store=tiny_store, calibrate_on=rows)
    assert torch.equal(frozen.network.conv1.weight, plain.network.conv1.weight)
    assert frozen.network.bn1.running_mean.abs().max() > 0
    assert load_initialization("random", "densenet121").architecture == "densenet121"
    assert load_initialization("random:densenet121").network.num_features == 1024


def test_what_is_not_there_is_named():
    with pytest.raises(
        WeightsNotFound, match=r"can also be a run folder .*'random', 'untrained', 'imagenet' or 'pixels'"
    ):
        load_initialization("resnet18.no_such_release")
    for kind in ("random", "imagenet"):
        with pytest.raises(WeightsNotFound, match="resnet19"):
            load_initialization(f"{kind}:resnet19")


@pytest.mark.usefixtures("hub_cache")
def test_imagenet_out_of_reach_is_said_at_once():
    began = time.monotonic()
    with pytest.raises(
        InitializationNotAvailable, match=r"https://.*timm/resnet18.tv_in1k.* cannot be downloaded"
    ) as caught:
        load_initialization("imagenet")
    assert time.monotonic() - began < 5
    assert "Run the command once with a network" in str(caught.value)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_imagenet_from_the_cache_is_one_channel_folded(cached_imagenet, architecture):
    """Its features are those of timm's network on the image in three channels, except at the border."""
    timms, file = cached_imagenet(architecture)
    init = load_initialization("imagenet", architecture)
    assert (init.name, init.size, init.seen) == (f"imagenet:{architecture}", 224, frozenset())
    assert init.about["weights"] == f"timm/{architecture}.tv_in1k"
    torch.manual_seed(1)
    grey = torch.nn.functional.interpolate(torch.rand(2, 1, 6, 6), (96, 96), mode="bilinear")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = timms.forward_head(timms.forward_features((grey - mean) / std), pre_logits=True)
        found = init.network((grey - init.mean) / init.std)
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.99

    save_file({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(C2LError, match=f"do not fit {architecture}"):
        load_initialization("imagenet", architecture)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_untrained_is_the_random_baseline_of_frozen_features(tiny_store, architecture):
    """The same features as the baseline of that kind: no zero-initialized branch, initial batch norm."""
    spec = next(spec for spec in baseline_specs(architecture) if spec.name == f"random {architecture}")
    assert (spec.zero_init_last, spec.recalibrated) == (False if architecture == "resnet18" else None, False)
    init = load_initialization(f"untrained:{architecture}", seed=3, store=tiny_store, calibrate_on=np.arange(8))
    expected = random_network(architecture, 3, spec.zero_init_last).eval()
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(init.network(images), expected(images))
    assert (init.name, init.size, init.seen) == (f"untrained:{architecture}", 64, frozenset())


def test_pixels(tiny_store):
    init = load_initialization("pixels", store=tiny_store)
    image = torch.arange(32 * 32.0).reshape(1, 1, 32, 32)
    blocks = image.reshape(16, 2, 16, 2).mean(dim=(1, 3))
    torch.testing.assert_close(init.network(image), blocks.reshape(1, 256))
    with pytest.raises(C2LError, match="expected a store for the initialization 'pixels'"):
        load_initialization("pixels")
