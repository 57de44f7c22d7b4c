"""Checkpoints of others: converted weights compute the same features as the modules that the checkpoint came from."""

import argparse
import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import c2l_models
from c2l_models.errors import C2LError, WeightsCorrupted
from c2l_models.publishing.convert import convert
from c2l_models.publishing.safe_pickle import SAFE_TORCH
from c2l_models.releases.record import Weights
from c2l_models.verification import golden_image

torch.set_num_threads(1)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH, reason="read_tensors refuses this torch"
)


@cache
def network(architecture: str, seed: int) -> nn.Module:
    """torchvision's network with batch-norm statistics like a trained network's. Tests must not change it."""
    torch.manual_seed(seed)
    built = getattr(torchvision.models, architecture)(weights=None, num_classes=128)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return built.eval()


class Authors(nn.Module):
    """The networks of the paper's code: a DataParallel inside a wrapper module."""

    def __init__(self, architecture: str, seed: int) -> None:
        super().__init__()
        name = {"resnet18": "encoder", "densenet121": "densenet121"}[architecture]
        self.add_module(name, nn.DataParallel(network(architecture, seed)))


class MoCo(nn.Module):
    """Two encoders with projection heads, and a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = deepcopy(network("resnet18", 0)), deepcopy(network("resnet18", 1))
        for encoder in (self.encoder_q, self.encoder_k):
            encoder.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), encoder.fc)
        self.register_buffer("queue", torch.randn(128, 8))


class Lightly(nn.Module):
    """A backbone made of a torchvision network's children, with a momentum copy."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        self.backbone, self.backbone_momentum = (
            nn.Sequential(*list(network(architecture, seed).children())[:-1]) for seed in (0, 1)
        )
        self.projection_head = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.Linear(512, 128))


