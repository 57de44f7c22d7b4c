"""The package's face: lazy, complete, and true to the architectures' names."""

import subprocess
import sys
from pathlib import Path

import pytest
import torchvision

import c2l_models
from c2l_models.architectures import ARCHITECTURES

CHECK = """
import sys, c2l_models
assert not {"torch", "timm", "torchvision", "numpy", "PIL", "safetensors"} & set(sys.modules)
assert c2l_models.list_models() and c2l_models.list_weights()
weights = c2l_models.get_weights(c2l_models.list_weights()[0])
assert weights.path().is_file() and c2l_models.__version__
assert not {"torch", "timm", "torchvision"} & set(sys.modules), "the registry imports torch"
"""


def test_importing_and_listing_load_no_torch(repository: Path) -> None:
    subprocess.run([sys.executable, "-c", CHECK], cwd=repository, check=True)


@pytest.mark.parametrize("name", c2l_models.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(c2l_models, name) is not None
    assert name in dir(c2l_models)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="resnet50"):
        _ = c2l_models.resnet50  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", c2l_models.list_models())
def test_the_ends_of_a_network_are_where_torchvision_has_them(name: str) -> None:
    model = getattr(torchvision.models, name)()
    architecture = ARCHITECTURES[name]
    assert model.get_submodule(architecture.first_conv).in_channels == 3
    assert model.get_submodule(architecture.classifier).in_features == architecture.num_features
    first, *_, last, _ = model.state_dict()
    assert (first, last) == (f"{architecture.first_conv}.weight", f"{architecture.classifier}.weight")
