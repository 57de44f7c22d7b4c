"""A small network with batch norm, and images that show which of them share statistics."""

import torch
from torch import nn
from torch.nn import functional


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
