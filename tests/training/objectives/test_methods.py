"""The table of methods: the recipe keys that each method accepts, and a new method in one file and one line."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

from c2l_models.errors import RecipeError
from c2l_models.training.methods import METHODS, MethodEntry
from c2l_models.training.objectives import build
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.pretrain import pretrain
from c2l_models.training.recipe import Objective, Recipe
from c2l_models.training.run_files import checkpoint, log

NEW_METHOD = '''
"""Denoising: a linear backbone whose features should tell how bright a view is."""

from typing import NamedTuple

import torch
from torch import nn

from c2l_models.training.augment import clean_view
from c2l_models.training.objectives.method import Method, Panel


class Loss(NamedTuple):
    total: torch.Tensor


class Step(NamedTuple):
    loss: Loss
    brightness: torch.Tensor

    def metrics(self):
        return {"loss": self.loss.total, "brightness": self.brightness}


class Denoising(Method):
    PANELS = (Panel("loss", {"loss": "squared error"}), Panel("views", {"brightness": "mean brightness"}))

    def __init__(self, recipe, generator, world):
        super().__init__(recipe, world)
        self.student = nn.Module()
        self.student.backbone = nn.Sequential(nn.Flatten(), nn.Linear(recipe.size**2, 3))
        self.networks = (self.student.backbone,)

    def views(self, batch, generator, draws):
        view = clean_view(batch, self.recipe.size, self.recipe.mean, self.recipe.std)
        noise = torch.randn(view.shape, generator=generator)
        return view + 0.1 * noise, view

    def forward(self, noisy, view, generator):
        brightness = view.mean(dim=(1, 2, 3))
        error = self.student.backbone(noisy).mean(dim=1) - brightness
        return Step(Loss(error.square().mean()), brightness.mean())

    def columns(self, images, views, generator):
        return [self.column("noisy view", "for the network", views[0])]
'''


@pytest.fixture
def denoising(monkeypatch):
    """Add the new method: a file in the package, and a line in the table."""
    module = ModuleType("c2l_models.training.objectives.denoising")
    exec(NEW_METHOD, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS, "denoising", MethodEntry("denoising.Denoising"))


@pytest.mark.usefixtures("denoising")
def test_a_new_method_is_one_file_and_one_line(tiny_recipe, tiny_store, tmp_path):
    recipe = replace(
        tiny_recipe, method="denoising", log_every=5, probe_every=0, optimizer=replace(tiny_recipe.optimizer, lr=0.01)
    )
    folder = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", progress=False)
    lines = log.read(folder)
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[1]["loss"] < lines[0]["loss"]
    assert "brightness" in lines[0]
    for picture in ("curves.png", "first_batch.png"):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 300
    assert set(checkpoint.load(folder).state["method"]) == {"student.backbone.1.weight", "student.backbone.1.bias"}


@pytest.mark.usefixtures("denoising")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exported": "teacher"}, "exported.*denoising has no teacher"),
        ({"views": "once"}, "views.*denoising draws its views at each step"),
        ({"objective": Objective(mixup="separate")}, r"method.*c2l, because a key of \[objective\] is set"),
    ],
)
def test_a_recipe_may_not_set_what_its_method_ignores(change, message):
    Recipe("new", method="denoising")
    with pytest.raises(RecipeError, match=message):
        Recipe("new", method="denoising", **change)


def test_an_unknown_method_is_refused():
    with pytest.raises(RecipeError, match=r"method.*one of c2l, moco, model_genesis"):
        Recipe("unknown", method="byol")


def test_the_queues_length_is_asked_only_of_methods_with_a_queue():
    with pytest.raises(RecipeError, match="queue_length"):
        Recipe("short", method="moco", queue_length=100)
    assert Recipe("none", method="model_genesis", queue_length=100).queue_length == 100


def test_the_method_itself_refuses_an_ablation():
    recipe = Recipe("ablation", objective=Objective(terms=("clean",)))
    with pytest.raises(RecipeError, match="objective"):
        C2L(recipe)


@pytest.mark.parametrize("name", METHODS)
def test_the_table_says_whether_a_method_has_a_teacher_and_a_queue(name):
    method = build(Recipe("small", method=name, batch_size=32, queue_length=96, feature_dim=4))
    entry = METHODS[name]
    assert hasattr(method, "teacher") == entry.has_teacher
    assert hasattr(method, "queue") == entry.has_queue
    assert isinstance(method.student.backbone, nn.Module)
    keys = set(method.state_dict())
    parts = {key.partition(".")[0] for key in keys} - {"target_mean", "target_std"}  # the last two: of a distillation
    assert parts == {"student"} | ({"teacher", "queue"} if entry.has_teacher else set())
    assert all(isinstance(value, torch.Tensor) for value in method.state_dict().values())
