"""Momentum update, ghost batch norm, ShuffleBN and recalibration, against plain arithmetic."""

import collections
import copy

import pytest
import torch
import torchvision
from oracles import networks as oracle
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from c2l_models.training.networks import (
    Encoder,
    batch_norm_in_one_call,
    buffers_kept,
    recalibrate_batch_norm,
    update_teacher,
    with_ghost_batch_norm,
    with_shuffle_bn,
)


def conv_norm(seed=0):
    """A convolution, batch norm, ReLU and a mean: [B, 1, S, S] -> [B, 3], training mode, float64."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def make_images(count=12, seed=1):
    """Images of different brightness and contrast, so that it matters which images share statistics."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.arange(count).view(-1, 1, 1, 1).double()
    return level + (1 + level) * torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)


def by_hand(network, x, running_mean, running_var):
    """The network's output with batch statistics, through torch's functional batch norm; updates the statistics."""
    conv, norm = network[0], network[1]
    y = functional.conv2d(x, conv.weight, conv.bias)
    y = functional.batch_norm(y, running_mean, running_var, norm.weight, norm.bias, training=True, momentum=0.1)
    return functional.relu(y).mean(dim=(2, 3))


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


@pytest.mark.parametrize("group", [3, 4, 6, 12])
def test_groups_have_statistics_of_their_own(group):
    network, x = conv_norm(), make_images()
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    expected = torch.cat([by_hand(network, rows, mean, var) for rows in torch.split(x, group)])
    torch.testing.assert_close(with_ghost_batch_norm(network, x, group), expected, rtol=1e-12, atol=1e-12)
    norm = network[1]
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_var, var, rtol=1e-12, atol=1e-12)


def test_groups_differ_from_the_whole_batch():
    network, x = conv_norm(), make_images()
    assert (with_ghost_batch_norm(network, x, 4) - network(x)).abs().max() > 0.1


def test_group_statistics_in_plain_numbers():
    """One channel, an identity convolution: each group's output has mean 0 and variance 1."""
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0, eps=1e-12)).double()
    x = make_images(8)
    out = with_ghost_batch_norm(network, x, 4)
    for first in (0, 4):
        mean, var, _ = oracle.mean_and_variance(x[first : first + 4].flatten().tolist())
        expected = [(value - mean) / var**0.5 for value in x[first : first + 4].flatten().tolist()]
        assert out[first : first + 4].flatten().tolist() == pytest.approx(expected, rel=1e-10)
    mean, _, unbiased = oracle.mean_and_variance(x[4:].flatten().tolist())
    assert network[0].running_mean.item() == pytest.approx(mean)  # momentum 1: the last group's
    assert network[0].running_var.item() == pytest.approx(unbiased)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_timms_networks_take_statistics_with_ghost_batch_norm(architecture):
    """Compared with each group alone, in float64: features, gradients and running statistics."""
    torch.manual_seed(0)
    one, two = Encoder(architecture, 16).double(), Encoder(architecture, 16).double()
    two.load_state_dict(one.state_dict())
    x = torch.randn(12, 1, 32, 32, dtype=torch.float64) * torch.arange(1.0, 13).view(-1, 1, 1, 1)
    ours, theirs = with_ghost_batch_norm(one, x, 4), torch.cat([two(rows) for rows in x.split(4)])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for features in (ours, theirs):
        features.square().sum().backward()
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-7, msg=name)
    for (name, statistic), other in zip(one.named_buffers(), two.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):  # it counts passes, and nothing reads it
            torch.testing.assert_close(statistic, other, rtol=1e-9, atol=1e-9, msg=name)


def test_groups_are_of_training_alone():
    network, x = conv_norm(), make_images()
    with_ghost_batch_norm(network, x, 4)
    network.eval()
    torch.testing.assert_close(with_ghost_batch_norm(network, x, 4), network(x), rtol=0, atol=0)


def one_after_the_other(group, x, mean, var, weight, bias, momentum, eps):
    """The oracle of `batch_norm_in_one_call`: torch's batch norm on each group alone."""
    settings = (mean, var, weight, bias, True, momentum, eps)
    return torch.cat([functional.batch_norm(rows, *settings) for rows in x.split(group)])


