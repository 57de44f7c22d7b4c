"""Tasks: rows, labels and their order."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.evaluation.tasks import load_task, load_tasks, measurable_tasks
from c2l_models.training.store.image_store import ImageStore
from c2l_models.training.store.store_format import INDEX_SCHEMA


def store_of(tmp_path, *rows):
    """A store with rows (dataset, split, labels)."""
    index = [
        {"dataset": dataset, "split": split, "patient": str(n), "labels": list(labels.items())}
        for n, (dataset, split, labels) in enumerate(rows)
    ]
    images = np.zeros((len(rows), 8, 8), np.uint8)
    return ImageStore(tmp_path, images, pa.Table.from_pylist(index, INDEX_SCHEMA), "0" * 64)


def test_grades_become_findings_and_other_data_sets_stay_unknown(tmp_path):
    splits = enumerate(["train", "val"] * 2)
    knees = [("knee_kl", split, {"kl_grade": float(grade)}) for grade, split in splits]
    store = store_of(tmp_path, ("folder", "train", {"kl_grade": 3.0}), *knees, ("knee_kl", "test", {}))
    task = load_task("knee_kl")
    assert task.label_names(store) == ("kl_grade ≥ 1", "kl_grade ≥ 2", "kl_grade ≥ 3", "kl_grade ≥ 4")
    unknown = [np.nan] * 4
    steps = [unknown, [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], unknown]
    np.testing.assert_array_equal(task.labels(store), steps)
    assert task.headline in task.label_names(store)
    np.testing.assert_array_equal(task.train_rows(store), [1, 2, 3, 4])
    np.testing.assert_array_equal(task.test_rows(store), [5])


def test_chest_labels_are_in_the_paper_s_order(tmp_path):
    names = [
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
        *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
    ]
    labels = {name: float(name in ("Mass", "Hernia")) for name in sorted(names)}
    store = store_of(tmp_path, ("chestxray14", "test", labels), ("chestxray14", "train_val", labels))
    task = load_task("chestxray14")
    assert list(task.label_names(store)) == names
    np.testing.assert_array_equal(task.labels(store)[0], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(task.train_rows(store), [1])
    np.testing.assert_array_equal(task.test_rows(store), [0])
    assert task.without == ("Hernia",)


@pytest.mark.parametrize(("uncertain", "learnt"), [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_uncertain_findings_are_learnt_as_asked_and_never_tested(tmp_path, uncertain, learnt):
    five = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    sure = dict.fromkeys([*five, "Fracture"], 1.0)
    store = store_of(
        tmp_path,
        ("chexpert", "train", sure | {"Edema": -1.0}),
        ("chexpert", "val", sure | {"Edema": -1.0}),
        ("chexpert", "train", sure | {"Edema": 0.0}),
    )
    task = replace(load_task("chexpert"), uncertain=uncertain)
    assert list(task.label_names(store)) == five
    np.testing.assert_array_equal(task.labels(store)[:, 3], [learnt, np.nan, 0])
    np.testing.assert_array_equal(task.labels(store)[:, [0, 1, 2, 4]], 1)
    np.testing.assert_array_equal(task.test_rows(store), [1])


def test_what_a_report_does_not_mention_is_learnt_as_absent_and_never_tested(tmp_path):
    sure = dict.fromkeys(load_task("chexpert").findings, 1.0)
    quiet = {name: value for name, value in sure.items() if name != "Edema"}
    store = store_of(
        tmp_path,
        ("chexpert", "train", quiet),
        ("chexpert", "train", sure),
        ("chexpert", "val", quiet),
        ("chexpert", "val", sure),
        ("folder", "train", quiet),
    )
    task = load_task("chexpert")
    np.testing.assert_array_equal(task.labels(store)[:, 3], [0, 1, np.nan, 1, np.nan])
    np.testing.assert_array_equal(replace(task, unmentioned="ignore").labels(store)[0, 3], np.nan)


def test_a_folder_is_asked_for_its_binary_columns(tmp_path):
    store = store_of(
        tmp_path,
        ("folder", "train", {"mass": 1.0, "age": 71.0, "never_known": np.nan}),
        ("folder", "test", {"mass": np.nan, "effusion": 0.0}),
        ("knee_kl", "train", {"kl_grade": 1.0}),
    )
    task = load_task("folder")
    assert task.label_names(store) == ("effusion", "mass")
    np.testing.assert_array_equal(task.labels(store), [[np.nan, 1], [0, np.nan], [np.nan, np.nan]])


def test_tasks_of_a_store_are_those_with_something_to_ask(tmp_path, store):
    assert [task.name for task in load_tasks(store)] == ["folder"]
    unlabelled = store_of(tmp_path, ("folder", "train", {}), ("knee_kl", "test", {"kl_grade": 1.0}))
    assert [task.name for task in load_tasks(unlabelled)] == ["knee_kl"]


def test_a_data_set_without_a_test_part_is_left_out_and_named(tmp_path, capsys):
    chest, knees = [("chestxray14", "train_val", {"Mass": n % 2.0}) for n in range(2)], ("knee_kl", "train")
    store = store_of(tmp_path, *chest, (*knees, {"kl_grade": 1.0}), (*knees, {"kl_grade": 3.0}))
    names = [task.name for task in measurable_tasks(load_tasks(store, one_per_dataset=False), store)]
    assert names == ["chestxray14_out_of_fold"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" expects")[0] for line in lines] == [
        "chestxray14 is left out: task chestxray14",
        "knee_kl is left out: task knee_kl",
    ]


def test_a_described_data_set_has_the_task_of_a_folder(tmp_path):
    rows = [("my_hands", split, {"fracture": n % 2.0}) for n, split in enumerate(["train", "train", "test"])]
    store = store_of(tmp_path, *rows, ("fracatlas", "train", {"fractured": 1.0}), ("mura", "train", {"abnormal": 1.0}))
    task = load_task("my_hands", store)
    assert task == replace(load_task("folder"), name="my_hands", dataset="my_hands")
    assert task.label_names(store) == ("fracture",)
    np.testing.assert_array_equal(task.train_rows(store), [0, 1])
    np.testing.assert_array_equal(task.test_rows(store), [2])
    assert [task.name for task in load_tasks(store)] == ["fracatlas", "my_hands"]  # mura has no task
    with pytest.raises(DatasetError, match=r"no task is called 'my_feet'; expected one of: .*folder, my_hands$"):
        load_task("my_feet", store)


def test_tasks_without_patient_ids_say_so():
    notes = {name: load_task(name).note for name in ("chestxray14", "knee_kl", "fracatlas", "shoulder_implants")}
    assert [name for name, note in notes.items() if "no patient ids" in note] == ["fracatlas", "shoulder_implants"]


def test_what_is_not_there_is_named(store):
    with pytest.raises(DatasetError, match="expected one of: chestxray14, chestxray14_out_of_fold, chexpert"):
        load_task("chest")
    with pytest.raises(DatasetError, match=r"knee_kl in split test.*c2l prepare --source knee_kl=DIR"):
        load_task("knee_kl").test_rows(store)
    with pytest.raises(DatasetError, match="in split validation"):
        replace(load_task("folder"), test=("validation",)).test_rows(store)


def test_an_out_of_fold_task_is_evaluated_on_its_training_part(tmp_path):
    rows = [("chestxray14", split, {"Mass": 1.0}) for split in ("train_val", "test", "train_val")]
    store, task = store_of(tmp_path, *rows), load_task("chestxray14_out_of_fold")
    np.testing.assert_array_equal(task.train_rows(store), [0, 2])
    np.testing.assert_array_equal(task.evaluated_rows(store), [0, 2])
    np.testing.assert_array_equal(load_task("chestxray14").evaluated_rows(store), [1])
    with pytest.raises(DatasetError, match=r"expected a task with a test part.*5 folds.*c2l probe"):
        task.test_rows(store)
    assert [task.name for task in load_tasks(store)] == ["chestxray14"]  # one for each data set


@pytest.mark.parametrize("name", ["chestxray14", "chestxray14_out_of_fold"])
def test_images_for_pretraining_alone_are_in_no_task(tmp_path, name):
    """A store that mixes both: the marked films have labels, but no task trains or tests on them."""
    splits = ["train_val", "train_val", "test", "test", "train_val"]
    store = store_of(tmp_path, *(("chestxray14", split, {"Mass": n % 2.0}) for n, split in enumerate(splits)))

    def mark(values):
        column = store.index.column_names.index("pretraining_only")
        return replace(store, index=store.index.set_column(column, "pretraining_only", pa.array(values)))

    only, store, task = mark([True] * 5), mark([False, True, None, True, False]), load_task(name)
    np.testing.assert_array_equal(task.train_rows(store), [0, 4])
    np.testing.assert_array_equal(task.evaluated_rows(store), [0, 4] if task.folds else [2])
    np.testing.assert_array_equal(task.labels(store)[:, 0], [0, np.nan, 0, np.nan, 0])
    with pytest.raises(DatasetError, match="found none"):
        task.train_rows(only)


@pytest.mark.parametrize("name", ["folder", "knee_kl", "chestxray14"])
def test_names_and_labels_are_decoded_once(tmp_path, monkeypatch, name):
    labels = {"folder": {"b": 1.0, "a": 0.0}, "knee_kl": {"kl_grade": 2.0}, "chestxray14": {"Mass": 1.0}}[name]
    split = load_task(name).train[0]
    store, task = store_of(tmp_path, (name, split, labels), (name, split, {})), load_task(name)
    expected = task.label_names(store), task.labels(store)
    decoded, decode = [], ImageStore.labels
    monkeypatch.setattr(ImageStore, "labels", lambda store, names: decoded.append(names) or decode(store, names))
    names, values = task.names_and_labels(store)
    assert len(decoded) == 1
    assert names == expected[0]
    np.testing.assert_array_equal(values, expected[1])
