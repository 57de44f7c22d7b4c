"""Distillation: its loss image by image, a whole run, and a source that does not fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from runs import same
from safetensors.torch import load_file

import c2l_models
from c2l_models.errors import RecipeError, RunError
from c2l_models.releases.record import Weights, save_weights
from c2l_models.training.initialization import load_initialization
from c2l_models.training.objectives import build
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Distillation, Optimizer, Recipe
from c2l_models.training.run_files import checkpoint, log
from c2l_models.training.run_files.backbone import export_run
from c2l_models.training.run_plan import plan_run


def write_source(file, seed=5):
    torch.manual_seed(seed)
    network = timm.create_model("resnet18", in_chans=1, num_classes=0)
    config = {"architecture": "resnet18", "tag": "source", "mean": 0.5, "std": 0.25, "input_size": [3, 32, 32]}
    config |= {"trained_on": ["phantoms"], "recipe": "none", "license": "MIT"}
    sha256 = save_weights(file, network.state_dict(), config)
    provenance = {"sha256": sha256, "patients": {"chestxray14": ["chestxray14:1"]}}
    file.with_suffix(".json").write_text(json.dumps(provenance))
    return file


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "source.safetensors")


@pytest.fixture(scope="module")
def recipe(tiny_recipe, source):
    optimizer = Optimizer(name="adamw", lr=0.03, schedule="cosine", warmup=0.2)
    section = Distillation(source=str(source))
    return replace(
        tiny_recipe, method="distillation", feature_dim=512, distillation=section, optimizer=optimizer, epochs=4
    )


def test_the_loss_image_by_image(source):
    """In evaluation mode images are independent: the loss is the mean of numpy's squared errors."""
    torch.manual_seed(0)
    method = build(Recipe("d", method="distillation", size=32, batch_size=8, batch_norm_group=4, feature_dim=512))
    network = c2l_models.resnet18(weights=source, in_chans=1).eval()
    method.set_source(network)
    clean = network(torch.randn(50, 1, 32, 32)).detach()
    method.set_targets(clean)
    images = torch.randint(256, (8, 1, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (view,) = method.views(images, torch.Generator().manual_seed(2), None)
    assert view.shape == (8, 1, 32, 32)
    method.eval()
    mean, std = clean.numpy().mean(axis=0), clean.numpy().std(axis=0, ddof=1)
    std[std <= 1e-2 * std.mean()] = np.inf
    errors = []
    for one in view:
        target = (network(one[None]).detach().numpy() - mean) / std
        errors.append(np.mean((method.student(one[None]).detach().numpy() - target) ** 2))
    assert method(view, torch.Generator()).loss.total.item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_whole_run(recipe, tiny_store, tmp_path):
    """The loss falls; checkpoints hold no weight of the source; a stopped run resumes to the bit; an export loads."""
    torch.set_num_threads(1)
    whole = pretrain(recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
    losses = [line["loss"] for line in log.read(whole) if line["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    state = checkpoint.load(whole).state
    assert {key.partition(".")[0] for key in state["method"]} == {"student", "target_mean", "target_std"}
    stopped = pretrain(recipe, tiny_store, tmp_path / "stopped", "cpu", max_seconds=0, progress=False)
    stopped = pretrain(recipe, tiny_store, stopped, "cpu", resume=True, progress=False)
    same(checkpoint.load(stopped).state, state)
    file = export_run(whole, tmp_path / "learned.safetensors", tiny_store)
    assert c2l_models.resnet18(weights=file).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 512)
    assert "learned the features of resnet18.source (licence: MIT): phantoms" in Weights.from_file(file).trained_on
    facts = json.loads((whole / "initialization.json").read_text())
    assert (facts["name"], facts["source"]["name"]) == ("random", "resnet18.source")
    assert "chestxray14:1" in load_initialization(str(whole), store=tiny_store).seen


def test_a_network_that_has_no_release(recipe, tiny_store, tmp_path):
    """MobileNetV3 learns from a ResNet-18; its file loads in one line and has the features of its own tensors."""
    recipe = replace(recipe, architecture="mobilenetv3_small_050", epochs=1)
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    file = export_run(run, tmp_path / "learned.safetensors", tiny_store)
    images = torch.randn(2, 1, 32, 32)
    network = timm.create_model("mobilenetv3_small_050", in_chans=1, num_classes=0).eval()
    tensors = load_file(file)
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"].sum(dim=1, keepdim=True)
    network.load_state_dict(tensors)
    loaded = c2l_models.create_model("mobilenetv3_small_050", weights=file, in_chans=1).eval()
    assert loaded(images).shape == (2, 1024)
    torch.testing.assert_close(loaded(images), network(images), rtol=1e-4, atol=1e-5)
    found = load_initialization(str(file))
    assert (found.name, found.architecture) == ("mobilenetv3_small_050.custom", "mobilenetv3_small_050")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dim": 128}, "feature_dim: expected 512, the number of features of resnet18.source, found 128"),
        ({"mean": 0.4}, "mean: expected 0.5, as resnet18.source has, found 0.4"),
    ],
)
def test_a_source_that_does_not_fit(recipe, tiny_store, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        pretrain(replace(recipe, **changes), tiny_store, tmp_path / "run", "cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_with_another_source(recipe, tiny_store, tmp_path):
    file = write_source(tmp_path / "mine.safetensors")
    recipe = replace(recipe, distillation=Distillation(source=str(file)))
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    write_source(file, seed=6)
    with pytest.raises(RunError, match=r"began with another source.*restore that file to resume"):
        pretrain(recipe, tiny_store, run, "cpu", resume=True, progress=False)


def test_the_plan_of_a_run(recipe, tiny_store):
    plan = plan_run(recipe, tiny_store, torch.device("cpu"))
    assert plan.seconds_per_step[recipe.size] > 0


def test_the_table_is_for_distillation_only():
    with pytest.raises(RecipeError, match=r"method: expected distillation, because a key of \[distillation\] is set"):
        Recipe("c2l", distillation=Distillation(source="x"))
