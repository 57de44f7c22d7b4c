"""Tasks on a part of their patients, and the patients that a detector must not be tested on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.batches import training_rows
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.reproduce.data import DataMissing
from c2l_models.training.reproduce.patient_tasks import (
    held_out_task,
    patient_share_task,
    write_pretraining_patients,
)
from c2l_models.training.reproduce.plan import load_initialization_plan, load_scale, load_table, recipe_of
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA


def test_without_held_out_the_task_is_as_it_is(chests):
    assert patient_share_task("chestxray14", 0, "few_labels") == load_task("chestxray14")
    tenth = patient_share_task("chestxray14", 0.1, "probe_tuning")
    assert 0 < len(tenth.train_rows(chests)) < 300
    assert tenth.test_rows(chests).tolist() == load_task("chestxray14").test_rows(chests).tolist()
    with pytest.raises(DatasetError, match="no task"):
        patient_share_task("nothing", 0.1, "few_labels")


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


def test_without_pretraining_data_nobody_is_to_be_avoided(tmp_path):
    class Stores:
        def get(self, datasets, sha256=""):
            raise DataMissing("none")

    assert write_pretraining_patients(load_scale("open"), Stores(), tmp_path) == []


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
