"""`c2l average`: the weighted mean of a run's weights and others', and what the copy says about its parts."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from c2l_models.cli import main
from c2l_models.errors import RunError
from c2l_models.models import create_model
from c2l_models.releases.record import Weights, save_weights
from c2l_models.training.initialization import load_initialization
from c2l_models.training.recipe import Recipe
from c2l_models.training.releasing.average import average_run, read_shares
from c2l_models.training.run_files import checkpoint
from c2l_models.training.run_files.run_folder import RANDOM_INITIALIZATION


@pytest.fixture
def other(tmp_path):
    """Weights of another origin, whose values the test knows."""
    torch.manual_seed(5)
    network = create_model("resnet18", in_chans=1)
    config = {"architecture": "resnet18", "tag": "other", "mean": [0.5] * 3, "std": [0.25] * 3}
    config |= {"input_size": [3, 32, 32], "trained_on": ["photographs"], "recipe": "x", "license": "MIT"}
    save_weights(tmp_path / "other.safetensors", network.state_dict(), config)
    return tmp_path / "other.safetensors"


def write_shares(folder, **shares):
    lines = [f'"{spec}" = {share}' for spec, share in shares.items()]
    (folder / "shares.toml").write_text("\n".join(["[shares]", *lines]))
    return folder / "shares.toml"


def test_each_weight_is_the_weighted_mean(tiny_run, tiny_store, other, tmp_path):
    shares = write_shares(tmp_path, **{str(tiny_run): 0.75, str(other): 0.25})
    average_run(read_shares(shares), tmp_path / "mean")
    found = checkpoint.load(tmp_path / "mean").state["method"]
    run = checkpoint.load(tiny_run).state["method"]
    stored = load_file(other)
    key = "layer1.0.conv1.weight"
    expected = 0.75 * run[f"student.backbone.{key}"].double() + 0.25 * stored[key].double()
    torch.testing.assert_close(found[f"student.backbone.{key}"].double(), expected, rtol=0, atol=1e-6)
    assert found["student.backbone.bn1.num_batches_tracked"].dtype == torch.int64
    network = load_initialization(str(tmp_path / "mean"), store=tiny_store).network
    own = load_initialization(str(tiny_run), store=tiny_store).network
    assert not torch.equal(network.bn1.running_mean, own.bn1.running_mean)  # recalibrated for the average


def test_the_average_tells_of_its_parts(tiny_run, tiny_store, other, tmp_path):
    shares = write_shares(tmp_path, **{str(tiny_run): 0.75, str(other): 0.25})
    main(["average", str(shares), "--out", str(tmp_path / "mean")])
    averaged = json.loads((tmp_path / "mean" / "initialization.json").read_text())["averaged"]
    assert [part["share"] for part in averaged.values()] == [0.75, 0.25]
    assert averaged["resnet18.other"]["weights_sha256"] == Weights.from_file(other).sha256
    main(["export", str(tmp_path / "mean"), "--out", str(tmp_path / "mean.safetensors")])
    trained_on = Weights.from_file(tmp_path / "mean.safetensors").trained_on
    assert trained_on[-1] == "averaged, 0.25 of resnet18.other (licence: MIT): photographs"
    assert len(trained_on) == len(set(trained_on))
    assert (
        load_initialization(str(tmp_path / "mean"), store=tiny_store).seen is None
    )  # the other's patients are unknown


def test_parts_of_one_name_are_told_apart_and_no_path_is_written(tiny_run, tmp_path):
    again = shutil.copytree(tiny_run, tmp_path / "jane" / tiny_run.name)
    average_run({str(tiny_run): 0.75, str(again): 0.25}, tmp_path / "mean")
    written = (tmp_path / "mean" / "initialization.json").read_text()
    averaged = json.loads(written)["averaged"]
    assert {name: part["share"] for name, part in averaged.items()} == {
        tiny_run.name: 0.75,
        f"{tiny_run.name}, part 2": 0.25,
    }
    assert "jane" not in written


def test_an_average_is_never_there_without_its_parts(tiny_run, other, tmp_path, monkeypatch):
    """A folder without them would be taken for the run itself, and its patients for all that there are."""
    listed, rename = [], Path.rename

    def noted(new, out):
        listed.append(json.loads((new / "initialization.json").read_text()))
        return rename(new, out)

    monkeypatch.setattr(Path, "rename", noted)
    average_run({str(tiny_run): 0.75, str(other): 0.25}, tmp_path / "mean")
    assert [[*initialization["averaged"]] for initialization in listed] == [[tiny_run.name, "resnet18.other"]]


def test_an_average_of_an_average_would_not_list_all_parts(tmp_path):
    (tmp_path / "mean").mkdir()
    checkpoint.save(tmp_path / "mean", {"recipe": Recipe("mean").to_dict()}, step=1, keep=1)
    facts = RANDOM_INITIALIZATION | {"averaged": {"one": {"share": 0.5}, "two": {"share": 0.5}}}
    (tmp_path / "mean" / "initialization.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"mean: expected a run .*, found an average, .*; name its parts \(one, two\)"):
        average_run({str(tmp_path / "mean"): 0.5, "resnet18.imagenet": 0.5}, tmp_path / "again")


REFUSED = {
    "sum": ({"RUN": 0.75, "OTHER": 0.5}, "the sum 1"),
    "negative": ({"RUN": 1.5, "OTHER": -0.5}, "a positive number"),
    "alone": ({"RUN": 1}, "two or more"),
    "order": ({"OTHER": 0.5, "RUN": 0.5}, "name the run first"),
    "architecture": ({"RUN": 0.5, "densenet121.c2l_open26k": 0.5}, "expected architecture resnet18, found densenet121"),
}


@pytest.mark.parametrize(("shares", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_averaged_is_refused(tiny_run, other, tmp_path, shares, message):
    names = {"RUN": str(tiny_run), "OTHER": str(other)}
    file = write_shares(tmp_path, **{names.get(name, name): share for name, share in shares.items()})
    with pytest.raises(RunError, match=message):
        average_run(read_shares(file), tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "shares.toml").write_text("shares: 1")
    with pytest.raises(RunError, match=r"shares\.toml: expected TOML"):
        read_shares(tmp_path / "shares.toml")
    with pytest.raises(RunError, match=r"absent\.toml cannot be read: No such file or directory; name a TOML file"):
        read_shares(tmp_path / "absent.toml")
