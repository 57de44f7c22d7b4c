"""docs/libraries.md: its snippets run in order; those that need MONAI, torchxrayvision or transformers where installed.

The conversions of pixel ranges are also compared with the libraries' formulas, written out here.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from c2l_models import cli
from c2l_models.releases.registry import default_weights

pytestmark = pytest.mark.training
LIBRARIES = ("transformers", "monai", "torchxrayvision")


@pytest.fixture(scope="module")
def names(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's snippets define, after all of them have run."""
    defined: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("page")
    page = (repository / "docs" / "libraries.md").read_text(encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("C2L_PATIENT_KEY", str(folder / "key"))
        for kind, block in re.findall(r"^```(bash|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
            if kind == "bash":
                cli.main(block.split()[1:])
            elif all(find_spec(name) for name in LIBRARIES if re.search(rf"(from|import) {name}\b", block)):
                exec(compile(block, "docs/libraries.md", "exec"), defined)
    return defined | {"folder": folder}


def network_input(pixels: np.ndarray) -> Tensor:
    """The input of the default release of a square image of its side, uint8 [S, S]: the formula of the page."""
    return torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5) / 0.25)[None]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """An image of the default release's side with every value, not symmetric: uint8 [S, S]."""
    side = default_weights("resnet18").input_size[-1]
    return np.random.default_rng(0).permutation(np.arange(side * side) % 256).astype(np.uint8).reshape(side, side)


def test_shapes_of_a_batch_and_of_feature_maps(names: dict[str, Any]) -> None:
    side = default_weights("resnet18").input_size[-1]
    assert (names["images"].shape, names["images"].dtype) == ((16, 1, side, side), torch.float32)
    assert (names["labels"].shape, names["rows"].shape) == ((16, 1), (16,))
    assert names["features"].shape == (16, 512)
    assert set(names["rows"].tolist()) <= set(names["store"].select(split="train").tolist())
    assert names["channels"] == [64, 128, 256, 512] == [one.shape[1] for one in names["maps"]]
    assert [side / one.shape[-1] for one in names["maps"]] == [4, 8, 16, 32]


def test_the_range_of_torchxrayvision(names: dict[str, Any], pixels: np.ndarray) -> None:
    theirs = ((2 * (pixels.astype(np.float32) / 255) - 1.0) * 1024)[None]  # its datasets.normalize, version 1.5.7
    assert (theirs.min(), theirs.max()) == (-1024, 1024)
    for image in (theirs, torch.from_numpy(theirs)):
        torch.testing.assert_close(names["from_torchxrayvision"](image), network_input(pixels), rtol=0, atol=1e-6)


def test_the_axes_and_the_range_of_monai(names: dict[str, Any], pixels: np.ndarray) -> None:
    theirs = torch.from_numpy(pixels.T.astype(np.float32))[None]  # LoadImage: width before height
    torch.testing.assert_close(names["from_monai"](theirs), network_input(pixels), rtol=0, atol=1e-6)


def test_monai_reads_as_its_formula_here(names: dict[str, Any], pixels: np.ndarray, tmp_path: Path) -> None:
    monai = pytest.importorskip("monai")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    theirs = monai.transforms.LoadImage(image_only=True, ensure_channel_first=True)(tmp_path / "a.png")
    torch.testing.assert_close(torch.as_tensor(names["from_monai"](theirs)), network_input(pixels), rtol=0, atol=1e-6)
    side = len(pixels)
    assert names["augmented"].shape == (1, side, side)


def test_torchxrayvision_normalizes_as_its_formula_here(names: dict[str, Any], pixels: np.ndarray) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    theirs = xrv.datasets.normalize(pixels, 255)[None]
    torch.testing.assert_close(names["from_torchxrayvision"](theirs), network_input(pixels), rtol=0, atol=1e-6)
    assert names["theirs"].shape == (1, 224, 224)
    own = names["transform"](names["folder"] / names["films"][0])
    # The film is resampled twice: to 224 pixels by theirs, then by ours.
    assert torch.corrcoef(torch.stack([names["ours"].flatten(), own.flatten()]))[0, 1] > 0.98


def test_transformers_computes_the_same_features(names: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    with torch.inference_mode():
        own = names["model"](names["images"])
        wrapped = names["wrapped"](names["images"].repeat(1, 3, 1, 1)).pooler_output
    torch.testing.assert_close(wrapped.flatten(1), own, rtol=1e-4, atol=1e-4)
