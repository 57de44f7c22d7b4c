"""Check of a release's first steps: same losses, other losses, or no losses to compare with."""

import json
from dataclasses import asdict, replace

import pytest

from c2l_models import cli
from c2l_models.errors import C2LError, WeightsCorrupted
from c2l_models.releases import registry as registry
from c2l_models.training.releasing.first_steps import first_steps
from c2l_models.training.reproduce.release_losses import check_release

NAME = "resnet18.tiny"
TABLE = """
[resnet18.tiny]
file = "resnet18.tiny.safetensors"
sha256 = "{sha256}"
num_params = 11176512
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
input_size = [3, 32, 32]
trained_on = ["folder train: 44 images, 22 patients"]
recipe = "tiny"
license = "unknown"
interpolation = "bilinear"
crop_pct = 1.0
[resnet18.tiny.metrics]
"""

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture(autouse=True)
def key(tiny_store, monkeypatch):
    """The key of the tiny store's pseudonyms, so that a second store has the same bytes."""
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tiny_store.path.parent / "patient.key"))


@pytest.fixture
def recipe(tiny_recipe):
    return replace(tiny_recipe, sources=("folder:train",))


@pytest.fixture
def release(recipe, tiny_store, tmp_path, monkeypatch):
    """Writes a registry with one release. Its first steps are the recipe's, except for the given changes."""
    known = {"sha256": "a" * 64, "recipe": recipe.to_dict(), "store_sha256": tiny_store.sha256, "store_size": 32}
    steps = asdict(first_steps(recipe, tiny_store, 5, progress=False))

    def write(provenance=(), **changes):
        (tmp_path / "releases.toml").write_text(TABLE.format(sha256="a" * 64))
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / f"{NAME}.safetensors").touch()  # never read
        table = {"first_steps": steps | changes} | known | dict(provenance)
        (tmp_path / "weights" / f"{NAME}.json").write_text(json.dumps(table))
        monkeypatch.setattr(registry, "REGISTRY", tmp_path / "releases.toml")
        return table

    return write


@pytest.fixture
def again(tiny_folder, tmp_path):
    """Checks the release from the raw folder."""
    return lambda: check_release(NAME, [f"folder={tiny_folder}"], tmp_path / "out", workers=1)


def test_where_all_is_as_it_was_the_losses_come_back_to_the_bit(release, again, tmp_path):
    release()
    found = again()
    assert found.reproduced
    assert found.differences == [0.0] * 5
    assert found.summary() == f"{NAME}: the losses of the first 5 steps are reproduced bit for bit"
    text = (tmp_path / "out" / "tables" / f"{NAME}-check.md").read_text()
    assert f"{found.summary()}.\n" in text
    assert f"| 5 | {found.now.losses[4]!r} | {found.now.losses[4]!r} | 0 | 0.03 |" in text
    assert f"| torch | {found.now.torch} | {found.now.torch} |" in text


def test_a_tolerance_is_allowed_and_no_more(release, again):
    released = release()["first_steps"]["losses"]
    found = again()
    assert found.allowed == [0.005, 0.005, 0.03, 0.03, 0.03]
    for step, allowed in enumerate(found.allowed):
        for factor, reproduced in ((0.99, True), (1.01, False)):
            moved = list(released)
            moved[step] += factor * allowed
            assert replace(found, released=replace(found.released, losses=tuple(moved))).reproduced is reproduced
    assert not replace(found, now=replace(found.now, losses=(*released[:-1], float("nan")))).reproduced


@pytest.mark.parametrize("other", ["", "torch", "instructions", "machine"])
def test_a_bit_that_is_off_is_told_where_none_was_expected(release, again, other):
    losses = release(**({other: "another"} if other else {}))["first_steps"]["losses"]
    found = again()
    moved = replace(found, now=replace(found.now, losses=(*losses[:-1], losses[-1] + 2**-20)))
    assert moved.reproduced
    assert "are reproduced: largest difference 9.5e-07" in moved.summary()
    assert ("bit-identical losses were expected" in moved.summary()) is (not other)


def test_another_seed_is_told_on_any_machine(release, recipe, again):
    release({"recipe": replace(recipe, seed=1).to_dict()}, torch="another")
    found = again()
    assert found.allowed[0] > 0
    assert not found.reproduced
    assert "the images differ in their bytes or order" in found.summary()


def test_the_exit_status_says_it(release, tiny_folder, tmp_path, capsys):
    def status(*more):
        command = ["reproduce", "release", NAME, "--check", "--data", f"folder={tiny_folder}", "--workers", "1"]
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--out", str(tmp_path / "out"), *more])
        return end.value.code

    table = release()
    assert status() == 0
    assert "are reproduced bit for bit" in capsys.readouterr().out
    first, *others = table["first_steps"]["losses"]
    table["first_steps"]["losses"] = [first + 1, *others]
    (tmp_path / "weights" / f"{NAME}.json").write_text(json.dumps(table))
    assert status() == 1
    assert "are NOT reproduced: largest difference 1" in capsys.readouterr().out
    assert status("--train") == 2
    assert "found both; leave out one of them" in capsys.readouterr().err
    for option in (["--smoke"], ["--seeds", "1", "2"], ["--only", "resnet18-c2l"], ["--scale", "open"]):
        assert status(*option) == 2
        assert f"expected {option[0]} only with a table" in capsys.readouterr().err


def test_a_release_without_first_steps_is_told(release, again):
    release({"first_steps": None})
    with pytest.raises(WeightsCorrupted, match="first_steps as"):
        again()


def test_a_release_from_before_them_is_told(release, again, tmp_path):
    table = release()
    del table["first_steps"]
    (tmp_path / "weights" / f"{NAME}.json").write_text(json.dumps(table))
    with pytest.raises(C2LError, match="older than the stored first steps"):
        again()


@pytest.mark.parametrize("changes", [{"losses": []}, {"losses": ["x"]}, {"surprise": 1}])
def test_damaged_first_steps_are_told(release, again, changes):
    release(**changes)
    with pytest.raises(WeightsCorrupted, match=r"damaged, expected first_steps"):
        again()


def test_an_index_of_other_bytes_is_no_other_film(release, again):
    """Parquet stores its writer's name, so the index can differ although the films and their order do not."""
    release({"store_sha256": "b" * 64})
    assert again().summary().endswith("are reproduced bit for bit")


def test_images_that_another_library_decoded_are_told(release, again):
    release(images="c" * 64, prepared_with={"version of pillow": "1.0"}, torch="another", losses=[1.0] * 5)
    summary = again().summary()
    assert "version of pillow was 1.0, is " in summary
