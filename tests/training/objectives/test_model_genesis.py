"""Model Genesis: its loss image by image, its gradients, and a whole run up to an exported weight file."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import same
from torch import Tensor, nn

import c2l_models
from c2l_models.errors import RecipeError, RunError
from c2l_models.radiographs import phantom
from c2l_models.training.distributed import World
from c2l_models.training.objectives import build, model_genesis
from c2l_models.training.objectives.corruption import corrupted_and_original
from c2l_models.training.objectives.model_genesis import ModelGenesis, Restorer
from c2l_models.training.pretrain import pretrain, train_step
from c2l_models.training.recipe import Objective, Recipe, Restoration
from c2l_models.training.recipe_files import from_dict
from c2l_models.training.run_files import checkpoint, log
from c2l_models.training.run_files.backbone import export_run
from c2l_models.training.run_files.first_batch import draw_first_batch, first_batch_columns

RECIPE = Recipe("g", method="model_genesis", size=32, batch_size=8, batch_norm_group=4, mean=0.4, std=0.3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(count=8, side=40, seed=5):
    return torch.randint(256, (count, 1, side, side), dtype=torch.uint8, generator=seeded(seed))


@pytest.fixture
def method():
    torch.manual_seed(0)
    return build(RECIPE)


def test_the_loss_image_by_image(method):
    """In evaluation mode images are independent: the loss is the mean of numpy's losses of single images."""
    assert type(method) is ModelGenesis
    corrupted, whole = method.views(make_images(), seeded())
    method.eval()
    step = method(corrupted, whole, seeded())
    errors, given = [], []
    for view, target in zip(corrupted, whole, strict=True):
        logits = method.student(view[None])[0].detach().double().numpy()
        errors.append(np.mean((1 / (1 + np.exp(-logits)) - target.numpy()) ** 2))
        given.append(np.mean((0.3 * view.numpy() + 0.4 - target.numpy()) ** 2))
    assert step.loss.total.item() == pytest.approx(np.mean(errors), rel=1e-5)
    assert {name: value.item() for name, value in step.metrics().items()} == {
        "loss": step.loss.total.item(),
        "given": pytest.approx(np.mean(given), rel=1e-5),
    }
    assert np.std(errors) > 0.01 * np.mean(errors)  # else a wrong mean would pass


def test_groups_are_normalised_apart_and_processes_see_the_same(method):
    corrupted, whole = method.views(make_images(), seeded())
    halves = [method(corrupted[rows], whole[rows], seeded()).loss.total for rows in (slice(4), slice(4, 8))]
    together = method(corrupted, whole, seeded()).loss.total
    torch.testing.assert_close(together, sum(halves) / 2)
    for rank in range(2):
        own = slice(4 * rank, 4 * rank + 4)
        views = ModelGenesis(RECIPE, world=World(rank, 2)).views(make_images()[own], seeded())
        assert torch.equal(views[0], corrupted[own])
        assert torch.equal(views[1], whole[own])


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_every_parameter_learns(architecture):
    torch.manual_seed(0)
    method = build(replace(RECIPE, size=64, architecture=architecture))
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm initializes residual blocks as the identity
    views = method.views(make_images(4), seeded())
    method(*views, seeded()).loss.total.backward()
    still = [name for name, p in method.student.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


@pytest.mark.parametrize("size", [32, 40, 67])
def test_the_restored_view_has_the_views_side(size):
    restorer = Restorer("resnet18").eval()
    assert restorer(torch.randn(1, 1, size, size)).shape == (1, 1, size, size)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_the_maps_are_timms(architecture):
    backbone = Restorer(architecture).backbone.eval()
    x = torch.randn(1, 1, 64, 64, generator=seeded())
    found = model_genesis.maps(backbone, x)
    assert [made.shape[1] for made in found] == [level["num_chs"] for level in backbone.feature_info]
    assert [made.shape[2] for made in found] == [32, 16, 8, 4, 2]
    torch.testing.assert_close(found[-1].mean(dim=(2, 3)), backbone(x))
    if hasattr(backbone, "forward_intermediates"):  # missing in older versions of timm's DenseNet
        same(found, backbone.forward_intermediates(x, intermediates_only=True))


def test_the_decoder_takes_what_the_probe_pools():
    restorer = Restorer("resnet18").eval()
    x = torch.randn(2, 1, 64, 64, generator=seeded())
    taken, made = [], []
    for up in restorer.decoder:
        up.register_forward_pre_hook(lambda _, maps: taken.append(maps))
    for layer in (restorer.backbone.layer1, restorer.backbone.layer2, restorer.backbone.layer3):
        layer.register_forward_hook(lambda _, __, result: made.insert(0, result))
    restorer(x)
    coarse, fine = zip(*taken, strict=True)
    assert [maps.shape[2] for maps in coarse] == [2, 4, 8, 16, 32]
    assert [maps.shape[2] for maps in fine] == [4, 8, 16, 32, 64]
    assert all(map(torch.equal, fine, made))  # the skip connections from 1/16 to 1/4
    torch.testing.assert_close(coarse[0].mean(dim=(2, 3)), restorer.backbone(x))


def test_bfloat16_is_the_networks_alone():
    torch.manual_seed(0)
    method = build(replace(RECIPE, precision="bfloat16"))
    step = method(*method.views(make_images(), seeded()), seeded())
    assert step.loss.total.dtype == torch.float32
    torch.manual_seed(0)
    exact = build(RECIPE)
    expected = exact(*exact.views(make_images(), seeded()), seeded()).loss.total
    torch.testing.assert_close(step.loss.total, expected, rtol=0.05, atol=0)
    assert step.loss.total != expected


def test_a_few_steps_on_phantoms(method):
    """The loss falls on images of phantoms, which have shapes."""
    batch = torch.stack([torch.from_numpy(film.pixels) for film in phantom.films(8, seed=0, size=48)])[:, None]
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.3, momentum=0.9)
    metrics = [train_step(method, optimizer, batch, seeded(step)).metrics() for step in range(10)]
    losses = [step["loss"].item() for step in metrics]
    assert np.mean(losses[-3:]) < 0.85 * losses[0]  # 0.78 with the oldest versions of torch and timm


