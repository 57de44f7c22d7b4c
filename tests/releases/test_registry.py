"""The registry of releases."""

import hashlib
from pathlib import Path

import pytest

from c2l_models.architectures import list_models
from c2l_models.errors import C2LError, WeightsCorrupted, WeightsNotFound
from c2l_models.releases import registry as module
from c2l_models.releases.record import Weights
from c2l_models.releases.registry import (
    default_weights,
    get_weights,
    list_weights,
    open_weights,
    resolve,
    withdrawn_weights,
)


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
