"""A normalisation folded into the first layers computes the same features, except at the border."""

import pytest
import timm
import torch

from c2l_models.errors import C2LError, WeightsCorrupted
from c2l_models.publishing.normalisation import IMAGENET_MEAN, IMAGENET_STD, fold_normalisation

ONTO_MEAN, ONTO_STD = 0.5, 0.25


@pytest.fixture(scope="module", params=["resnet18", "densenet121"])
def pair(request):
    """A random network for three channels with ImageNet's normalisation, and the folded network."""
    torch.manual_seed(0)
    network = timm.create_model(request.param, num_classes=0).eval()
    for norm in network.modules():  # statistics other than the initial 0 and 1
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2)
    folded = timm.create_model(request.param, num_classes=0, in_chans=1).eval()
    folded.load_state_dict(
        fold_normalisation(network.state_dict(), request.param, IMAGENET_MEAN, IMAGENET_STD, ONTO_MEAN, ONTO_STD)
    )
    return network, folded


@pytest.fixture(scope="module")
def inputs():
    """Smooth grey images [2, 1, 96, 96] in [0, 1], normalised for each of the two networks."""
    torch.manual_seed(1)
    small = torch.rand(2, 1, 6, 6)
    grey = torch.nn.functional.interpolate(small, (96, 96), mode="bicubic").clamp(0, 1)
    rgb = grey.expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb - mean) / std, (grey - ONTO_MEAN) / ONTO_STD


def first_layers(network, images):
    """The output of the first convolution and its batch norm."""
    if hasattr(network, "conv1"):
        return network.bn1(network.conv1(images))
    return network.features.norm0(network.features.conv0(images))


@torch.inference_mode()
def test_the_interior_is_the_same_function(pair, inputs):
    three, one = (first_layers(network, images) for network, images in zip(pair, inputs, strict=True))
    inside = (..., slice(2, -2), slice(2, -2))  # a 7 x 7 kernel of stride 2 reads padding for the two outermost outputs
    torch.testing.assert_close(one[inside], three[inside], rtol=1e-4, atol=1e-4)
    assert (one - three).abs().max() > 1e-2  # at the border, padding represents another grey


@torch.inference_mode()
def test_features_are_close(pair, inputs):
    three, one = (network(images) for network, images in zip(pair, inputs, strict=True))
    assert torch.nn.functional.cosine_similarity(three, one).min() > 0.99


def test_by_hand():
    """Two channels, a 1 x 1 kernel: 2 (i - 0.4) / 0.5 + 3 (i - 0.6) / 0.2 with i = 0.1 z + 0.5."""
    state = {"conv1.weight": torch.tensor([2.0, 3.0]).view(1, 2, 1, 1), "bn1.running_mean": torch.tensor([7.0])}
    folded = fold_normalisation(state, "resnet18", (0.4, 0.6), (0.5, 0.2), 0.5, 0.1)
    torch.testing.assert_close(folded["conv1.weight"], torch.tensor(1.9).view(1, 1, 1, 1))  # 0.2 / 0.5 + 0.3 / 0.2
    torch.testing.assert_close(folded["bn1.running_mean"], torch.tensor([7.0 + 1.1]))  # 7 - (0.4 - 1.5)
    assert state["conv1.weight"].shape == (1, 2, 1, 1)


def test_what_does_not_fit_is_refused():
    state = {"conv1.weight": torch.zeros(4, 3, 7, 7), "bn1.running_mean": torch.zeros(4)}
    with pytest.raises(C2LError, match="3 channels of conv1"):
        fold_normalisation(state, "resnet18", (0.5,), (0.2,), 0.5, 0.25)
    with pytest.raises(C2LError, match="expected one mean and one std above 0"):
        fold_normalisation(state, "resnet18", IMAGENET_MEAN, (0.2, 0.0, 0.2), 0.5, 0.25)
    with pytest.raises(WeightsCorrupted, match="no bn1"):
        fold_normalisation({"conv1.weight": state["conv1.weight"]}, "resnet18", IMAGENET_MEAN, IMAGENET_STD, 0.5, 0.25)
