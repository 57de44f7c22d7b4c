"""Pseudonyms: the key, the hash, and paths without numbers of patients."""

import hashlib
import stat

import pytest

from c2l_models.errors import DatasetError
from c2l_models.training.datasets.pseudonym import Pseudonyms, key_path, patient_key, pseudonym


def test_the_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    key = tmp_path / "deep" / "patient.key"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(key))
    first = patient_key()
    assert key_path() == key
    assert len(first) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert patient_key() == first
    key.write_bytes(b"short")
    with pytest.raises(DatasetError, match="5 bytes, wanted 32"):
        patient_key()


def test_the_pseudonym_is_hmac_sha256():
    key = bytes(range(32))
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + b"patient 7").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()
    assert pseudonym("patient 7", key) == outer[:16]


def test_a_number_has_another_pseudonym_in_another_data_set():
    assert Pseudonyms("chexpert").patient("00001") != Pseudonyms("mura").patient("00001")
    assert Pseudonyms("chexpert").patient("00001") == Pseudonyms("chexpert").patient("1")
    assert Pseudonyms("a").patient("1") != Pseudonyms("a").study("1")
