"""Weight records, the registry, and weight files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from c2l_models.architectures import list_models
from c2l_models.errors import C2LError, WeightsCorrupted, WeightsNotFound
from c2l_models.releases import registry as module
from c2l_models.releases.record import Weights, save_weights
from c2l_models.releases.registry import (
    default_weights,
    get_weights,
    list_weights,
    open_weights,
    resolve,
    withdrawn_weights,
)

CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "tag": "test",
    "mean": 0.4,
    "std": 0.2,
    "input_size": [3, 64, 64],
    "trained_on": ["one", "two"],
    "recipe": "smoke",
}


@pytest.fixture(scope="module")
def state_dict() -> dict[str, Tensor]:
    """The state dict of a random backbone with one input channel."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0, in_chans=1, zero_init_last=False).state_dict()


@pytest.fixture(scope="module")
def file(state_dict: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, state_dict, CONFIG)
    return path


@pytest.fixture
def registry(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with two releases that share a file."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").symlink_to(file)
    record = Weights.from_file(file)
    table = (
        f'file = "model.safetensors"\nsha256 = "{record.sha256}"\nnum_params = {record.num_params}\n'
        "mean = [0.4, 0.4, 0.4]\nstd = [0.2, 0.2, 0.2]\ninput_size = [3, 64, 64]\n"
        'trained_on = ["one", "two"]\nrecipe = "smoke"\nlicense = "unknown"\n'
    )
    path = tmp_path / "releases.toml"
    path.write_text(
        f"[resnet18.first]\n{table}[resnet18.first.metrics]\nauroc = 0.5\n[resnet18.second]\ndefault = true\n{table}"
    )
    monkeypatch.setattr(module, "REGISTRY", path)
    return path


def test_a_release_is_a_table(registry: Path) -> None:
    assert list_models() == ["densenet121", "resnet18"]
    assert list_weights() == list_weights("resnet18") == ["resnet18.first", "resnet18.second"]
    assert list_weights("densenet121") == []
    first = get_weights("resnet18.first")
    assert (first.name, first.architecture, first.tag) == ("resnet18.first", "resnet18", "first")
    assert (first.mean, first.std, first.input_size) == ((0.4,) * 3, (0.2,) * 3, (3, 64, 64))
    assert (first.trained_on, first.recipe, first.metrics) == (("one", "two"), "smoke", {"auroc": 0.5})
    assert first.path() == registry.parent / "weights" / "model.safetensors"
    assert first.path().is_file()
    assert default_weights("resnet18").name == "resnet18.second"
    assert {first: 1}[get_weights("resnet18.first")] == 1


def test_a_withdrawn_release_names_its_successor(registry: Path) -> None:
    registry.write_text(
        registry.read_text(encoding="utf-8") + '[resnet18.old]\nsuccessor = "resnet18.second"\n', encoding="utf-8"
    )
    assert list_weights() == ["resnet18.first", "resnet18.second"]
    assert withdrawn_weights() == {"resnet18.old": "resnet18.second"}
    for ask in (get_weights, resolve, open_weights):
        with pytest.raises(WeightsNotFound, match=r"resnet18\.old was withdrawn.*load resnet18\.second"):
            ask("resnet18.old")
    assert default_weights("resnet18").name == "resnet18.second"


def test_what_there_is_not_is_said_with_what_there_is(registry: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"did you mean 'resnet18\.first'.*resnet18\.second"):
        get_weights("resnet18.frist")
    with pytest.raises(WeightsNotFound, match="did you mean 'resnet18'"):
        list_weights("resnet-18")
    with pytest.raises(WeightsNotFound, match="densenet121 has no default release"):
        default_weights("densenet121")
    registry.write_text(registry.read_text(encoding="utf-8").replace("default = true\n", ""), encoding="utf-8")
    with pytest.raises(WeightsNotFound, match=r"no default release.*resnet18\.first, resnet18\.second"):
        default_weights("resnet18")


def test_two_defaults_are_no_default(registry: Path) -> None:
    registry.write_text(
        registry.read_text(encoding="utf-8").replace("[resnet18.first]\n", "[resnet18.first]\ndefault = true\n"),
        encoding="utf-8",
    )
    message = r"releases\.toml: resnet18\.first and resnet18\.second are marked default"
    with pytest.raises(WeightsCorrupted, match=message):
        default_weights("resnet18")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("recipe =", "recipes =", "recipes"), ("file =", "fil =", "'file'"), ("0.2, 0.2]", "0.2]", "std")],
)
def test_a_wrong_entry_of_a_table_is_the_registrys_fault(registry: Path, old: str, new: str, message: str) -> None:
    registry.write_text(registry.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(WeightsCorrupted, match=rf"releases\.toml, table resnet18\.first.*{message}") as caught:
        get_weights("resnet18.first")
    assert ".safetensors" not in str(caught.value)


def test_shipped_releases_are_what_their_files_say() -> None:
    names = list_weights()
    assert names
    defaults = [default_weights(name) for name in list_models() if list_weights(name)]
    assert len(defaults) == len({record.architecture for record in map(get_weights, names)})
    for record in map(get_weights, names):
        carried = Weights.from_file(record.path())
        assert record.config == carried.config
        assert record.sha256 == hashlib.sha256(record.path().read_bytes()).hexdigest()


def test_resolve_takes_names_records_files_and_folders(registry: Path, file: Path) -> None:
    record = Weights.from_file(file)
    assert resolve("resnet18.first").tag == "first"
    assert resolve(record) is record
    assert resolve(file) == resolve(str(file)) == resolve(file.parent) == record
    found, verified = open_weights(file)
    assert (found, verified.data) == (record, file.read_bytes())
    with pytest.raises(WeightsNotFound, match="no release"):
        resolve("resnet50.imagenet")
    with pytest.raises(WeightsNotFound, match="found no file"):
        resolve("somewhere/else.safetensors")
    with pytest.raises(C2LError, match="int"):
        resolve(3)  # type: ignore[arg-type]


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
        ("metrics", []),
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
