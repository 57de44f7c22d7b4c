"""The weights with which a run's networks begin."""

import hashlib
import json
from dataclasses import replace

import pytest
import timm
import torch
from runs import same

import c2l_models
from c2l_models.errors import C2LError, RecipeError, RunError
from c2l_models.releases.record import Weights, save_weights
from c2l_models.training.batches import training_rows
from c2l_models.training.distributed import ALONE
from c2l_models.training.initialization import load_initialization
from c2l_models.training.objectives.momentum_teacher import MomentumTeacher
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Optimizer
from c2l_models.training.recipe_files import load_recipe
from c2l_models.training.run import Run
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.backbone import export_run


def new_run(recipe, store, folder):
    return Run(recipe, store, training_rows(recipe, store), folder, ALONE, torch.device("cpu"))


@pytest.fixture(scope="module")
def pretrained_file(tmp_path_factory):
    """A weight file of a random ResNet-18 with the normalisation of `tiny_recipe`."""
    torch.manual_seed(5)
    network = timm.create_model("resnet18", in_chans=1, num_classes=0)
    file = tmp_path_factory.mktemp("weights") / "before.safetensors"
    config = {"architecture": "resnet18", "tag": "before", "mean": 0.5, "std": 0.25, "input_size": [3, 32, 32]}
    config |= {"trained_on": ["phantoms"], "recipe": "none", "license": "MIT"}
    sha256 = save_weights(file, network.state_dict(), config)
    provenance = {"sha256": sha256, "patients": {"chestxray14": ["chestxray14:1"]}}
    file.with_suffix(".json").write_text(json.dumps(provenance))
    return file


def test_student_and_teacher_begin_as_the_initialization(tiny_recipe, tiny_store, tmp_path, pretrained_file):
    run = new_run(replace(tiny_recipe, initialization=str(pretrained_file)), tiny_store, tmp_path / "run")
    projection = {key: value.clone() for key, value in run.method.student.projection.state_dict().items()}
    run.start_or_resume(resume=False)
    images = torch.randn(3, 1, 32, 32)
    expected = c2l_models.resnet18(weights=pretrained_file, in_chans=1).eval()(images)
    for network in (run.method.student, run.method.teacher):
        torch.testing.assert_close(network.backbone.eval()(images), expected, rtol=1e-5, atol=1e-5)
        assert all(torch.equal(projection[key], value) for key, value in network.projection.state_dict().items())
    facts = json.loads((run.folder / "initialization.json").read_text())
    assert (facts["name"], facts["license"], facts["trained_on"]) == ("resnet18.before", "MIT", ["phantoms"])
    assert facts["weights_sha256"] == hashlib.sha256(pretrained_file.read_bytes()).hexdigest()
    assert facts["patients"] == ["chestxray14:1"]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    "wrong", ["random:resnet18", "random:densenet121", "untrained", "untrained:resnet18", "pixels"]
)
def test_baselines_begin_no_run(tiny_recipe, tiny_store, tmp_path, wrong):
    with pytest.raises(RecipeError, match=f"initialization: expected 'random'.* or the name of .*, found '{wrong}'"):
        pretrain(replace(tiny_recipe, initialization=wrong), tiny_store, tmp_path / "run", "cpu", progress=False)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.fixture(params=["random", "release", "torchvision's", "file", "run folder"])
def start(request, pretrained_file, cached_imagenet, small_start):
    """A value of `initialization`, and the name that a run records."""
    if request.param == "torchvision's":
        cached_imagenet("resnet18")
    return {
        "random": ("random", "random"),
        "release": ("resnet18.imagenet", "resnet18.imagenet"),
        "torchvision's": ("imagenet", "imagenet:resnet18"),
        "file": (str(pretrained_file), "resnet18.before"),
        "run folder": (str(small_start), small_start.name),
    }[request.param]


@pytest.fixture(scope="module")
def small_start(tiny_recipe, tiny_store, tmp_path_factory):
    """The folder of a run of one step."""
    return pretrain(replace(tiny_recipe, steps=1), tiny_store, tmp_path_factory.mktemp("runs") / "start", "cpu")


def test_the_smoke_recipe_from_each_kind_of_start(tiny_store, tmp_path, start):
    spec, name = start
    recipe = replace(load_recipe("smoke"), initialization=spec, batch_size=8, steps=2, probe_every=0)
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert checkpoint.load(run).state["step"] == 2
    assert json.loads((run / "initialization.json").read_text())["name"] == name
    file = export_run(run, tmp_path / "learned.safetensors", tiny_store)
    assert c2l_models.resnet18(weights=file, in_chans=1).eval()(torch.randn(2, 1, 64, 64)).isfinite().all()


