"""The golden embedding: this machine computes the features that were recorded with a release."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from c2l_models import list_weights
from c2l_models.errors import WeightsCorrupted, WeightsNotFound
from c2l_models.releases import registry
from c2l_models.releases.record import Weights, save_weights
from c2l_models.releases.registry import get_weights
from c2l_models.verification import TOLERANCE, golden_embedding, golden_image, verify

torch.set_num_threads(1)


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder of a registry with one release, `resnet18.a`, and its provenance."""
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=0, in_chans=1, zero_init_last=False)
    config = {"architecture": "resnet18", "tag": "a", "mean": 0.4, "std": 0.2, "recipe": "none"}
    path = folder / "resnet18.a.safetensors"
    digest = save_weights(path, model.state_dict(), config | {"input_size": [3, 64, 64], "trained_on": []})
    (tmp_path / "releases.toml").write_text(
        f'[resnet18.a]\nfile = "{path.name}"\nsha256 = "{digest}"\nnum_params = 11176512\n'
        "mean = [0.4, 0.4, 0.4]\nstd = [0.2, 0.2, 0.2]\ninput_size = [3, 64, 64]\n"
        'trained_on = []\nrecipe = "none"\nlicense = "Apache-2.0"\n'
    )
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "releases.toml")
    # The one-channel original, not the file: independent of how weights are stored and loaded.
    golden = golden_embedding(model, Weights.from_file(path))
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest, "golden_embedding": golden}))
    return folder


@pytest.mark.parametrize("name", list_weights())
def test_every_shipped_release_computes_here_what_it_computed(name: str) -> None:
    found = verify(name)
    assert found.ok
    assert found.sha256_ok
    assert found.max_difference <= TOLERANCE
    assert found.cosine > 0.99999


def test_float16_rounding_is_within_a_percent(released: Path) -> None:
    found = verify("resnet18.a")
    assert found.sha256_ok
    assert 0 < found.max_difference < 1e-2
    assert found.cosine > 0.9999


def test_another_embedding_is_not_ok(released: Path) -> None:
    provenance = released / "resnet18.a.json"
    content = json.loads(provenance.read_text())
    golden = content["golden_embedding"]
    golden[7] += 0.1 * max(golden)
    provenance.write_text(json.dumps(content))
    found = verify("resnet18.a")
    assert (found.sha256_ok, found.ok) == (True, False)
    assert found.max_difference == pytest.approx(0.1, rel=0.1)


def test_changed_bytes_are_told_and_not_loaded(released: Path) -> None:
    path = get_weights("resnet18.a").path()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = verify("resnet18.a")
    assert (found.sha256_ok, found.max_difference, found.ok) == (False, math.inf, False)


def test_a_release_without_golden_embedding_or_file(released: Path) -> None:
    (released / "resnet18.a.json").write_text(json.dumps({"sha256": get_weights("resnet18.a").sha256}))
    with pytest.raises(WeightsNotFound, match=r"resnet18\.a\.json"):
        verify("resnet18.a")
    (released / "resnet18.a.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"resnet18\.a\.safetensors"):
        verify("resnet18.a")


def test_another_fault_than_the_hash_is_told_as_such(released: Path) -> None:
    table, path = released.parent / "releases.toml", released / "resnet18.a.safetensors"
    text = table.read_text()
    tensors = load_file(path)
    del tensors["bn1.weight"]
    save_file(tensors, path)
    before, digest = get_weights("resnet18.a").sha256, hashlib.sha256(path.read_bytes()).hexdigest()
    table.write_text(text.replace(before, digest))
    provenance = path.with_suffix(".json")
    provenance.write_text(provenance.read_text().replace(before, digest))
    with pytest.raises(WeightsCorrupted, match=r"does not fit resnet18.*bn1\.weight"):
        verify("resnet18.a")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(WeightsCorrupted, match="git lfs pull"):
        verify("resnet18.a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"golden_embedding": [0.1', "damaged"),
        ('["golden_embedding"]', "damaged"),
        ('{"sha256": "SHA256", "golden_embedding": 1}', "damaged"),
        ('{"sha256": "SHA256", "golden_embedding": [null]}', "damaged"),
        (
            '{"sha256": "SHA256", "golden_embedding": [0.1, 0.2]}',
            "damaged, expected a golden_embedding of 512 numbers, found 2",
        ),
    ],
)
def test_a_damaged_provenance_is_told(released: Path, content: str, message: str) -> None:
    (released / "resnet18.a.json").write_text(content.replace("SHA256", get_weights("resnet18.a").sha256))
    with pytest.raises(WeightsCorrupted, match=rf"resnet18\.a\.json: {message}"):
        verify("resnet18.a")


@pytest.mark.parametrize("size", [64, 100, 128])
def test_the_golden_image_is_integer_arithmetic(size: int) -> None:
    image = golden_image(size)
    assert (image.mode, image.size) == ("L", (size, size))
    for column, row in ((0, 0), (3, 50), (size - 1, 17), (size - 1, size - 1)):
        x, y = column * 256 // size, row * 256 // size
        rings = ((x - 96) * (x - 96) + (y - 144) * (y - 144)) // 96 % 256
        assert image.getpixel((column, row)) == (rings + 2 * x + y) // 4


def test_the_embedding_is_of_evaluation_mode_and_leaves_the_mode(released: Path) -> None:
    weights = get_weights("resnet18.a")
    model = timm.create_model("resnet18", num_classes=0, zero_init_last=False).train()
    found = golden_embedding(model, weights)
    assert model.training
    pixels = torch.tensor(list(Image.Image.tobytes(golden_image(64))), dtype=torch.float32).view(1, 1, 64, 64)
    with torch.inference_mode():
        wanted = model.eval()(((pixels / 255 - 0.4) / 0.2).repeat(1, 3, 1, 1))[0]
    torch.testing.assert_close(torch.tensor(found), wanted, rtol=1e-5, atol=1e-5)