def test_sound(method):
    assert method.plausible({"loss": torch.tensor([0.1, math.nan, math.inf])}).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"objective": Objective(shuffle_bn=False)}, "method"),
        ({"method": "moco", "restoration": Restoration(bend=0.5)}, "method"),
        ({"views": "once"}, "views"),
        ({"exported": "teacher"}, "exported"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(changes, key):
    with pytest.raises(RecipeError, match=f"^{key}: expected .*, found "):
        replace(RECIPE, **changes)


def test_a_recipe_in_a_file_keeps_its_restoration():
    recipe = replace(RECIPE, restoration=Restoration(blocks=2, inside_side=(0.1, 0.2)))
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_first_batch_is_shown_as_the_step_sees_it(method, tmp_path):
    columns = first_batch_columns(make_images(), method, seeded(3), count=3)
    corrupted, whole = corrupted_and_original(make_images(), RECIPE, seeded(3))
    shown = [make_images()[:3] / 255, whole[:3], corrupted[:3] * 0.3 + 0.4]
    assert [column.title for column in columns] == ["film", "original view", "corrupted view"]
    for column, expected in zip(columns, shown, strict=True):
        torch.testing.assert_close(column.images, expected)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert draw_first_batch(tmp_path / "first.png", make_images(), method, seeded(3)).stat().st_size > 1000
    same(dict(method.state_dict()), before)


class SmallRestorer(nn.Module):
    """A small network in place of the U-Net, for tests that are not about its cost."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        pool = (nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *pool)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone[:3](x))


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return replace(tiny_recipe, method="model_genesis")


@pytest.fixture(scope="module")
def whole_run(recipe, tiny_store, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_genesis, "Restorer", SmallRestorer)
        return pretrain(recipe, tiny_store, tmp_path_factory.mktemp("genesis") / "whole", "cpu", progress=False)


def test_a_run_stopped_and_resumed_is_the_run_that_went_through(recipe, tiny_store, whole_run, tmp_path, monkeypatch):
    monkeypatch.setattr(model_genesis, "Restorer", SmallRestorer)
    stopped = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    assert checkpoint.load(stopped).state["step"] == 1
    pretrain(recipe, tiny_store, stopped, "cpu", resume=True, progress=False)
    ends = [checkpoint.load(folder).state for folder in (whole_run, stopped)]
    assert ends[0]["step"] == 10
    for part in ("method", "optimizer"):
        same(ends[0][part], ends[1][part])


def test_a_runs_log_and_pictures(whole_run):
    lines = log.read(whole_run)
    train = [line for line in lines if line["kind"] == "train"]
    assert {"loss", "given", "lr"} <= train[0].keys()
    assert "top1" not in train[0]
    probe = next(line for line in lines if line["kind"] == "probe")
    assert 0 <= probe["folder"] <= 1
    assert (whole_run / "first_batch.png").is_file()
    assert (whole_run / "curves.png").is_file()


def test_an_export_is_the_encoder_alone(recipe, tiny_store, tmp_path):
    run = pretrain(recipe, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    path = export_run(run, tmp_path / "genesis.safetensors", tiny_store)
    model = c2l_models.resnet18(weights=path, in_chans=1)
    state = checkpoint.load(run).state["method"]
    own = model.state_dict()["layer4.1.conv2.weight"]
    torch.testing.assert_close(own, state["student.backbone.layer4.1.conv2.weight"], rtol=1e-3, atol=1e-4)
    assert model.eval()(torch.randn(1, 1, 32, 32)).shape == (1, 512)
    with pytest.raises(RunError, match="model_genesis, which has no teacher"):
        export_run(run, tmp_path / "teacher.safetensors", tiny_store, teacher=True)
