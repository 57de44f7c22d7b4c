"""Parts share no patient, and smaller shares of the labels are part of larger ones."""

from dataclasses import replace

import numpy as np
import pytest

from c2l_models.errors import DatasetError, RecipeError, RunError
from c2l_models.training.evaluation import predictions
from c2l_models.training.evaluation.tasks import check_no_shared_patients, load_task
from c2l_models.training.finetuning import task_split
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.finetuning.task_split import MIN_TUNING_IMAGES, split_task
from c2l_models.training.patient_splits import split_patients


def test_three_parts_share_no_patient(store):
    split = split_task(load_task("folder"), store, Settings())
    patients = [set(store.patients[rows]) for rows in (split.fit, split.tune, split.test)]
    assert all(patients)
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert len(split.fit) + len(split.tune) == 79  # one image of 80 has no label
    assert len(split.test) == 40
    other = split_task(load_task("folder"), store, Settings(seed=2))
    assert set(other.tune) != set(split.tune)
    assert np.array_equal(other.test, split.test)


def test_a_patient_on_both_sides_is_refused(store):
    split = store.index["split"].to_pylist()
    split[0] = "test"  # the other image of its patient is trained on
    column = store.index.schema.get_field_index("split")
    mixed = replace(store, index=store.index.set_column(column, store.index.schema.field(column), [split]))
    with pytest.raises(RunError, match=r"found 1 patients in both the training and the test part \(folder:000"):
        split_task(load_task("folder"), mixed, Settings())
    with pytest.raises(RunError, match="2 patients"):
        check_no_shared_patients(store, np.array([0, 2, 4]), np.array([1, 3, 7]))


def test_shares_are_nested_and_of_whole_patients():
    patients = np.repeat([f"p{n}" for n in range(3000)], 2)
    shares = {fraction: split_patients(patients, fraction, "finetuning_labels", 5) for fraction in (0.01, 0.1, 1.0)}
    assert shares[1.0].all()
    assert not (shares[0.01] & ~shares[0.1]).any()
    for fraction in (0.01, 0.1):
        assert shares[fraction].mean() == pytest.approx(fraction, rel=0.35)
        assert np.array_equal(shares[fraction][::2], shares[fraction][1::2])
    assert not np.array_equal(shares[0.1], split_patients(patients, 0.1, "finetuning_labels", 6))


def test_a_small_share_still_has_both_parts():
    """With one hash for both splits, all of a tenth of the patients would be held out; the same for a task's share."""
    patients = np.array([f"p{n}" for n in range(4000)])
    for seed in (0, 1, 2):
        for used in (
            split_patients(patients, 0.1, "finetuning_labels", seed),
            split_patients(patients, 0.1, "pretraining", seed),
        ):
            assert split_patients(patients[used], 0.2, "finetuning_held_out", seed).mean() == pytest.approx(
                0.2, abs=0.07
            )


def test_too_few_patients_are_said(store):
    with pytest.raises(DatasetError, match=r"both classes .* images from 0\.01 of the training patients of folder"):
        split_task(load_task("folder"), store, Settings(fraction=0.01))
    with pytest.raises(DatasetError, match="chestxray14 in split train_val, found none in the store"):
        split_task(load_task("chestxray14"), store, Settings())


def test_all_labelled_images_are_trained_on_if_nothing_is_held_out(store):
    split = split_task(load_task("folder"), store, Settings(hold_out=0))
    assert (len(split.fit), len(split.tune), split.epoch_rule) == (79, 0, "last: hold_out is 0")


def test_few_held_out_images_or_positives_choose_no_epoch(store, monkeypatch):
    task, usual = load_task("folder"), split_task(load_task("folder"), store, Settings())
    held_out = task.labels(store)[usual.tune]
    positives = max(min((column == 1).sum(), (column == 0).sum()) for column in held_out.T)
    limits = [(task_split, "MIN_TUNING_IMAGES", len(held_out)), (predictions, "MIN_CASES", positives)]
    for module, name, limit in limits:
        monkeypatch.setattr(module, name, limit)
        assert np.array_equal(split_task(task, store, Settings()).tune, usual.tune)
        monkeypatch.setattr(module, name, limit + 1)
        split = split_task(task, store, Settings())
        assert (len(split.fit), len(split.tune)) == (79, 0)
        assert split.epoch_rule.startswith("last: ")
        monkeypatch.setattr(module, name, 1)


def test_one_percent_of_the_open_chests_chooses_no_epoch():
    """8,508 images of 2,497 patients: a percent has about 85 images, and holds out about 17."""
    patients = np.array([f"chestxray14:{number % 2497:08}" for number in range(8508)])
    for seed in range(10):
        used = patients[split_patients(patients, 0.01, "finetuning_labels", seed)]
        assert split_patients(used, 0.2, "finetuning_held_out", seed).sum() < MIN_TUNING_IMAGES
        tenth = patients[split_patients(patients, 0.1, "finetuning_labels", seed)]
        assert split_patients(tenth, 0.2, "finetuning_held_out", seed).sum() >= MIN_TUNING_IMAGES


@pytest.mark.parametrize(
    "wrong", [{"fraction": 0.0}, {"fraction": 1.5}, {"layer_decay": 0.0}, {"hold_out": 1.0}, {"batch_size": 1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Settings(**wrong)
