"""Arguments that the local backend passes on, above all the patients to train on, to test on and to avoid."""

from dataclasses import replace

import pytest

from c2l_models.training.batches import training_rows
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.finetuning import finetune as loop
from c2l_models.training.finetuning import task_split
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.finetuning.task_split import split_task
from c2l_models.training.recipe_files import load_recipe
from c2l_models.training.reproduce import backends
from c2l_models.training.reproduce.backends import LocalBackend, spec_of
from c2l_models.training.reproduce.patient_tasks import held_out_task
from c2l_models.training.reproduce.plan import Measurement, load_initialization_plan, load_scale, load_table
from c2l_models.training.reproduce.pretraining import Pretraining


@pytest.fixture
def finetune_calls(monkeypatch):
    """The arguments of each call of `finetune`."""
    calls = []
    monkeypatch.setattr(loop, "finetune", lambda *given, **options: calls.append((given, options)))
    return calls


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_ablation_is_fine_tuned_on_the_patients_held_out_of_its_pretraining(
    chests, finetune_calls, tmp_path, monkeypatch, seed
):
    """The paper's 70k and 16k of 86k images share no patient, and together are train_val."""
    monkeypatch.setattr(task_split, "MIN_TUNING_IMAGES", 20)  # the store is small
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


def test_specs(tmp_path):
    run = Pretraining(tmp_path / "run", 1, 1, "", None)
    assert spec_of(load_initialization_plan("densenet121-c2l"), run) == str(tmp_path / "run")
    assert spec_of(load_initialization_plan("densenet121-imagenet"), None) == "imagenet:densenet121"
    assert spec_of(load_initialization_plan("densenet121-random"), None) == "random:densenet121"
    release = replace(load_initialization_plan("resnet18-random"), weights="resnet18.c2l_open26k")
    assert spec_of(release, None) == "resnet18.c2l_open26k"


def test_settings_of_every_scale_are_settings():
    for name in ("paper", "open"):
        for smoke in (False, True):
            scale = load_scale(name, smoke)
            for fraction in (0.01, 0.1, 1.0):
                Settings(**scale.settings(Measurement("finetune", "chestxray14", fraction)))
            from c2l_models.training.detection.settings import Settings as Detection

            Detection(**scale.settings(Measurement("detect", "rsna")))


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
