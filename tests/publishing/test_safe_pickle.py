"""Checkpoints are read without running code; hostile files of every format are refused by their globals."""

import argparse
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from c2l_models.errors import C2LError
from c2l_models.publishing.safe_pickle import SAFE_TORCH, read_tensors

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH, reason="read_tensors refuses this torch"
)


class Hostile:
    """An object that creates a file when it is unpickled normally."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def write(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


FORMATS = {
    "zip": lambda path, content: torch.save(content, path),
    "zip, protocol 4": lambda path, content: torch.save(content, path, pickle_protocol=4),
    "legacy": lambda path, content: torch.save(content, path, _use_new_zipfile_serialization=False),
    "legacy, protocol 4": lambda path, content: torch.save(
        content, path, _use_new_zipfile_serialization=False, pickle_protocol=4
    ),
    **{
        f"bare, protocol {n}": lambda path, content, n=n: path.write_bytes(pickle.dumps(content, n))
        for n in (0, 2, 4, 5)
    },
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(form: str, tmp_path: Path) -> None:
    path, made = tmp_path / "hostile.pth", tmp_path / "made"
    FORMATS[form](path, {"model": {"conv1.weight": torch.ones(1)}, "opt": Hostile(made)})
    with pytest.raises(
        C2LError,
        match=r"hostile\.pth: expected only tensors, found a pickle that needs .*\.exec, .*code; none was run",
    ):
        read_tensors(path)
    assert not made.exists()
    if form.startswith("bare"):  # the payload works: a normal load runs it
        pickle.loads(path.read_bytes())
        assert made.exists()


def test_the_payload_is_live_in_torchs_formats_too(tmp_path: Path) -> None:
    path, made = tmp_path / "hostile.pth", tmp_path / "made"
    torch.load(write(path, Hostile(made)), weights_only=False)
    assert made.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        ({"a": np.float64(1)}, r"numpy\S*\.scalar"),
        ({"a": Path("a")}, r"pathlib\S*\.PosixPath"),
    ],
    ids=["module", "numpy", "path"],
)
def test_classes_beyond_namespace_are_refused(content: object, named: str, tmp_path: Path) -> None:
    with pytest.raises(C2LError, match=named):
        read_tensors(write(tmp_path / "a.pth", content))


def test_namespace_is_allowed_for_one_load_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"opt": argparse.Namespace(lr=0.03), "model": {"a": torch.ones(2)}})
    assert list(read_tensors(path)) == ["model.a"]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_tensors_go_by_the_path_of_their_keys(new: bool, tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "model": nn.Linear(2, 3).state_dict(),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(1)}}, "param_groups": [{"lr": 1.0}]},
        "queue": torch.zeros(4),
        "deep": {"er": {"still": nn.Parameter(torch.ones(1))}},
    }
    path = write(tmp_path / "a.pth", content, _use_new_zipfile_serialization=new)
    found = read_tensors(path)
    assert sorted(found) == ["deep.er.still", "model.bias", "model.weight", "queue"]
    assert torch.equal(found["model.weight"], content["model"]["weight"])
    assert not any(tensor.requires_grad for tensor in found.values())


def test_a_table_that_holds_itself(tmp_path: Path) -> None:
    content: dict = {"a": torch.ones(1)}
    content["self"] = content
    assert "a" in read_tensors(write(tmp_path / "a.pth", content))


def torn(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.99, 0.5, 0.02])
def test_a_torn_file(new: bool, share: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"a": torch.ones(1000)}, _use_new_zipfile_serialization=new)
    torn(path, share)
    with pytest.raises(
        C2LError,
        match=r"a\.pth: expected a torch.save checkpoint .* truncated, damaged or other file .* Copy or download",
    ):
        read_tensors(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    for name, data in {"text": b"hello, world", "html": b"<html>404</html>", "noise": bytes(range(256)) * 9}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(C2LError, match=f"{name}: expected a torch.save checkpoint with only tensors"):
            read_tensors(tmp_path / name)
    (tmp_path / "empty").touch()
    with pytest.raises(C2LError, match="empty: the file is empty"):
        read_tensors(tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(C2LError, match=r"archive: expected a torch\.save checkpoint with only tensors"):
        read_tensors(tmp_path / "archive")
    with pytest.raises(C2LError, match=r"expected a checkpoint written by torch\.save, found no file .*absent"):
        read_tensors(tmp_path / "absent")
    with pytest.raises(C2LError, match="expected a state dict, found a list without named tensors"):
        read_tensors(write(tmp_path / "list.pth", [torch.ones(1)]))


def test_a_torch_with_a_hole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.pth", {"weight": torch.ones(1)})
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(C2LError, match=r"expected torch 2\.10 or later, .*CVE-2026-24747"):
        read_tensors(path)
