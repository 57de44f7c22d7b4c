"""The loss and the schedules by hand, learning rates per stage, and a frozen backbone."""

import inspect
import math
from pathlib import Path

import pytest
import torch

from c2l_models.errors import C2LError
from c2l_models.training.detection.detect import detect
from c2l_models.training.finetuning.finetune import finetune
from c2l_models.training.finetuning.network import make_optimizer, make_schedule, masked_bce, with_head
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.initialization import load_initialization

UNKNOWN = float("nan")


def test_the_loss_by_hand():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [1.0, UNKNOWN]])
    expected = (math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(1))) / 3
    loss = masked_bce(logits, targets)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert logits.grad[1, 1] == 0
    assert logits.grad[0, 1] == pytest.approx(1 / (1 + math.exp(-2)) / 3, rel=1e-6)


def test_nothing_known_costs_nothing():
    logits = torch.ones(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), UNKNOWN))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("architecture", "stages"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("densenet121", ["features.conv0", *(f"features.denseblock{n}" for n in (1, 2, 3, 4)), "classifier"]),
    ],
)
def test_a_stage_rate_is_a_share_of_the_next(architecture, stages):
    settings = Settings(lr=0.1, layer_decay=0.5, schedule="step", optimizer="sgd")
    network = with_head(load_initialization("random", architecture), 2, settings)
    optimizer = make_optimizer(network, settings)
    make_schedule(optimizer, settings, 30).step_update(0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rates: dict[str, set[float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            for stage in stages:
                if name.startswith(f"{stage}."):
                    rates.setdefault(stage, set()).add(round(group["lr"], 9))
            assert (group["weight_decay"] == 0) == (parameter.ndim == 1)
    assert not names  # each parameter once
    found = [rates[stage] for stage in stages]
    assert all(len(rate) == 1 for rate in found)
    values = [rate.pop() for rate in found]
    assert values == pytest.approx([0.1 * 0.5**n for n in (5, 4, 3, 2, 1, 0)])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_schedules_by_hand(optimizer):
    steps = 30
    for kind, expected in (
        ("cosine", lambda t: 0.1 * (1 + math.cos(math.pi * t / steps)) / 2),
        ("step", lambda t: 0.1 * 0.1 ** (t // 10)),
    ):
        settings = Settings(lr=0.1, schedule=kind, optimizer=optimizer)
        made = make_optimizer(with_head(load_initialization("random"), 1, settings), settings)
        schedule = make_schedule(made, settings, steps)
        for step in (0, 9, 10, 15, 29):
            schedule.step_update(step)
            assert [group["lr"] for group in made.param_groups] == [pytest.approx(expected(step))] * len(
                made.param_groups
            )


def test_a_frozen_start_trains_its_head_alone():
    network = with_head(load_initialization("random"), 3, Settings(frozen=True))
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    held = [p for group in make_optimizer(network, Settings(frozen=True)).param_groups for p in group["params"]]
    assert len(held) == 2


def test_a_head_follows_from_the_seed_and_disturbs_no_other_chance():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, again, other = (
        with_head(load_initialization("random"), 2, Settings(seed=seed)).fc.weight for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_sgd_has_nesterovs_momentum_as_its_setting_says():
    """Two steps on one weight whose gradient is 1: the first is lr (1 + 0.9), the second lr (1 + 0.9 (1 + 0.9))."""
    network = with_head(load_initialization("random"), 1, Settings())
    optimizer = make_optimizer(network, Settings(optimizer="sgd", lr=0.1, weight_decay=0.0))
    bias = network.fc.bias
    before = bias.item()
    for moved in (0.1 * 1.9, 0.1 * 1.9 + 0.1 * (1 + 0.9 * 1.9)):
        bias.grad = torch.ones(1)
        optimizer.step()
        assert before - bias.item() == pytest.approx(moved, rel=1e-5)
    assert "Nesterov" in Path(inspect.getfile(Settings)).read_text(encoding="utf-8")


def test_pixels_cannot_be_trained(store, tmp_path):
    for train in (
        lambda out: finetune("pixels", store, "folder", out, Settings(), progress=False),
        lambda out: detect("pixels", tmp_path / "challenge", out, progress=False),
    ):
        with pytest.raises(C2LError, match=r"weights of a network to train, found 'pixels'.*choose 'random'"):
            train(tmp_path / "out")
        assert not (tmp_path / "out").exists()
