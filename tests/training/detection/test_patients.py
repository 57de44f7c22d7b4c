"""The test part: a fifth of the patients, drawn by hash, without those to avoid."""

import csv
import inspect
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from c2l_models.errors import DatasetError
from c2l_models.publishing.convert import convert
from c2l_models.training.datasets import rsna
from c2l_models.training.detection.patients import check_unseen, evaluation_part, patients_of
from c2l_models.training.initialization import Initialization
from c2l_models.training.run_files.backbone import describe_initialization

PATIENTS = np.array([f"chestxray14:{i // 2:08}" for i in range(2000)])


def initialization(*seen):
    return Initialization("mine", "resnet18", nn.Identity(), 128, 0.5, 0.25, {}, frozenset(seen))


def test_a_fifth_of_the_patients_each_whole():
    mask = evaluation_part(PATIENTS, frozenset())
    assert 0.17 < mask.mean() < 0.23
    assert not set(PATIENTS[mask]) & set(PATIENTS[~mask])
    order = np.random.default_rng(0).permutation(len(PATIENTS))
    assert (evaluation_part(PATIENTS[order], frozenset()) == mask[order]).all()


def test_patients_to_avoid_train_and_others_take_their_place():
    avoid = frozenset(PATIENTS[:1000].tolist())
    mask = evaluation_part(PATIENTS, avoid)
    assert not mask[:1000].any()
    assert 0.17 < mask.mean() < 0.23
    assert (mask >= evaluation_part(PATIENTS, frozenset()))[1000:].all()  # patients drawn without `avoid` stay drawn
    few = frozenset(PATIENTS[:-20].tolist())
    assert evaluation_part(PATIENTS, few).sum() == 20
    with pytest.raises(DatasetError, match="found all 1,000 among those to avoid"):
        evaluation_part(PATIENTS, frozenset(PATIENTS.tolist()))


def test_patients_of_stores_and_lists(tiny_store, tiny_store_folder, tmp_path):
    images, patients = tmp_path / "train_val_list.txt", tmp_path / "patients.txt"
    images.write_text("00001336_000.png\r\n00001336_004.png\n\n00000002_000.png")
    patients.write_text("chestxray14:00000003\n")
    listed = {f"chestxray14:{name}" for name in ("00001336", "00000002", "00000003")}
    assert patients_of([images, patients]) == listed
    assert patients_of([tiny_store_folder, images, patients]) == listed | set(tiny_store.patients)
    assert patients_of([]) == frozenset()


@pytest.mark.parametrize("text", ["00001336_000.jpg", "Image Index", "1336", "a, chestxray14:00000001"])
def test_a_list_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "list.txt").write_text(f"00001336_000.png\n{text}\n")
    with pytest.raises(DatasetError, match=r"list\.txt, line 2: expected an image .*, found .*; correct the line"):
        patients_of([tmp_path / "list.txt"])
    with pytest.raises(DatasetError, match="cannot be read; expected a folder of `c2l prepare`, or a text file"):
        patients_of([tmp_path])


def test_a_start_that_has_seen_whom_it_is_measured_on_is_refused():
    with pytest.raises(DatasetError, match=r"mine was pretrained on 1 of .*: chestxray14:00000007; .*--avoid"):
        check_unseen(initialization("chestxray14:00000007", "chestxray14:00099999"), PATIENTS)
    check_unseen(initialization("chestxray14:00099999"), PATIENTS)
    unmapped = np.append(PATIENTS, "rsna:0004cfab")
    with pytest.raises(DatasetError, match="the patients of 1 test images are unknown; put RSNA's"):
        check_unseen(initialization("chestxray14:00099999"), unmapped)
    check_unseen(initialization("knee_kl:9000099"), unmapped)
    check_unseen(initialization(), unmapped)


def test_rsna_images_of_unknown_patients_are_not_taken_for_unseen():
    unmapped, mapped = np.array(["rsna:0004cfab", "rsna:0004cfac"]), PATIENTS[:2]
    with pytest.raises(DatasetError, match=r"patients of mine: expected ids of ChestX-ray14 .*, found 1 RSNA images"):
        check_unseen(initialization("rsna:0004cfab"), mapped)
    with pytest.raises(DatasetError, match=r"the patients to avoid: expected .*; prepare their store again"):
        evaluation_part(mapped, frozenset(["rsna:0004cfab"]))
    with pytest.raises(DatasetError, match=r"to avoid are of ChestX-ray14, and the patients of 2 RSNA images are unkn"):
        evaluation_part(unmapped, frozenset(["chestxray14:00000007"]))
    with pytest.raises(DatasetError, match="the patients of 2 test images are unknown"):
        check_unseen(initialization("rsna:0004cfad"), unmapped)
    listed = replace(initialization(), seen=None, about={"trained_on": ["rsna train: 26684 images, 26684 patients"]})
    with pytest.raises(DatasetError, match="expected a list of its pretraining patients, found none"):
        check_unseen(listed, mapped)


def test_weights_whose_images_nobody_stated_are_not_taken_for_unseen():
    converted = inspect.signature(convert).parameters["trained_on"].default
    of_a_run = describe_initialization({"name": "x", "patients": None})
    unknown = replace(initialization(), seen=None)
    for lines in (converted, ["knee_kl train: 9 images, 9 patients", *of_a_run]):
        with pytest.raises(DatasetError, match="it may have seen RSNA's images"):
            check_unseen(replace(unknown, about={"trained_on": list(lines)}), PATIENTS)
    check_unseen(replace(unknown, about={"trained_on": ["knee_kl train: 9 images, 9 patients"]}), PATIENTS)


def test_the_published_split_of_the_339_films(real_data, repository):
    """It follows from the rule, and none of its evaluation patients is in ChestX-ray14's training list."""
    records = rsna.records(real_data / "rsna-pneumonia")
    avoid = patients_of([real_data / "chestxray14" / "train_val_list.txt"])
    patients = np.array([record.patient for record in records])
    mask = evaluation_part(patients, avoid)
    with (repository / "training" / "detection" / "rsna_pneumonia_339.csv").open(newline="") as file:
        published = {row["image"]: row["part"] for row in csv.DictReader(file)}
    parts = {r.path.stem: "evaluation" if m else "training" for r, m in zip(records, mask, strict=True)}
    assert published == parts
    assert np.isin(patients, sorted(avoid)).sum() == 93
    assert not avoid & set(patients[mask])
    assert sum(record.labels["pneumonia"] for record, m in zip(records, mask, strict=True) if m) >= 20
