"""A run becomes a release: its files load, verify, and name no private patient."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import c2l_models
from c2l_models.errors import RunError
from c2l_models.releases import registry
from c2l_models.training.datasets.adapters import public_data_sets
from c2l_models.training.pretrain import pretrain
from c2l_models.training.probing.probe import probe
from c2l_models.training.recipe import Recipe
from c2l_models.training.releasing import release
from c2l_models.training.reproduce.release_losses import released_steps
from c2l_models.training.run_files import backbone as export
from c2l_models.training.run_files import log
from c2l_models.training.run_files.backbone import load_run_backbone
from c2l_models.training.store.image_store import ImageStore
from c2l_models.verification import verify

QUICK = {"baselines": False, "bootstrap": 50}


@pytest.fixture
def empty_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry without releases, in its own folder."""
    path = tmp_path / "releases.toml"
    path.write_text("# releases\n")
    monkeypatch.setattr(registry, "REGISTRY", path)
    monkeypatch.setattr(release, "probe", lambda *given, **options: probe(*given, **options | QUICK))
    return path


def test_a_run_becomes_a_release(tiny_run: Path, empty_registry: Path, tmp_path: Path) -> None:
    record = release.release_run(tiny_run, "test_tag", tmp_path / "probes", default=True)

    assert record.name == "resnet18.test_tag"
    assert c2l_models.list_weights() == ["resnet18.test_tag"]
    table = tomllib.loads(empty_registry.read_text(encoding="utf-8"))["resnet18"]["test_tag"]
    assert table["default"] is True
    assert table["license"] == "CC-BY-4.0"

    # pretrained=True now loads it: the run's own network.
    student, recipe = load_run_backbone(tiny_run)
    film = torch.randn(8, 1, recipe.size, recipe.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        released = c2l_models.resnet18(pretrained=True, in_chans=1).eval()(film)
        own = student(film)
    assert torch.nn.functional.cosine_similarity(released, own).min() > 0.9999

    assert verify("resnet18.test_tag").ok
    reported = json.loads((tmp_path / "probes" / "folder" / "result.json").read_text())
    assert reported["facts"]["test_patients_seen_in_pretraining"] is None, "a private folder's patients are not listed"
    (metric,) = table["metrics"].values()
    assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
    assert metric == reported["figures"]["finding"] == reported["figures"]["mean"]

    provenance = json.loads(record.path().with_suffix(".json").read_text())
    assert provenance["sha256"] == record.sha256
    rounding = provenance["rounding"]
    assert 0 < rounding["weights"] <= 2**-11
    assert 0.9999 < rounding["cosine"] < 1 + 1e-6
    assert provenance["recipe"] == recipe.to_dict()
    assert provenance["log"] == log.read(tiny_run)[-5:]
    train = [line for line in log.read(tiny_run) if line["kind"] == "train"]
    steps = np.diff([0, *(line["step"] for line in train)])
    speeds = np.array([line["images_per_second"] for line in train])
    assert provenance["training_seconds"] == pytest.approx((steps * recipe.batch_size / speeds).sum())
    losses = provenance["first_steps"]["losses"]
    means = [line["loss"] for line in train]
    assert [np.mean(losses[at : at + 3]) for at in (0, 3, 6, 9)] == pytest.approx(means, rel=1e-6)
    assert released_steps(record).losses == tuple(losses), "they can be read back"
    assert provenance["patients"] == {}, "ids of a private folder's patients are never published"
    assert str(tmp_path.parent) not in json.dumps(provenance), "no path of this machine"


def test_licenses_that_ask_for_it_stay_with_the_weights() -> None:
    began = {"name": "resnet18.imagenet", "patients": []}
    for initialization in (began, {"name": "random", "source": began}, {"name": "random", "averaged": {"a": began}}):
        text = release.notices_of(initialization)
        assert text.startswith("Made from the weights resnet18.imagenet.")
        assert "Copyright (c) .NET Foundation and Contributors" in text
    assert release.notices_of({"name": "random"}) == ""
    made_of_it = "averaged, 0.3 of resnet18.imagenet (licence: MIT): imagenet-1k train, with its labels"
    line = f"initialized from first (licence: unknown): {made_of_it}"
    run = {"name": "second", "patients": [], "trained_on": ["folder train: 44 images, 22 patients", line]}
    assert release.notices_of(run) == release.notices_of(began)  # also through the runs in between


def test_a_release_names_its_described_data_sets_and_does_not_change(
    tiny_run: Path, tiny_store: ImageStore, empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"license": "CC0-1.0", "public_patient_ids": True}
    monkeypatch.setattr(ImageStore, "data_sets", lambda self: {"folder": facts, "not_trained_on": {"title": "x"}})
    record = release.release_run(tiny_run, "once", tmp_path / "probes")
    provenance = json.loads(record.path().with_suffix(".json").read_text())
    assert provenance["data_sets"] == {"folder": facts}
    trained = tiny_store.select(split="train")
    assert provenance["patients"] == {"folder": sorted(set(tiny_store.patients[trained]))}
    reported = json.loads((tmp_path / "probes" / "folder" / "result.json").read_text())
    assert reported["facts"]["test_patients_seen_in_pretraining"] == 0
    before = empty_registry.read_bytes()
    with pytest.raises(RunError, match=r"resnet18\.once is already released"):
        release.release_run(tiny_run, "once", tmp_path / "probes")
    assert empty_registry.read_bytes() == before
    empty_registry.write_text('[resnet18.old]\nsuccessor = "resnet18.once"\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"resnet18\.old is already released"):
        release.release_run(tiny_run, "old", tmp_path / "probes")


def test_there_is_one_default(tiny_run: Path, empty_registry: Path, tmp_path: Path) -> None:
    release.release_run(tiny_run, "first", tmp_path / "probes", default=True)
    with pytest.raises(RunError, match=r"resnet18\.first is the default release"):
        release.release_run(tiny_run, "second", tmp_path / "probes", default=True)


def test_a_run_that_saw_test_patients_is_no_release(
    tiny_store: ImageStore,
    tiny_recipe: Recipe,
    empty_registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = replace(tiny_recipe, sources=("folder:*",), epochs=1, probe_every=0)
    run = pretrain(everything, tiny_store, tmp_path / "run", "cpu", max_seconds=0, progress=False)
    for measurable in (release.measurable_tasks, lambda tasks, store: []):  # also for a task that cannot be measured
        monkeypatch.setattr(release, "measurable_tasks", measurable)
        with pytest.raises(RunError, match=r"found \d+ patients in both the training and the test part"):
            release.release_run(run, "leaky", tmp_path / "probes")
    assert c2l_models.list_weights() == []


def test_public_patients_are_named_and_no_others() -> None:
    patients = np.array(["chestxray14:2", "0f3a", "chestxray14:1", "chestxray14:2", "knee_kl:7"])
    before = {
        "name": "other",
        "patients": ["chestxray14:0", "a private one", "knee_kl:7", "mura:5", "shoulder_implants:images/Cofield.1.jpg"],
    }
    assert release.patients_seen(patients, before, public_data_sets()) == {
        "chestxray14": ["chestxray14:0", "chestxray14:1", "chestxray14:2"],
        "knee_kl": ["knee_kl:7"],
        "shoulder_implants": ["shoulder_implants:images/Cofield.1.jpg"],
    }


def test_the_provenance_says_if_patients_of_earlier_weights_are_unknown() -> None:
    before = {"name": "random", "patients": [], "source": {"name": "mine", "patients": None}}
    assert release.without_patients(before) == {"name": "random", "source": {"name": "mine", "patients": None}}


def test_weights_that_float16_does_not_hold_are_no_release(tiny_run, empty_registry, tmp_path, monkeypatch):
    """One weight of the file is changed by a hundredth of its tensor's largest weight."""
    save = export.save_weights

    def save_corrupted(path, tensors, config):
        name = next(name for name in tensors if name.endswith("conv2.weight"))
        changed = tensors[name].clone()
        changed.view(-1)[0] += changed.abs().max() / 100
        save(path, tensors | {name: changed}, config)

    monkeypatch.setattr(export, "save_weights", save_corrupted)
    with pytest.raises(RunError, match=r"test_tag in float16 differs too much from the trained network: .* found 0\.0"):
        release.release_run(tiny_run, "test_tag", tmp_path / "probes")
    assert not list(empty_registry.parent.glob("weights/*.safetensors"))
    assert empty_registry.read_text() == "# releases\n"


def test_a_note_of_the_log_is_not_published():
    """It may name a path of this machine, such as that of a checkpoint that could not be written."""
    lines = [{"kind": kind, "step": step} for step in range(9) for kind in ("train", "probe")]
    note = {"kind": "note", "step": 8, "text": "the checkpoint of step 8 could not be written to /home/jane/run"}
    assert release.last_lines([*lines, note]) == lines[-5:]
