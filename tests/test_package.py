"""The public names: imported lazily, complete, and one builder per architecture."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import c2l_models
from c2l_models.architectures import ARCHITECTURES, Architecture

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


def test_editors_and_type_checkers_see_a_builder_for_every_architecture() -> None:
    tree = ast.parse(Path(c2l_models.__file__).read_text(encoding="utf-8"))
    lines = [
        node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Builder"
    ]
    assert [ast.unparse(node.target) for node in lines] == c2l_models.list_models()


def test_one_entry_adds_an_architecture(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setitem(ARCHITECTURES, "resnet34", Architecture("ResNet-34", "conv1", "bn1", "fc", 512))
    try:
        hub = runpy.run_path(str(repository / "hubconf.py"))
        assert "resnet34" in c2l_models.list_models()
        for build in (c2l_models.resnet34, hub["resnet34"]):
            assert build(in_chans=1).eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 512)
        assert build.__name__ == "resnet34"
        assert "ResNet-34: radiographs [B, in_chans, H, W] to features [B, 512]." in (build.__doc__ or "")
    finally:
        vars(c2l_models).pop("resnet34", None)
