"""Momentum update, ShuffleBN and recalibration, against plain arithmetic."""

import copy

import pytest
import torch
import torchvision
from batch_norm_network import by_hand, conv_norm, make_images
from oracles import networks as oracle
from torch import nn
from torch.nn import functional

from c2l_models.training.networks import (
    Encoder,
    recalibrate_batch_norm,
    update_teacher,
    with_ghost_batch_norm,
    with_shuffle_bn,
)


def test_teacher_against_a_loop():
    student, teacher = conv_norm(0), conv_norm(1)
    buffers = {name: value.clone() for name, value in teacher.named_buffers()}
    student_before = copy.deepcopy(student.state_dict())
    expected = [
        oracle.momentum_update(t.flatten().tolist(), s.flatten().tolist(), 0.999)
        for t, s in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    student(make_images())  # the student's statistics must not reach the teacher
    update_teacher(teacher, student, 0.999)
    for p, values in zip(teacher.parameters(), expected, strict=True):
        assert p.flatten().tolist() == pytest.approx(values, rel=1e-13, abs=1e-15)
    for name, value in teacher.named_buffers():
        assert torch.equal(value, buffers[name]), name
    for name, value in student.named_parameters():
        assert torch.equal(value, student_before[name]), name


@pytest.mark.parametrize(("theta", "same_as"), [(0.0, "student"), (1.0, "teacher")])
def test_teacher_at_the_ends(theta, same_as):
    networks = {"student": conv_norm(0), "teacher": conv_norm(1)}
    expected = [p.clone() for p in networks[same_as].parameters()]
    update_teacher(networks["teacher"], networks["student"], theta)
    for p, q in zip(networks["teacher"].parameters(), expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-15, atol=1e-15)


def test_many_teacher_updates_in_float32():
    """A thousand steps of θ = 0.999 towards a fixed student leave θ^1000 of the distance."""
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(teacher.weight, 1.0)
    nn.init.constant_(student.weight, 0.0)
    for _ in range(1000):
        update_teacher(teacher, student, 0.999)
    assert teacher.weight.item() == pytest.approx(0.999**1000, rel=1e-4)


def test_shuffled_groups_come_back_in_order():
    class Passing(nn.Module):
        def forward(self, x):
            seen.append(x.flatten().tolist())
            return x

    seen: list[list[float]] = []
    x = torch.arange(20.0).unsqueeze(1)
    out = with_shuffle_bn(Passing(), x, 5, torch.Generator().manual_seed(0))
    assert torch.equal(out, x)
    (order,) = seen
    assert order != x.flatten().tolist()
    assert sorted(order) == x.flatten().tolist()


def test_shuffled_groups_use_the_shuffled_statistics():
    network, x = conv_norm(), make_images()
    batches: list[torch.Tensor] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0].detach()))
    out = with_shuffle_bn(network, x, 4, torch.Generator().manual_seed(3))
    hook.remove()
    groups = batches[0].split(4)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    members = [[next(i for i in range(12) if torch.equal(x[i], row)) for row in rows] for rows in groups]
    assert sorted(n for m in members for n in m) == list(range(12))
    assert {frozenset(m) for m in members} != {frozenset(range(n, n + 4)) for n in (0, 4, 8)}
    for m in members:
        torch.testing.assert_close(out[m], by_hand(network, x[m], mean, var), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network[1].running_mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network[1].running_var, var, rtol=1e-12, atol=1e-12)


def test_shuffles_differ_and_the_generator_decides():
    network, x = conv_norm(), make_images()
    generator = torch.Generator().manual_seed(0)
    first, second = (with_shuffle_bn(network, x, 4, generator) for _ in range(2))
    again = with_shuffle_bn(network, x, 4, torch.Generator().manual_seed(0))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_gradients_flow_through_the_shuffle():
    network, x = conv_norm(), make_images().requires_grad_()
    with_shuffle_bn(network, x, 4, torch.Generator().manual_seed(0))[5].sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(1).abs().sum(dim=1) > 0).sum() == 4  # the images of its own group only
    assert x.grad[5].abs().sum() > 0


def test_recalibration_against_all_activations():
    network = conv_norm()
    with_ghost_batch_norm(network, make_images(seed=7) * 3, 4)  # statistics of other images
    batches = list(make_images(40, seed=2).flip(0).roll(7, 0)[torch.randperm(40)].split(10))
    recalibrate_batch_norm(network, batches)
    norm = network[1]
    assert norm.num_batches_tracked == 4
    activations = [functional.conv2d(x, network[0].weight, network[0].bias) for x in batches]
    for channel in range(3):
        metrics = [oracle.mean_and_variance(y[:, channel].flatten().tolist()) for y in activations]
        assert norm.running_mean[channel].item() == pytest.approx(sum(f[0] for f in metrics) / 4, rel=1e-10)
        assert norm.running_var[channel].item() == pytest.approx(sum(f[2] for f in metrics) / 4, rel=1e-10)
        mean, _, var = oracle.mean_and_variance(torch.cat(activations)[:, channel].flatten().tolist())
        assert norm.running_mean[channel].item() == pytest.approx(mean, rel=1e-10)  # batches of one size
        assert norm.running_var[channel].item() == pytest.approx(var, rel=0.1)  # without the variance between batches


def test_recalibration_with_a_short_last_batch_weighs_images_alike():
    network = conv_norm()
    x = make_images(9, seed=4)
    recalibrate_batch_norm(network, x.split(8))  # the last batch holds one image
    y = functional.conv2d(x, network[0].weight, network[0].bias)
    expected = [oracle.mean_and_variance(y[:, channel].flatten().tolist())[0] for channel in range(3)]
    assert network[1].running_mean.tolist() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_leaves_the_rest_alone(training):
    network = conv_norm().train(training)
    network[1].momentum = 0.37
    before = [p.clone() for p in network.parameters()]
    recalibrate_batch_norm(network, make_images().split(6))
    assert all(module.training == training for module in network.modules())
    assert network[1].momentum == 0.37
    for p, expected in zip(network.parameters(), before, strict=True):
        assert torch.equal(p, expected)
        assert p.grad is None


@pytest.mark.parametrize(("architecture", "features"), [("resnet18", 512), ("densenet121", 1024)])
def test_encoder(architecture, features):
    encoder = Encoder(architecture, 16)
    assert encoder(torch.randn(2, 1, 32, 32)).shape == (2, 16)
    assert encoder.backbone(torch.randn(2, 1, 32, 32)).shape == (2, features)
    lengths = encoder(torch.randn(4, 1, 32, 32)).norm(dim=1)
    assert (lengths - 1).abs().min() > 1e-3  # not normalised: feature mixup comes first
    assert encoder.projection.weight.shape == (16, features)


@pytest.mark.parametrize(("network", "begins_at"), [("timm's", 0), ("torchvision's", 1)])
def test_a_random_resnets_residual_branches_begin_at_zero_as_in_timm(network, begins_at):
    """The paper does not say. torchvision's branches do not begin at zero."""
    found = Encoder("resnet18", 8).backbone if network == "timm's" else torchvision.models.resnet18()
    last = [module.weight for name, module in found.named_modules() if name.endswith("bn2")]
    assert len(last) == 8
    assert all(bool((weight == begins_at).all()) for weight in last)
