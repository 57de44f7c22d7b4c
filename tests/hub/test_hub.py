"""Weight files that are read, and files that are refused with a reason."""

import errno
import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from c2l_models.errors import WeightsCorrupted, WeightsNotFound
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import locate, locate_provenance, read_verified

DATA = save({"a": torch.arange(6.0)}, metadata={"c2l": "{}"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    return path


def test_bytes_hash_and_header_are_the_files(file: Path) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    found = read_verified(file, digest.upper())
    assert (found.location, found.data, found.sha256) == (file, DATA, digest)
    assert found.header["a"]["shape"] == [6]


def test_a_folder_stands_for_its_weight_file(file: Path) -> None:
    assert locate(str(file.parent)) == file
    assert read_verified(file.parent).data == DATA


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"gone\.safetensors"):
        read_verified(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsNotFound, match=r"model\.safetensors"):
        read_verified(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("owner/name", "write hf-hub:owner/name, or run c2l download hf-hub:owner/name --to DIR"),
        ("owner/name@v1", "write hf-hub:owner/name@v1"),
        ("https://huggingface.co/owner/name", "write hf-hub:owner/name,"),
        ("https://huggingface.co/owner/name/resolve/main/model.safetensors", "write hf-hub:owner/name,"),
        ("https://example.org/a.safetensors", "curl -L -O https://example.org/a.safetensors"),
        ("folder/name.safetensors", "found no file folder/name.safetensors$"),
    ],
)
def test_a_repository_or_address_without_prefix_is_named(source: str, says: str) -> None:
    with pytest.raises(WeightsNotFound, match=says):
        read_verified(source)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for start, says in (
        (b"\x10" + bytes(7) + b"{", "at most 8,589,934,592 bytes, found 30,000,000,000"),
        (b"PK\3\4", "zip"),
    ):
        with (tmp_path / "a.safetensors").open("wb") as file:
            file.write(start)
            file.truncate(30_000_000_000)
        with pytest.raises(WeightsCorrupted, match=says):
            read_verified(tmp_path / "a.safetensors")


def test_provenance_lies_beside(file: Path, tmp_path: Path) -> None:
    alone = tmp_path / "resnet18.a.safetensors"
    alone.write_bytes(DATA)
    for source, name in ((file, "provenance.json"), (tmp_path, "provenance.json"), (alone, "resnet18.a.json")):
        with pytest.raises(WeightsNotFound, match=name.replace(".", r"\.")):
            locate_provenance(source)
        (tmp_path / name).write_text("{}")
        assert locate_provenance(source) == tmp_path / name
        (tmp_path / name).unlink()


@pytest.mark.parametrize("position", [0, len(DATA) // 2, len(DATA) - 1])
def test_one_flipped_bit_is_refused(file: Path, position: int) -> None:
    changed = bytearray(DATA)
    changed[position] ^= 1
    file.write_bytes(changed)
    with pytest.raises(WeightsCorrupted, match=r"model\.safetensors"):
        read_verified(file, hashlib.sha256(DATA).hexdigest())


@pytest.mark.parametrize("length", [1, 7, 8, 20, len(DATA) - 1])
def test_a_file_cut_short_is_refused_without_a_hash(file: Path, length: int) -> None:
    file.write_bytes(DATA[:length])
    with pytest.raises(
        WeightsCorrupted, match=r"damaged or truncated \(\d+ bytes\)|expected \d+ bytes according to its header"
    ):
        read_verified(file)


def test_bytes_after_the_end_are_refused(file: Path) -> None:
    file.write_bytes(DATA + b"\0")
    with pytest.raises(WeightsCorrupted, match=r"expected \d+ bytes according to its header, found"):
        read_verified(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickle_of_torch_is_loaded(file: Path, zipped: bool) -> None:
    torch.save({"a": torch.zeros(3)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsCorrupted, match=r"pickle.*A pickle is never loaded"):
        read_verified(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\n<!DOCTYPE html><html></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs|git lfs"),
        (b"", "empty"),
        (b"nothing that anybody knows", "not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "not a safetensors file"),
        (b"\x04\0\0\0\0\0\0\0{{{{", "not a safetensors file"),
        (b"\x15\0\0\0\0\0\0\0" + b'{"__metadata__":null}', "not a safetensors file"),
        (b"\x1b\0\0\0\0\0\0\0" + b'{"__metadata__":{"c2l":[]}}', "not a safetensors file"),
    ],
)
def test_other_content_is_refused_by_name(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    with pytest.raises(WeightsCorrupted, match=rf"model\.safetensors.*({reason})"):
        read_verified(file)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, b"half")
    assert file.read_bytes() == DATA
    assert list(file.parent.iterdir()) == [file]
