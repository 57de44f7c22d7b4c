"""Weight files: their record, and what they may hold."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from weight_config import CONFIG

from c2l_models.errors import WeightsCorrupted
from c2l_models.releases.record import Weights, save_weights


def test_the_file_carries_its_configuration(file: Path) -> None:
    record = Weights.from_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert list(metadata) == ["c2l"]
    assert (
        json.loads(metadata["c2l"])
        == {
            "architecture": "resnet18",
            "tag": "test",
            "num_params": 11_176_512,  # torchvision's 11,689,512 without its head of 513,000
            "mean": [0.4, 0.4, 0.4],
            "std": [0.2, 0.2, 0.2],
            "input_size": [3, 64, 64],
            "trained_on": ["one", "two"],
            "recipe": "smoke",
            "license": "unknown",
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        }
        == record.config
    )
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_tensors_come_back_to_float16_rounding(file: Path, state_dict: dict[str, Tensor]) -> None:
    loaded = Weights.from_file(file).state_dict()
    assert sorted(loaded) == sorted(state_dict)
    for key, tensor in state_dict.items():
        if key == "conv1.weight":
            assert loaded[key].shape == (64, 3, 7, 7)
            torch.testing.assert_close(loaded[key].sum(1, keepdim=True), tensor, rtol=3e-7, atol=0)
            assert torch.equal(loaded[key][:, 0], loaded[key][:, 2])
        elif tensor.is_floating_point():
            # Half a unit in the last of 11 bits, or half of the smallest subnormal.
            assert loaded[key].dtype == torch.float32
            torch.testing.assert_close(loaded[key], tensor, rtol=2**-11, atol=2**-25)
        else:
            assert loaded[key].dtype == torch.int64
            assert torch.equal(loaded[key], tensor)


def test_writing_twice_gives_the_same_bytes(file: Path, state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    backwards = dict(reversed(CONFIG.items()))
    shuffled = {key: state_dict[key] for key in sorted(state_dict, reverse=True)}
    digest = save_weights(tmp_path / "again.safetensors", shuffled, backwards)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_three_channels_and_odd_layouts_are_stored_as_they_are(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    kernel = torch.randn(64, 3, 7, 7).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "a.safetensors", {**state_dict, "conv1.weight": kernel}, CONFIG)
    assert torch.equal(Weights.from_file(tmp_path / "a.safetensors").state_dict()["conv1.weight"], kernel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"fc.weight": torch.zeros(2, 512)}, "head"),
        (lambda s: {f"module.{key}": value for key, value in s.items()}, r"no conv1\.weight"),
        (lambda s: s | {"bn1.bias": torch.full((64,), torch.nan)}, r"bn1\.bias"),
        (lambda s: s | {"bn1.running_var": torch.full((64,), 7e4)}, r"bn1\.running_var"),
        (lambda s: s | {"bn1.num_batches_tracked": torch.tensor(3, dtype=torch.int32)}, "found 'I32' of shape"),
        (lambda s: s | {"bn1.mask": torch.ones(64, dtype=torch.bool)}, r"found 'BOOL' of shape \[64\] in bn1\.mask"),
        (lambda s: s | {"index": torch.arange(3)}, r"found 'I64' of shape \[3\] in index"),
        (lambda s: s | {"new\nline": torch.zeros(2)}, "names of tensors that can be printed"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"1 or 3, .* found \[64, 2, 7, 7\]; build the"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, r"1 or 3, .* found \[64, 4, 7, 7\]"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 3)}, r"1 or 3, .* found \[64, 3\]"),
    ],
)
def test_state_dicts_that_may_not_be_saved(
    state_dict: dict[str, Tensor],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    with pytest.raises(WeightsCorrupted, match=message):
        save_weights(tmp_path / "a.safetensors", change(dict(state_dict)), CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.4, 0.5, 0.6]}, "mean"),
        ({"std": 0}, "std"),
        ({"input_size": [1, 64, 64]}, "input_size"),
        ({"input_size": [3, 64, 32]}, "input_size"),
        ({"interpolation": "bicubic"}, "bilinear"),
        ({"crop_pct": 0.9}, "crop_pct"),
        ({"colour": "blue"}, "colour"),
        ({"license": None}, "license"),
    ],
)
def test_configurations_that_may_not_be_saved(
    state_dict: dict[str, Tensor], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsCorrupted, match=message):
        save_weights(tmp_path / "a.safetensors", state_dict, CONFIG | change)


def test_a_file_without_configuration_is_refused(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    for metadata, message in (
        (None, "metadata key .c2l., found none"),
        ({"c2l": "["}, "JSON"),
        ({"c2l": "{}"}, "architecture"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(WeightsCorrupted, match=rf"bare\.safetensors.*{message}"):
            Weights.from_file(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", ["a", "a", "a"]),
        ("mean", "aaa"),
        ("mean", 0.4),
        ("mean", [True, True, True]),
        ("mean", [[], [], []]),
        ("std", [float("inf")] * 3),
        ("std", [float("nan")] * 3),
        ("std", [-0.2] * 3),
        ("std", [10**400] * 3),
        ("input_size", [3, 64.5, 64.5]),
        ("input_size", [3, 64.0, 64.0]),
        ("input_size", [3, 10**9, 10**9]),
        ("input_size", [3, 0, 0]),
        ("input_size", None),
        ("tag", None),
        ("tag", ["test"]),
        ("recipe", 7),
        ("license", None),
        ("architecture", {}),
        ("trained_on", "one"),
        ("trained_on", [1]),
        ("num_params", "many"),
        ("crop_pct", True),
        ("metrics", {"chestxray14 linear probe, AUROC, mean": {"value": 0.99, "low": 0.98, "high": 1.0}}),
    ],
)
def test_a_files_own_configuration_is_not_trusted(file: Path, tmp_path: Path, key: str, value: object) -> None:
    config = Weights.from_file(file).config | {key: value}
    path = tmp_path / "wrong.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"c2l": json.dumps(config)})
    with pytest.raises(WeightsCorrupted, match=rf"wrong\.safetensors.*{key}"):
        Weights.from_file(path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"tag": ' * 100_000, "expected a JSON object as configuration"),
        ('{"tag": ' + "[" * 100_000 + "]" * 100_000 + "}", "expected a JSON object as configuration"),
        (json.dumps(CONFIG | {"num_params": 1, "license": "\x1b[2Jmine"}), "expected license to be text that can be"),
        (json.dumps({"\x1b[2J": 1}), "unknown key '\\\\x1b"),
    ],
)
def test_hostile_configurations(tmp_path: Path, config: str, says: str) -> None:
    path = tmp_path / "hostile.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"c2l": config})
    with pytest.raises(WeightsCorrupted, match=says) as caught:
        Weights.from_file(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("tag", ["\x1b[31mred", "two\nlines", "\u202eright-to-left"])
def test_a_tag_that_changes_the_terminal_is_refused(file: Path, tmp_path: Path, tag: str) -> None:
    config = Weights.from_file(file).config | {"tag": tag}
    save_file({"a": torch.zeros(1)}, tmp_path / "tag.safetensors", metadata={"c2l": json.dumps(config)})
    with pytest.raises(WeightsCorrupted, match="expected tag to be text that can be printed"):
        Weights.from_file(tmp_path / "tag.safetensors")


NAME = "layer1.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.index_put((torch.tensor(3),), torch.tensor(torch.nan).half()), "NaN or infinity"),
        (lambda t: t.float() / 0, "NaN or infinity"),
        (lambda t: t.double() + 1e300, "NaN or infinity"),
        (lambda t: t.bool(), "found 'BOOL'"),
        (lambda t: t.char(), "found 'I8'"),
        (lambda t: t.long(), "found 'I64' of shape"),
        (lambda t: t.to(torch.complex64), "found 'C64'"),
        (lambda t: t.to(torch.float8_e4m3fn), "found 'F8_E4M3'"),
        (lambda t: t.double(), ""),
        (lambda t: t.bfloat16(), ""),
    ],
)
def test_values_and_dtypes_that_weights_may_have(file: Path, tmp_path: Path, change: Callable, says: str) -> None:
    from safetensors.torch import load_file

    tensors = load_file(file)
    tensors[NAME] = change(tensors[NAME])
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, metadata={"c2l": json.dumps(Weights.from_file(file).config)})
    if says:
        with pytest.raises(WeightsCorrupted, match=rf"changed\.safetensors: .*{says}.*{NAME}"):
            Weights.from_file(path).state_dict()
    else:
        assert Weights.from_file(path).state_dict()[NAME].dtype == torch.float32


def test_a_record_is_held_to_the_bytes_it_was_made_from(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    data = bytearray(file.read_bytes())
    copy.write_bytes(data)
    record = Weights.from_file(copy, sha256=Weights.from_file(file).sha256)
    data[-1] ^= 1
    copy.write_bytes(data)
    with pytest.raises(WeightsCorrupted, match="sha256"):
        record.state_dict()
    with pytest.raises(WeightsCorrupted, match="sha256"):
        Weights.from_file(copy, sha256=record.sha256)
