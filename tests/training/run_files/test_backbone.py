"""The exported backbone is the trained network."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

import c2l_models
from c2l_models.errors import DatasetError, RunError
from c2l_models.releases.record import Weights
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.backbone import describe_rows, export_run, load_run_backbone


@pytest.fixture(scope="module")
def exported(tiny_run, tiny_store, tmp_path_factory):
    return export_run(tiny_run, tmp_path_factory.mktemp("export") / "mine.safetensors", tiny_store, tag="mine")


def make_images(store, split):
    """Normalised by hand: [B, 1, 32, 32]."""
    rows = np.flatnonzero(np.array(store.index["split"]) == split)
    return torch.tensor(np.array(store.images[rows]), dtype=torch.float32).unsqueeze(1) / 255 * 4 - 2


def trained(run, store, which):
    """The run's network in float32, with the statistics of all training images, made without the tested code."""
    network = timm.create_model("resnet18", pretrained=False, in_chans=1, num_classes=0)
    state = checkpoint.load(run).state["method"]
    start = f"{which}.backbone."
    network.load_state_dict({key[len(start) :]: value for key, value in state.items() if key.startswith(start)})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch: its statistics are the running ones
    network.train()
    with torch.no_grad():
        network(make_images(store, "train"))
    return network.eval()


def features(network, x):
    with torch.no_grad():
        return network.eval()(x)


def test_the_file_gives_the_students_features(exported, tiny_run, tiny_store):
    x = make_images(tiny_store, "test")
    expected = features(trained(tiny_run, tiny_store, "student"), x)
    gray = features(c2l_models.resnet18(weights=exported, in_chans=1), x)
    assert functional.cosine_similarity(gray, expected).min() > 0.9999
    torch.testing.assert_close(gray, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
    rgb = features(c2l_models.resnet18(weights=exported, in_chans=3), x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(rgb, gray, rtol=1e-4, atol=1e-4)
    # The comparison distinguishes networks.
    assert functional.cosine_similarity(gray, features(trained(tiny_run, tiny_store, "teacher"), x)).min() < 0.9999


def test_the_teacher_where_it_is_asked_for(tiny_run, tiny_store, tmp_path):
    path = export_run(tiny_run, tmp_path / "teacher.safetensors", tiny_store, teacher=True)
    x = make_images(tiny_store, "test")
    expected = features(trained(tiny_run, tiny_store, "teacher"), x)
    gray = features(c2l_models.resnet18(weights=path, in_chans=1), x)
    assert functional.cosine_similarity(gray, expected).min() > 0.9999


def test_statistics_are_those_of_clean_training_films(tiny_run, tiny_store):
    backbone, recipe = load_run_backbone(tiny_run, tiny_store)
    assert recipe.name == "tiny"
    assert not any(module.training for module in backbone.modules())
    expected = trained(tiny_run, tiny_store, "student")
    for (name, value), other in zip(backbone.named_buffers(), expected.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def test_what_the_file_says_of_itself(exported):
    weights = Weights.from_file(exported)
    assert weights.architecture == "resnet18"
    assert weights.name == "resnet18.mine"
    assert weights.recipe == "tiny"
    assert (weights.mean, weights.std) == ((0.5,) * 3, (0.25,) * 3)
    assert weights.input_size == (3, 32, 32)
    assert weights.trained_on == ("folder train: 44 images, 22 patients",)
    assert weights.num_params == 11_176_512


def test_another_size(tiny_run, tiny_store, tmp_path):
    path = export_run(tiny_run, tmp_path / "larger.safetensors", tiny_store, size=48)
    assert Weights.from_file(path).input_size == (3, 48, 48)
    small, large = (load_run_backbone(tiny_run, tiny_store, size=size)[0] for size in (32, 48))
    assert not torch.allclose(small.bn1.running_var, large.bn1.running_var)  # recalibrated at that size
    assert torch.equal(small.conv1.weight, large.conv1.weight)


def test_the_run_knows_its_store(tiny_run, exported, tmp_path):
    path = export_run(tiny_run, tmp_path / "own.safetensors", tag="mine")
    assert path.read_bytes() == exported.read_bytes()  # the file is the same to the byte


def run_that_names(tiny_run, folder, **changes):
    """A copy of the run folder with changes in run.json."""
    shutil.copytree(tiny_run, folder)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | changes))
    return folder


def run_with(tiny_run, folder, step=0, **keys):
    """A copy of the run folder whose checkpoint has another recipe."""
    state = checkpoint.load(tiny_run).state
    folder.mkdir()
    shutil.copy(tiny_run / "run.json", folder)
    checkpoint.save(folder, state | {"recipe": state["recipe"] | keys}, step, keep=3)
    return folder


def test_without_recalibration_the_statistics_are_the_trainings(tiny_run, tiny_store, tmp_path):
    backbone, _ = load_run_backbone(run_with(tiny_run, tmp_path / "run", recalibrate=False), tiny_store)
    state = checkpoint.load(tiny_run).state["method"]
    assert not backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[f"student.backbone.{name}"]), name
    recalibrated, _ = load_run_backbone(tiny_run, tiny_store)
    assert not torch.equal(backbone.bn1.running_mean, recalibrated.bn1.running_mean)


