"""Ghost batch norm: each group of images has its own statistics, against plain arithmetic."""

import collections

import pytest
import torch
from batch_norm_network import by_hand, conv_norm, make_images
from oracles import networks as oracle
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from c2l_models.training.networks import (
    Encoder,
    batch_norm_in_one_call,
    buffers_kept,
    with_ghost_batch_norm,
)


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


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        ("resnet18", torch.float32),
        ("densenet121", torch.float32),
        ("test_resnet", torch.bfloat16),  # small, because many processors convolve bfloat16 slowly
    ],
    ids=str,
)
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
    # PyTorch 2.6 also keeps an empty tensor.
    activations = {storage: size for storage, size in kept if storage not in own and size}
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
