"""Pseudonyms: the key and the hash."""

import hashlib
import hmac
import os
import secrets
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
    with pytest.raises(DatasetError, match="expected a key of 32 bytes, found 5 bytes"):
        patient_key()


def test_a_kill_leaves_no_half_key_and_the_first_of_two_processes_wins(tmp_path, monkeypatch):
    key = tmp_path / "patient.key"
    monkeypatch.setenv("C2L_PATIENT_KEY", str(key))
    draw = secrets.token_bytes

    def killed(count: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(secrets, "token_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        patient_key()
    assert list(tmp_path.iterdir()) == []

    def another_process_is_faster(count: int) -> bytes:
        key.write_bytes(b"1" * count)
        return draw(count)

    monkeypatch.setattr(secrets, "token_bytes", another_process_is_faster)
    assert patient_key() == b"1" * 32
    assert list(tmp_path.iterdir()) == [key]


def test_a_key_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "file" / "patient.key"))
    with pytest.raises(DatasetError, match=r"patient\.key, the key of .*cannot be read or created: .*C2L_PATIENT_KEY"):
        patient_key()


def test_an_identity_of_bytes_that_are_no_utf8_has_a_pseudonym():
    expected = hmac.new(bytes(32), b"file caf\xe9.png", "sha256").hexdigest()[:16]
    assert pseudonym("file " + os.fsdecode(b"caf\xe9.png"), bytes(32)) == expected


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
