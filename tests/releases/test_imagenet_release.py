"""The converted release `resnet18.imagenet`: its origin, license, patients, and use offline."""

import hashlib
import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import c2l_models
from c2l_models import cli
from c2l_models.errors import C2LError
from c2l_models.publishing.convert import convert
from c2l_models.publishing.release_folder import write_release_folder
from c2l_models.releases.leakage import check_leakage
from c2l_models.releases.provenance import read_provenance
from c2l_models.releases.registry import default_weights

torch.set_num_threads(1)
NAME = "resnet18.imagenet"
SOURCE_SHA256 = "59292ac18a8d46151449b6d5a3132db4fa125f9a4e60c517d8ca7ccbfd9dc5af"


@pytest.fixture(scope="module")
def weights() -> c2l_models.Weights:
    return c2l_models.get_weights(NAME)


@pytest.fixture(scope="module")
def source() -> Path:
    """The file that was converted, if this machine has it."""
    path = Path(os.environ.get("C2L_DATA", "data")).parent / "weights" / "imagenet-resnet18.safetensors"
    if not path.is_file():
        pytest.skip(f"found no {path}, which was converted to {NAME}")
    return path


def test_it_is_never_the_default(weights: c2l_models.Weights) -> None:
    assert NAME in c2l_models.list_weights("resnet18")
    assert default_weights("resnet18").name != NAME


def test_the_provenance_names_the_source(weights: c2l_models.Weights) -> None:
    table = read_provenance(weights)
    assert table["conversion"]["sha256"] == SOURCE_SHA256
    assert SOURCE_SHA256 in weights.recipe
    assert "Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1" in table["origin"]
    assert weights.sha256 == table["sha256"] == hashlib.sha256(weights.path().read_bytes()).hexdigest()


def test_no_patient_was_seen(weights: c2l_models.Weights, tmp_path: Path) -> None:
    names = ["00001336_000.png", "9000099L.jpg", "chestxray14:00000003"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    found = check_leakage(tmp_path / "list.txt", weights)
    assert (found.seen, found.unlisted, found.all_judged) == ([], [], True)
    assert found.patients == {"not seen": 3}


def test_license_and_notices_go_with_every_copy(weights: c2l_models.Weights, tmp_path: Path, repository: Path) -> None:
    write_release_folder(weights, tmp_path / "first")
    write_release_folder(c2l_models.Weights.from_file(tmp_path / "first"), tmp_path / "copy")
    for folder in (tmp_path / "first", tmp_path / "copy"):
        text = (folder / "LICENSE").read_text()
        assert "The MIT License (MIT)" in text
        assert "Copyright (c) .NET Foundation and Contributors" in text
        assert "ML.NET uses third-party libraries" in (folder / "THIRD-PARTY-NOTICES.txt").read_text(encoding="utf-8")
        assert len((folder / "SHA256SUMS").read_text().splitlines()) == 6
    write_release_folder(weights, tmp_path / "first")  # a folder with notices is a release's, and is replaced
    assert '"c2l_models/releases/weights/*.txt"' in (repository / "pyproject.toml").read_text()


def test_one_line_embeds_a_users_films_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 130), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    cli.main(["embed", ".", "--model", NAME, "--device", "cpu"])
    table = c2l_models.Embeddings.load(tmp_path / "features.parquet")
    assert (table.features.shape, table.model) == ((1, 512), NAME)


@pytest.mark.parametrize("step", ["train", "check"])
def test_training_is_not_reproduced_because_there_was_none(step: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(SystemExit) as caught:
        cli.main(["reproduce", "release", NAME, "--data", str(tmp_path), "--out", str(tmp_path / "out"), f"--{step}"])
    assert caught.value.code
    from c2l_models.training.reproduce.release_metrics import check_trained_here

    with pytest.raises(C2LError, match="was converted, not trained here"):
        check_trained_here(c2l_models.get_weights(NAME))


def test_the_conversion_gives_the_same_bytes_again(weights: c2l_models.Weights, source: Path, tmp_path: Path) -> None:
    assert hashlib.sha256(source.read_bytes()).hexdigest() == SOURCE_SHA256
    done = convert(
        source,
        tmp_path / f"{NAME}.safetensors",
        "resnet18",
        size=weights.input_size[-1],
        license=weights.license,
        input_mean=weights.mean[0],
        input_std=weights.std[0],
        trained_on=weights.trained_on,
        patients="none",
    )
    assert done.sha256 == weights.sha256


def test_it_computes_the_sources_features_of_a_grey_image(weights: c2l_models.Weights, source: Path) -> None:
    """The oracle is torchvision's network on three channels with ImageNet's normalisation; the border differs."""
    original = torchvision.models.resnet18(weights=None)
    original.fc = torch.nn.Identity()
    counters = {key: value for key, value in original.state_dict().items() if key.endswith("num_batches_tracked")}
    original.load_state_dict({key: value.float() for key, value in load_file(source).items()} | counters)
    grey = torch.nn.functional.interpolate(
        torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(0)), (192, 192), mode="bicubic"
    ).clamp(0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        expected = original.eval()((grey - mean) / std)
        found = c2l_models.resnet18(weights=NAME, in_chans=1).eval()((grey - 0.5) / 0.25)
        flipped = original((grey - mean.flip(0)) / std.flip(0))  # channels in the wrong order
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(found, expected).min() > 0.995
    assert cosine(found, flipped).max() < cosine(found, expected).min()
