"""npz files with a header, and fingerprints, which must not change between versions."""

import numpy as np
import pytest

from c2l_models.errors import C2LError
from c2l_models.training.evaluation.arrays import load_npz, sample_fingerprint, save_npz


def test_header_and_arrays_come_back(tmp_path):
    values = np.array([1.5, np.nan])
    save_npz(tmp_path / "a.npz", {"names": ["x", "ü"], "more": 1}, {"values": values, "ids": np.array(["p", "q"])})
    header, arrays = load_npz(tmp_path / "a.npz", ["names"], ["values", "ids"])
    assert header == {"names": ["x", "ü"]}
    np.testing.assert_array_equal(arrays["values"], values)
    assert arrays["ids"].tolist() == ["p", "q"]


def test_a_file_of_something_else_is_damaged(tmp_path):
    with pytest.raises(C2LError, match=r"a\.npz is missing; expected the folder of a finished run"):
        load_npz(tmp_path / "a.npz", [], [])
    np.savez(tmp_path / "a.npz", values=np.zeros(2))
    with pytest.raises(C2LError, match=r"a\.npz is damaged \(KeyError\)"):
        load_npz(tmp_path / "a.npz", [], ["values"])
    save_npz(tmp_path / "a.npz", {"names": []}, {"values": np.zeros(2)})
    for keys in ((["sample"], ["values"]), (["names"], ["resamples"])):
        with pytest.raises(C2LError, match=r"damaged \(KeyError\)"):
            load_npz(tmp_path / "a.npz", *keys)


def test_a_fingerprint_depends_on_all_of_the_sample():
    truth, patients = np.array([[0.0, 1.0]]), np.array(["a", "b"])
    samples = [
        ((2, 20), truth, patients),
        ((2, 21), truth, patients),
        ((2, 20), 1 - truth, patients),
        ((2, 20), truth, patients[::-1]),
    ]
    assert len({sample_fingerprint(*sample) for sample in samples}) == 4


def test_a_fingerprint_is_the_string_of_earlier_runs():
    """A stored run can be paired with a new run only if the fingerprint does not change."""
    expected = "6b33627fd580d2db09bfd8d3503c3b64ab880f5e42b316245bdfd5ae38906adf"
    assert sample_fingerprint(((1, 2), 20, 0), np.array([[0.0, 1.0]]), np.array(["a"])) == expected
