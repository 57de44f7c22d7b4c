"""Arguments that the local backend passes on, above all the patients to train on, to test on and to avoid."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.batches import training_rows
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.finetuning import loop
from c2l_models.training.finetuning.parts import split_task
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.recipe import load_recipe
from c2l_models.training.reproduce import backends
from c2l_models.training.reproduce.backends import LocalBackend, spec_of
from c2l_models.training.reproduce.data import DataMissing
from c2l_models.training.reproduce.patients import (
    held_out_task,
    patient_share_task,
    write_pretraining_patients,
)
from c2l_models.training.reproduce.plan import Measurement, load_initialization_plan, load_scale, load_table, recipe_of
from c2l_models.training.reproduce.pretraining import Pretraining
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA


@pytest.fixture
def chests(tmp_path):
    """2,000 films of 1,000 patients, a fifth of them for testing. Each film has a random finding."""
    rng = np.random.default_rng(0)
    rows = [
        {
            **{"path": f"{n}.png", "dataset": "chestxray14", "patient": f"chestxray14:{n // 2:08}", "view": "PA"},
            **{"split": "test" if n // 2 % 5 == 0 else "train_val", "sha256": ""},
            **{"labels": [("Atelectasis", float(rng.random() < 0.5))]},
        }
        for n in range(2000)
    ]
    images = np.zeros((2000, 4, 4), np.uint8)
    return ImageStore(tmp_path, images, pa.Table.from_pylist(rows, INDEX_SCHEMA), "c" * 64)


@pytest.fixture
def finetune_calls(monkeypatch):
    """The arguments of each call of `finetune`."""
    calls = []
    monkeypatch.setattr(loop, "finetune", lambda *given, **options: calls.append((given, options)))
    return calls


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_ablation_is_fine_tuned_on_the_patients_held_out_of_its_pretraining(chests, finetune_calls, tmp_path, seed):
    """The paper's 70k and 16k of 86k images share no patient, and together are train_val."""
    measurement = Measurement("finetune", "chestxray14", held_out=0.19)

    class Stores:
        def get(self, datasets, sha256=""):
            return chests

    init = load_initialization_plan("resnet18-random")
    LocalBackend("cpu").measure(init, measurement, seed, None, load_scale("paper"), Stores(), tmp_path)
    ((spec, store, task, _, settings, *_),), options = finetune_calls[0][:1], finetune_calls[0][1]
    assert (spec, store, options["resume"]) == ("random:resnet18", chests, True)
    assert (settings.size, settings.epochs, settings.seed) == (224, 50, seed)  # the paper's

    pretrained = set(chests.patients[training_rows(load_recipe("table1-c2l"), chests)])
    parts = split_task(task, chests, settings)
    fitted, tuned, tested = (set(chests.patients[rows]) for rows in (parts.fit, parts.tune, parts.test))
    everyone = set(chests.patients[chests.select(split="train_val")])
    assert not pretrained & (fitted | tuned | tested)
    assert pretrained | fitted | tuned == everyone
    assert 0.14 < len(fitted | tuned) / len(everyone) < 0.24
    assert 0.1 < len(tuned) / len(fitted | tuned) < 0.3
    assert len(tested) == 200


def test_without_held_out_the_task_is_as_it_is(chests):
    assert patient_share_task("chestxray14", 0, "few_labels") == load_task("chestxray14")
    tenth = patient_share_task("chestxray14", 0.1, "probe_tuning")
    assert 0 < len(tenth.train_rows(chests)) < 300
    assert tenth.test_rows(chests).tolist() == load_task("chestxray14").test_rows(chests).tolist()
    with pytest.raises(DatasetError, match="no task"):
        patient_share_task("nothing", 0.1, "few_labels")


def test_specs(tmp_path):
    run = Pretraining(tmp_path / "run", 1, 1, "", None)
    assert spec_of(load_initialization_plan("densenet121-c2l"), run) == str(tmp_path / "run")
    assert spec_of(load_initialization_plan("densenet121-imagenet"), None) == "imagenet:densenet121"
    assert spec_of(load_initialization_plan("densenet121-random"), None) == "random:densenet121"
    release = replace(load_initialization_plan("resnet18-random"), weights="resnet18.c2l_open15k")
    assert spec_of(release, None) == "resnet18.c2l_open15k"


def test_a_detector_is_measured_on_none_whom_a_row_was_pretrained_on(chests, tmp_path):
    class Stores:
        def get(self, datasets, sha256=""):
            assert set(datasets) == {"chestxray14", "knee_kl"}
            return with_knees(chests)

    (file,) = write_pretraining_patients(load_scale("open"), Stores(), tmp_path / "detect")
    listed = file.read_text().split()
    expected = sorted(set(chests.patients[chests.select(split="train_val")].tolist()))
    assert listed == expected
    smoke = load_scale("open", smoke=True)  # its rows pretrain on fewer patients, each row on others
    assert write_pretraining_patients(smoke, Stores(), tmp_path / "smoke")[0].read_text().split() == expected


def with_knees(chests):
    knee = {"path": "k", "dataset": "knee_kl", "patient": "knee_kl:1", "view": "", "labels": [], "sha256": ""}
    rows = [knee | {"split": split} for split in ("train", "val")]
    index = pa.concat_tables([chests.index, pa.Table.from_pylist(rows, INDEX_SCHEMA)])
    return ImageStore(chests.path, np.zeros((2002, 4, 4), np.uint8), index, chests.sha256)


def test_without_pretraining_data_nobody_is_to_be_write_pretraining_patients(tmp_path):
    class Stores:
        def get(self, datasets, sha256=""):
            raise DataMissing("none")

    assert write_pretraining_patients(load_scale("open"), Stores(), tmp_path) == []


def test_settings_of_every_scale_are_settings():
    for name in ("paper", "open"):
        for smoke in (False, True):
            scale = load_scale(name, smoke)
            for fraction in (0.01, 0.1, 1.0):
                Settings(**scale.settings(Measurement("finetune", "chestxray14", fraction)))
            from c2l_models.training.detection.settings import Settings as Detection

            Detection(**scale.settings(Measurement("detect", "rsna")))


def test_a_trial_is_asked_about_patients_of_the_training_list_that_its_pretraining_left_out(chests):
    measurement = load_table("search").measurements[0]
    task = held_out_task("chestxray14", measurement.held_out)
    recipe = recipe_of(load_initialization_plan("search-base"), load_scale("search"), 0)
    pretrained = set(chests.patients[training_rows(replace(recipe, sources=("chestxray14:train_val",)), chests)])
    trained, tested = (set(chests.patients[rows]) for rows in (task.train_rows(chests), task.test_rows(chests)))
    assert trained == pretrained
    assert trained | tested == set(chests.patients[chests.select(split="train_val")])
    assert not trained & tested
    assert 0.2 < len(tested) / len(trained | tested) < 0.3


def test_a_trials_probe_is_told_so(chests, monkeypatch, tmp_path):
    from c2l_models.training.probing import probe

    calls = []
    monkeypatch.setattr(probe, "probe", lambda spec, store, task, *given, **options: calls.append(task))
    monkeypatch.setattr(backends.Result, "read", lambda out: None)

    class Stores:
        def get(self, datasets, sha256=""):
            return chests

    init = load_initialization_plan("resnet18-random")
    for measurement in (load_table("search").measurements[0], Measurement("probe", "chestxray14")):
        LocalBackend("cpu").measure(init, measurement, 0, None, load_scale("search"), Stores(), tmp_path)
    assert calls == [held_out_task("chestxray14", 0.25), load_task("chestxray14")]