def test_the_recipe_says_whose_weights_unless_asked(tiny_run, tiny_store, tmp_path):
    run = run_with(tiny_run, tmp_path / "run", exported="teacher")
    state = checkpoint.load(tiny_run).state["method"]
    for teacher, which in ((None, "teacher"), (False, "student"), (True, "teacher")):
        weight = load_run_backbone(run, tiny_store, teacher)[0].conv1.weight
        assert torch.equal(weight, state[f"{which}.backbone.conv1.weight"])
    assert not torch.equal(state["teacher.backbone.conv1.weight"], state["student.backbone.conv1.weight"])
    assert torch.equal(load_run_backbone(tiny_run, tiny_store)[0].conv1.weight, state["student.backbone.conv1.weight"])


def test_the_best_checkpoint_where_it_is_asked_for(tiny_run, tiny_store, tmp_path):
    run = run_with(tiny_run, tmp_path / "run", step=1, exported="teacher")
    checkpoint.mark_best(run, checkpoint.load(run).path)
    checkpoint.save(run, checkpoint.load(tiny_run).state, 2, keep=3)  # a later one, of the student
    last, best = (load_run_backbone(run, tiny_store, best=best)[0].conv1.weight for best in (False, True))
    state = checkpoint.load(tiny_run).state["method"]
    assert torch.equal(last, state["student.backbone.conv1.weight"])
    assert torch.equal(best, state["teacher.backbone.conv1.weight"])
    export_run(run, tmp_path / "best.safetensors", tiny_store, best=True)
    export_run(run, tmp_path / "last.safetensors", tiny_store)
    assert (tmp_path / "best.safetensors").read_bytes() != (tmp_path / "last.safetensors").read_bytes()


def test_a_store_that_is_gone_or_another(tiny_run, tmp_path):
    gone = run_that_names(tiny_run, tmp_path / "gone", store=str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="nowhere"):
        export_run(gone, tmp_path / "x.safetensors")
    other = run_that_names(tiny_run, tmp_path / "other", store_sha256="0" * 64)
    with pytest.raises(DatasetError, match="000000"):
        export_run(other, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_no_run_folder(tmp_path, tiny_store):
    with pytest.raises(RunError, match="no checkpoint"):
        export_run(tmp_path, tmp_path / "x.safetensors", tiny_store)


def test_rows_are_described_by_data_set_and_split(tiny_store):
    lines = describe_rows(tiny_store, np.arange(len(tiny_store)))
    assert lines == ["folder test: 20 images, 10 patients", "folder train: 44 images, 22 patients"]
    assert describe_rows(tiny_store, np.array([0, 1])) == ["folder train: 2 images, 1 patients"]