def authors_file(architecture: str, path: Path, legacy: bool = False) -> Path:
    student, teacher = Authors(architecture, 0), Authors(architecture, 1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.03, momentum=0.9)
    content = {
        "opt": argparse.Namespace(lr_decay_epochs=[120, 160, 200], model="resnet18", softmax=True),
        "model": student.state_dict(),
        "contrast": {"params": torch.tensor([-1]), "memory": torch.randn(16, 128)},
        "optimizer": optimizer.state_dict(),
        "epoch": 240,
        "model_ema": teacher.state_dict(),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(x)


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    """Blurred noise in 0..1, [2, 1, 96, 96], without a frame."""
    noise = torch.rand(2, 1, 98, 98, generator=torch.Generator().manual_seed(0))
    return nn.functional.avg_pool2d(noise, 3, stride=1)


def bare(architecture: str, seed: int) -> nn.Module:
    model = deepcopy(network(architecture, seed))
    model.fc = model.classifier = nn.Identity()
    return model


def check_features(path: Path, original: nn.Module, other: nn.Module, films: torch.Tensor) -> None:
    """Check that the file's network, with its one mean and std, computes the features of `original` with ImageNet's."""
    x = (films - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected, others = features(original, x), features(other, x)
    weights = Weights.from_file(path)
    mine = (films - weights.mean[0]) / weights.std[0]
    gray, colour = (
        features(c2l_models.create_model(weights.architecture, weights=path, in_chans=n), mine.expand(-1, n, -1, -1))
        for n in (1, 3)
    )
    scale = expected.abs().max()
    assert (gray - colour).abs().max() < 1e-5 * scale
    assert (gray - expected).abs().max() < 0.01 * scale
    assert (gray - others).abs().max() > 0.05 * scale  # the tolerance separates different networks


@pytest.mark.parametrize(
    ("architecture", "legacy", "chosen"),
    [("resnet18", True, "student"), ("resnet18", False, "teacher"), ("densenet121", False, "teacher")],
)
def test_the_authors_checkpoints(
    architecture: str, legacy: bool, chosen: str, films: torch.Tensor, tmp_path: Path
) -> None:
    checkpoint = authors_file(architecture, tmp_path / "ckpt_epoch_240.pth", legacy)
    out = tmp_path / f"{architecture}.c2l_miccai2020.safetensors"
    found = convert(checkpoint, out, architecture, chosen, license="MIT")
    networks = {"student": bare(architecture, 0), "teacher": bare(architecture, 1)}
    check_features(out, networks.pop(chosen), networks.popitem()[1], films)

    weights = Weights.from_file(out)
    assert weights.name == f"{architecture}.c2l_miccai2020"
    assert (weights.mean, weights.std) == ((0.449,) * 3, (0.226,) * 3)
    assert (weights.input_size, weights.license, weights.sha256) == ((3, 224, 224), "MIT", found.sha256)
    assert f"ckpt_epoch_240.pth, {chosen}" in weights.recipe
    outer, head = {"resnet18": ("encoder", "fc"), "densenet121": ("densenet121", "classifier")}[architecture]
    here, there = ("model", "model_ema") if chosen == "student" else ("model_ema", "model")
    assert found.backbone == f"{here}.{outer}.module"
    assert set(found.dropped) == {
        f"{here}.{outer}.module.{head}",
        f"{there}.{outer}.module",
        "contrast.memory",
        "contrast.params",
    }
    assert sum(found.dropped.values()) == 2 + len(network(architecture, 0).state_dict()) + 2
    assert found.counters == 0
    assert 0 < found.difference < 0.01


def state_of(module: nn.Module, wrap: str = "", without: str = "") -> dict[str, torch.Tensor]:
    state = {f"{wrap}{key}": value for key, value in module.state_dict().items()}
    return {key: value for key, value in state.items() if not without or without not in key}


def old_densenet() -> dict[str, torch.Tensor]:
    """The keys of the file that torchvision distributes: dots before the numbers, no counters."""
    state = state_of(network("densenet121", 0), without="num_batches_tracked")
    for n in (1, 2):
        for kind in ("norm", "conv"):
            state = {key.replace(f".{kind}{n}.", f".{kind}.{n}."): value for key, value in state.items()}
    return state


def without_counters() -> dict[str, torch.Tensor]:
    return state_of(network("resnet18", 0), without="num_batches_tracked")


PLAIN: dict[str, tuple[str, Callable[[], object], str, int]] = {
    "torchvision of old": ("resnet18", without_counters, "", 20),
    "DataParallel": ("resnet18", lambda: state_of(nn.DataParallel(network("resnet18", 0))), "module", 0),
    "MoCo": (
        "resnet18", lambda: {"state_dict": state_of(MoCo(), "module."), "epoch": 1}, "state_dict.module.encoder_q", 0
    ),
    "Lightly": ("resnet18", lambda: {"state_dict": state_of(Lightly("resnet18"))}, "state_dict.backbone", 0),
    "Lightly, DenseNet": ("densenet121", lambda: state_of(Lightly("densenet121")), "backbone.0", 0),
    "densenet of old": ("densenet121", old_densenet, "", 121),
}  # fmt: skip


@pytest.fixture(scope="module")
def canonical(films: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The conversion of torchvision's own state dict for each architecture, checked by its features."""
    folder, states = tmp_path_factory.mktemp("canonical"), {}
    for architecture in ("resnet18", "densenet121"):
        torch.save(network(architecture, 0).state_dict(), folder / "a.pth")
        found = convert(folder / "a.pth", folder / "a.safetensors", architecture)
        assert (found.backbone, found.counters) == ("", 0)
        assert found.dropped == {{"resnet18": "fc", "densenet121": "classifier"}[architecture]: 2}
        check_features(found.path, bare(architecture, 0), bare(architecture, 1), films)
        states[architecture] = Weights.from_file(found.path).state_dict()
    return states


@pytest.mark.parametrize("case", PLAIN)
def test_plain_state_dicts(case: str, canonical: dict[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    architecture, content, backbone, counters = PLAIN[case]
    torch.save(content(), tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "mine.safetensors", architecture)
    assert (found.backbone, found.counters) == (backbone, counters)
    weights = Weights.from_file(tmp_path / "mine.safetensors")
    assert weights.tag == "mine"
    state = weights.state_dict()
    assert state.keys() == canonical[architecture].keys()
    assert all(torch.equal(state[key], value) for key, value in canonical[architecture].items())


def test_one_mean_and_std_need_no_fold(films: torch.Tensor, tmp_path: Path) -> None:
    torch.save(network("resnet18", 0).state_dict(), tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    assert convert(tmp_path / "a.pth", out, "resnet18", mean=[0.5], std=[0.25], size=64).difference == 0
    weights = Weights.from_file(out)
    assert (weights.mean, weights.std, weights.input_size) == ((0.5,) * 3, (0.25,) * 3, (3, 64, 64))
    x = ((films - 0.5) / 0.25).expand(-1, 3, -1, -1)
    expected = features(bare("resnet18", 0), x)
    torch.testing.assert_close(
        features(c2l_models.resnet18(weights=out), x), expected, rtol=0, atol=5e-3 * float(expected.abs().max())
    )


def test_safetensors_files_are_read_whatever_their_name(
    canonical: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """Half-precision convolutions, as others store them, are accepted."""
    state = network("resnet18", 0).state_dict()
    save_file(state, tmp_path / "a.bin")
    halved = {key: value.half() if value.ndim == 4 else value for key, value in state.items()}
    save_file(halved, tmp_path / "b.safetensors")
    for name, tolerance in (("a.bin", 0), ("b.safetensors", 2e-3)):
        convert(tmp_path / name, tmp_path / "mine.safetensors", "resnet18")
        found = Weights.from_file(tmp_path / "mine.safetensors").state_dict()
        for key, value in canonical["resnet18"].items():
            torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance / 10)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.bin").read_bytes()[:-1])
    with pytest.raises(WeightsCorrupted, match=r"cut\.safetensors: expected .* bytes according to its header"):
        convert(tmp_path / "cut.safetensors", tmp_path / "out.safetensors", "resnet18")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_inputs_mean_and_std_can_be_chosen(films: torch.Tensor, tmp_path: Path) -> None:
    torch.save(network("resnet18", 0).state_dict(), tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    convert(tmp_path / "a.pth", out, "resnet18", input_mean=0.5, input_std=0.25)
    assert (Weights.from_file(out).mean[0], Weights.from_file(out).std[0]) == (0.5, 0.25)
    check_features(out, bare("resnet18", 0), bare("resnet18", 1), films)
    with pytest.raises(C2LError, match="expected std and input_std above 0"):
        convert(tmp_path / "a.pth", out, "resnet18", input_std=0)


def test_the_provenance_names_origin_conversion_and_patients(tmp_path: Path) -> None:
    torch.save({"model": network("resnet18", 0).state_dict()}, tmp_path / "a.pth")
    out = tmp_path / "resnet18.mine.safetensors"
    done = convert(tmp_path / "a.pth", out, "resnet18", size=64)
    table = json.loads(done.provenance.read_text())
    assert (table["release"], table["sha256"], table["origin"]) == ("resnet18.mine", done.sha256, "not recorded")
    assert table["conversion"]["sha256"] == hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert (table["conversion"]["network"], table["conversion"]["backbone"]) == ("student", "model")
    assert (table["conversion"]["mean"], table["conversion"]["dropped"]) == (list(MEAN), {"model.fc": 2})
    assert "patients" not in table  # nothing is known about them
    pixels = (torch.tensor(list(golden_image(64).tobytes())).view(1, 1, 64, 64) / 255 - 0.449) / 0.226
    golden = features(c2l_models.resnet18(weights=out, in_chans=1), pixels)[0]
    torch.testing.assert_close(torch.tensor(table["golden_embedding"]), golden, rtol=1e-4, atol=1e-4)

    done = convert(
        tmp_path / "a.pth", out, "resnet18", trained_on=["photos all: 3 photos"], patients="none", origin="x"
    )
    table = json.loads(done.provenance.read_text())
    assert (table["patients"], table["origin"]) == ({"photos": []}, "x")
    assert Weights.from_file(out).trained_on == ("photos all: 3 photos",)


def lacking(*names: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state_of(network("resnet18", 0)).items() if key not in names}


REFUSED: dict[str, tuple[str, Callable[[], object], str, str]] = {
    "wrong architecture": ("densenet121", lambda: lacking(), "student",
                           r"expected the tensors of a densenet121, .*They fit a resnet18: pass --arch"),
    "another network": ("resnet18", lambda: state_of(nn.Linear(2, 2)), "student",
                        r"expected the tensors of a resnet18, found 2 others"),
    "missing": ("resnet18", lambda: lacking("bn1.weight"), "student", r"1 missing \(bn1\.weight\)"),
    "shape": ("resnet18", lambda: lacking() | {"conv1.weight": torch.ones(64, 3, 3, 3)}, "student",
              r"1 of another shape \(conv1\.weight \[64, 3, 3, 3\], expected \[64, 3, 7, 7\]\)"),
    "deeper": ("resnet18", lambda: state_of(torchvision.models.resnet34(weights=None)), "student",
               r"96 unexpected \(layer1\.2\.conv1\.weight"),
    "no teacher": ("resnet18", lambda: lacking(), "teacher",
                   r"expected one teacher, found 0.*at the top level \(student\)"),
    "two students": ("resnet18", lambda: {"a": lacking(), "b": lacking()}, "student",
                     r"expected one student, found 2.* a \(student\), b"),
    "no plain floats": ("resnet18", lambda: lacking() | {"bn1.bias": torch.ones(64, dtype=torch.int32)}, "student",
                        r"1 not plain floats \(bn1\.bias\)"),
    "negative variance": ("resnet18", lambda: lacking() | {"bn1.running_var": -torch.ones(64)}, "student",
                          "not finite"),
    "not finite": ("resnet18", lambda: lacking() | {"bn1.bias": torch.full((64,), torch.nan)}, "student", "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_no_file(case: str, tmp_path: Path) -> None:
    architecture, content, chosen, says = REFUSED[case]
    torch.save(content(), tmp_path / "a.pth")
    with pytest.raises(C2LError, match=says):
        convert(tmp_path / "a.pth", tmp_path / "out.safetensors", architecture, chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_arguments_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pth"
    with pytest.raises(C2LError, match=r"expected a name like resnet18\.mine\.safetensors"):
        convert(absent, tmp_path / "a.onnx", "resnet18")
    with pytest.raises(C2LError, match=r"expected one number for mean, or three .*found 2"):
        convert(absent, tmp_path / "a.safetensors", "resnet18", mean=[0.5, 0.5])
    with pytest.raises(C2LError, match="above 0"):
        convert(absent, tmp_path / "a.safetensors", "resnet18", std=[0])
    with pytest.raises(C2LError, match="no architecture 'resnet19'"):
        convert(absent, tmp_path / "a.safetensors", "resnet19")