def normalised(norm, x, grad, group, momentum=0.1, affine=True, tracked=True):
    """Output, gradients of x, weight and bias, and running statistics, of one batch norm from fixed parameters."""
    generator = torch.Generator().manual_seed(3)
    channels = x.shape[1]
    values = [torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5 for _ in range(4)]
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    weight, bias = (value.clone().requires_grad_() if affine else None for value in values[:2])
    mean, var = (value.clone() if tracked else None for value in values[2:])
    out = norm(group, x, mean, var, weight, bias, momentum, 1e-5)
    out.backward(grad)
    found = {"out": out.detach(), "x": x.grad, "mean": mean, "var": var}
    return found | ({"weight": weight.grad, "bias": bias.grad} if affine else {})


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "neither": lambda x: x.transpose(2, 3),
}


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.37}, {"affine": False}, {"tracked": False}], ids=str)
def test_groups_in_one_call_are_as_one_after_the_other(group, layout, options):
    """In float64, on a map with odd sides."""
    x, grad = (LAYOUTS[layout](torch.randn(6, 5, 7, 3, dtype=torch.float64) * 3 + 1) for _ in range(2))
    found = normalised(batch_norm_in_one_call, x, grad, group, **options)
    expected = normalised(one_after_the_other, x, grad, group, **options)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=f"{name}: {found[name]} {value}")
    if layout == "channels_last" and group > 1:  # convolutions of the other layout are slow
        for name in ("out", "x"):
            assert found[name].is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (6, 5, 1, 1), (6, 1, 4, 4), (6, 5, 2, 3, 4)], ids=str)
def test_groups_in_one_call_of_every_shape(shape):
    x, grad = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    found, expected = (normalised(norm, x, grad, 2) for norm in (batch_norm_in_one_call, one_after_the_other))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_in_one_call_in_bfloat16(layout):
    """As under autocast: activations in bfloat16, parameters and statistics in float32."""
    x = LAYOUTS[layout](torch.randn(8, 4, 6, 6)).bfloat16()
    weight, bias, mean, var = (torch.rand(4) + 0.5 for _ in range(4))
    other_mean, other_var = mean.clone(), var.clone()
    out = batch_norm_in_one_call(2, x, mean, var, weight, bias, 0.1, 1e-5)
    expected = one_after_the_other(2, x, other_mean, other_var, weight, bias, 0.1, 1e-5)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=2**-7, atol=2**-7)  # one rounding to bfloat16
    torch.testing.assert_close(mean, other_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var, other_var, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_a_gpu_normalises_all_groups_of_a_layer_in_one_call(architecture):
    """Counted on the meta device, which takes the same way as a GPU."""
    with torch.device("meta"):
        network, x = Encoder(architecture, 16), torch.empty(12, 1, 32, 32)
    layers = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with CountedOperations() as counted:
        with_ghost_batch_norm(network, x, 4)
    assert counted.names["native_batch_norm"] == layers


class CountedOperations(TorchDispatchMode):
    """Counts the calls of each operation by name."""

    def __init__(self):
        super().__init__()
        self.names = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def learnt(encoder, x, checkpointed, precision=torch.float32):
    """Features and gradients of one pass in groups of 4, checkpointed or one by one, from the same random state."""
    encoder.zero_grad()
    torch.manual_seed(5)
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        features = (
            with_ghost_batch_norm(encoder, x, 4, True)
            if checkpointed
            else torch.cat([encoder(rows) for rows in x.split(4)])
        )
    torch.rand(7)  # draws between the passes do not change dropout
    features.float().square().sum().backward()
    return features.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters()}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
def test_checkpointed_groups_learn_the_same_to_the_bit(architecture, precision):
    torch.manual_seed(0)
    encoder = Encoder(architecture, 16, "mlp", projection_dropout=0.5)
    x = torch.randn(8, 1, 32, 32)
    features, gradients = learnt(encoder, x, False, precision)
    again, same_gradients = learnt(encoder, x, True, precision)
    assert torch.equal(again, features)
    assert (features == 0).float().mean() < 0.1
    for name, gradient in gradients.items():
        assert torch.equal(same_gradients[name], gradient), name
    assert max(gradient.abs().max() for gradient in gradients.values()) > 0


@pytest.mark.parametrize("checkpointed", [False, True])
def test_checkpointed_groups_keep_their_rows_alone(checkpointed):
    """With three groups only outputs are kept, and one group at a time is computed again, the last one first."""
    network, x, seen, kept = conv_norm(), make_images(12), [], set()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0, 0, 0].item()))

    def keep(tensor):
        kept.add((tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()))
        return tensor

    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = with_ghost_batch_norm(network, x, 4, checkpointed)
    out.sum().backward()
    activations = {storage: size for storage, size in kept if storage not in own}
    first = [x[n, 0, 0, 0].item() for n in (0, 4, 8)]
    if checkpointed:
        assert activations == {x.untyped_storage().data_ptr(): x.nbytes}
        assert seen == [*first, *reversed(first)]
    else:
        assert sum(activations.values()) > 3 * x.nbytes
        assert seen == first[:1]  # the whole batch at once


def test_a_second_pass_leaves_the_statistics_alone():
    network, x = conv_norm(), make_images()
    with_ghost_batch_norm(network, x, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with buffers_kept(network):
        with_ghost_batch_norm(network, x * 3, 4)
        assert network[1].num_batches_tracked == 2
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


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