def test_the_patients_and_data_of_the_initialization_count(tiny_recipe, tiny_store, tmp_path, pretrained_file):
    """A run that began with another run's weights counts the patients of both, and an export names the data of both."""
    recipe = replace(tiny_recipe, initialization=str(pretrained_file), epochs=1, probe_every=0)
    first = pretrain(recipe, tiny_store, tmp_path / "first", "cpu", max_seconds=0, progress=False)
    second = replace(recipe, initialization=str(first), sources=("folder:train",))
    second = pretrain(second, tiny_store, tmp_path / "second", "cpu", max_seconds=0, progress=False)
    own = set(tiny_store.patients[training_rows(recipe, tiny_store)].tolist())
    assert load_initialization(str(second), store=tiny_store).seen == {*own, "chestxray14:1"}
    export_run(first, tmp_path / "first.safetensors", tiny_store)
    *_, line = Weights.from_file(tmp_path / "first.safetensors").trained_on
    assert line == "initialized from resnet18.before (licence: MIT): phantoms"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "densenet121"}, "architecture: expected 'resnet18', as resnet18.before has, found 'densen"),
        ({"mean": 0.4}, "mean: expected 0.5, as resnet18.before has, found 0.4"),
        ({"std": 0.3}, "std: expected 0.25, as resnet18.before has, found 0.3"),
        ({"initialization": "resnet18.unknown"}, "resnet18.unknown"),
    ],
)
def test_an_initialization_that_does_not_fit(tiny_recipe, tiny_store, tmp_path, pretrained_file, changes, message):
    recipe = replace(tiny_recipe, **{"initialization": str(pretrained_file), **changes})
    with pytest.raises(C2LError, match=message):
        new_run(recipe, tiny_store, tmp_path / "run").start_or_resume(resume=False)
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_without_the_file_that_it_began_with(tiny_recipe, tiny_store, tmp_path, pretrained_file):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(pretrained_file.read_bytes())
    recipe = replace(tiny_recipe, initialization=str(copy))
    new_run(recipe, tiny_store, tmp_path / "run").start_or_resume(resume=False)
    copy.unlink()
    resumed = new_run(recipe, tiny_store, tmp_path / "run")
    assert resumed.start_or_resume(resume=True) == ()
    assert resumed.initialization["name"] == "resnet18.before"
    with pytest.raises(RunError, match=r"initialization: began with '.*copy.safetensors', now 'random'"):
        new_run(tiny_recipe, tiny_store, tmp_path / "run").start_or_resume(resume=True)


@pytest.mark.usefixtures("small_networks")
def test_resuming_to_the_bit_within_warmup_cosine_and_early_sizes(tiny_recipe, tiny_store, tmp_path):
    """The first stops are in the warm-up (3 steps) with small views (2 steps), the fourth one is in the cosine."""
    optimizer = Optimizer(lr=0.3, schedule="cosine", warmup=0.4, final_lr=0.01)
    recipe = replace(tiny_recipe, optimizer=optimizer, steps=8, teacher_momentum=0.9, teacher_momentum_final=1.0)
    recipe = replace(recipe, early_sizes=(16,), early_shares=(0.25,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = pretrain(recipe, tiny_store, tmp_path / "whole", "cpu", progress=False)
        stopped = pretrain(recipe, tiny_store, tmp_path / "stopped", "cpu", max_seconds=0, progress=False)
        for step in (1, 2, 3):  # each call makes one step
            assert checkpoint.load(stopped).state["step"] == step
            pretrain(recipe, tiny_store, stopped, "cpu", resume=True, max_seconds=0, progress=False)
        stopped = pretrain(recipe, tiny_store, stopped, "cpu", resume=True, progress=False)
    finally:
        torch.set_num_threads(threads)
    assert checkpoint.load(whole).state["step"] == 8
    same(checkpoint.load(stopped).state, checkpoint.load(whole).state)


@pytest.mark.usefixtures("small_networks")
def test_views_have_the_size_of_their_phase(tiny_recipe, tiny_store, tmp_path, monkeypatch):
    seen = []
    views = MomentumTeacher.views

    def recorded(self, *arguments):
        made = views(self, *arguments)
        seen.append(made[0].shape[-1])
        return made

    monkeypatch.setattr(MomentumTeacher, "views", recorded)
    monkeypatch.setattr("c2l_models.training.callbacks.draw_first_batch", lambda *_: None)
    recipe = replace(tiny_recipe, steps=5, early_sizes=(16, 24), early_shares=(0.4, 0.2), probe_every=0)
    pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    assert seen == [16, 16, 24, 32, 32]
