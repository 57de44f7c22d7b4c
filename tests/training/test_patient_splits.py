"""Patients are drawn with all images, by their ids alone; no two streams share patients by accident."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from c2l_models.training.patient_splits import STREAMS, patient_folds, split_patients

IDS = np.array([f"chestxray14:{number:08d}" for number in range(10_000)])
SHARED = {("pretraining", "detection")}
"""Streams that share their number on purpose."""


def test_patients_are_split_whole_and_by_their_name_alone():
    patients = np.array([f"p{number % 2000}" for number in range(6000)])
    mask = split_patients(patients, 0.2, "probe_tuning", 3)
    assert mask.dtype == bool
    held = set(patients[mask])
    assert held.isdisjoint(patients[~mask])
    assert abs(len(held) / 2000 - 0.2) < 0.03  # 3.4 standard deviations of a binomial
    for position in (0, 1, 2, 1999):  # slow restatement
        digest = hashlib.sha256(f"2000003:p{position}".encode()).hexdigest()
        assert mask[position] == (int(digest[:16], 16) < 0.2 * 16**16)
    order = np.random.default_rng(0).permutation(6000)
    np.testing.assert_array_equal(split_patients(patients[order], 0.2, "probe_tuning", 3), mask[order])
    np.testing.assert_array_equal(split_patients(patients[:50], 0.2, "probe_tuning", 3), mask[:50])
    assert (split_patients(patients, 0.2, "probe_tuning", 4) != mask).any()
    assert not split_patients(patients, 0.0, "probe_tuning", 3).any()
    assert split_patients(patients, 1.0, "probe_tuning", 3).all()


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_two_streams_agree_on_a_tenth_of_the_patients(seed):
    tenths = {stream: split_patients(IDS, 0.1, stream, seed) for stream in STREAMS}
    for one, other in combinations(STREAMS, 2):
        if (one, other) in SHARED:
            assert np.array_equal(tenths[one], tenths[other])
        else:  # independent tenths share a hundredth; the bounds are five standard deviations away
            assert 0.005 < (tenths[one] & tenths[other]).mean() < 0.015, (one, other)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_patients_of_released_results_are_still_drawn(seed):
    """The numbers that version 0.1 hashed with; fine-tuning's are the first 32 bits of numpy's seed sequence."""
    words = {"finetuning_labels": (seed, 0), "finetuning_held_out": (seed, 1)}
    numbers = {"pretraining": 0, "detection": 0, "few_labels": 1_000_000, "monitor": 1_000_001}
    numbers |= {"probe_tuning": 2_000_000 + seed, "out_of_fold": 1_000_002, "few_shot": 3_000_000 + seed}
    numbers |= {name: int(np.random.SeedSequence(pair).generate_state(1)[0]) for name, pair in words.items()}
    assert numbers.keys() == STREAMS.keys()
    for stream, number in numbers.items():
        expected = [int(hashlib.sha256(f"{number}:{name}".encode()).hexdigest()[:16], 16) / 16**16 for name in IDS[:99]]
        assert split_patients(IDS[:99], 0.3, stream, seed).tolist() == [value < 0.3 for value in expected], stream


def test_folds_divide_the_patients_by_their_name_alone():
    patients = np.array([f"p{number % 2000}" for number in range(6000)])
    folds = patient_folds(patients, 5, "probe_tuning", 3)
    for position in (0, 1, 2, 1999):  # slow restatement
        digest = hashlib.sha256(f"2000003:p{position}".encode()).hexdigest()
        assert folds[position] == int(digest[:16], 16) * 5 // 16**16
    assert all(len(set(folds[patients == patient])) == 1 for patient in patients[:50])
    assert np.bincount(folds[:2000]).min() > 400 - 5 * 18  # 5 standard deviations of a binomial
    np.testing.assert_array_equal(folds == 0, split_patients(patients, 0.2, "probe_tuning", 3))
    np.testing.assert_array_equal(folds[:50], patient_folds(patients[:50], 5, "probe_tuning", 3))
    assert (patient_folds(patients, 5, "out_of_fold", 1) == patient_folds(patients, 5, "out_of_fold", 2)).all()
