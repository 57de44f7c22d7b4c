"""`c2l doctor`: facts of a sound machine, and what it says of a broken one."""

import itertools
import math
import shutil
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from c2l_models import doctor
from c2l_models.cli import main
from c2l_models.doctor import Finding, examine


def findings(check, *arguments):
    return {finding.subject: finding for finding in check(*arguments)}


def test_a_sound_machine_has_no_problem(capsys):
    main(["doctor", "--device", "cpu"])
    text = capsys.readouterr().out
    assert text.endswith("no problem found\n")
    subjects = [line.split()[1] for line in text.splitlines()[:-1]]
    assert [*dict.fromkeys(subjects)] == [
        *("versions", "GPU", "bfloat16", "memory", "disk", "temporary", "cache", "decoders", "weights", "step")
    ]
    for fact in (f"torch {version('torch')}", "PNG, JPEG, TIFF, BMP, DICOM", "features as recorded", "on cpu"):
        assert fact in text


def test_a_problem_is_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda device: iter([Finding("disk", "0 GB free", "free some space")]))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    text = capsys.readouterr().out
    assert text == "PROBLEM disk       0 GB free\n                   free some space\n1 problem found\n"


def test_a_full_disk_and_a_cache_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    assert "free some space" in findings(doctor._disk)["disk"].problem
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert "set HF_HOME" in findings(doctor._disk)["cache"].problem


def test_a_driver_without_a_gpu_for_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch has no CUDA" in findings(doctor._gpu)["GPU"].problem
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "for CUDA 13.0 finds no GPU" in findings(doctor._gpu)["GPU"].problem


def test_old_libraries(monkeypatch):
    installed = doctor.version
    monkeypatch.setattr(doctor, "requires", lambda name: ["timm>=1.0.16", 'pydicom>=3.0; extra == "dicom"'])
    monkeypatch.setattr(doctor, "version", lambda name: "1.0.9" if name == "timm" else installed(name))
    assert findings(doctor._versions)["versions"].problem.startswith("timm 1.0.9: expected >=1.0.16; run pip install")
    monkeypatch.setattr(doctor, "version", lambda name: "1.0.16+local" if name == "timm" else installed(name))
    assert not findings(doctor._versions)["versions"].problem


def test_missing_decoders(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "FORMATS", ("PNG", "NO SUCH FORMAT"))
    found = findings(doctor._decoders)["decoders"]
    assert found.fact == ("PNG; not DICOM, JPEG in DICOM, JPEG 2000 in DICOM: pip install 'c2l-models[dicom]'")
    assert found.problem.startswith("NO SUCH FORMAT: ")


@pytest.mark.parametrize("wrong", [2.0, math.nan])
def test_a_device_that_computes_something_else(wrong, monkeypatch):
    losses = doctor._losses
    monkeypatch.setattr(
        doctor, "_losses", lambda device, precision: losses("cpu", precision) if device == "cpu" else [wrong] * 3
    )
    found = list(doctor._step("cpu:0"))
    assert all("do not train on this device" in finding.problem for finding in found)
    assert [finding.fact.split()[0] for finding in found] == ["float32", "bfloat16"]


def test_a_tiny_step_learns_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    losses = doctor._losses("cpu", "float32")
    assert losses[-1] < losses[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(doctor, "_gpu", broken)
    found = list(examine("cpu"))
    assert [f.problem for f in found if f.problem] == ["RuntimeError: CUDA error: no kernel image is available"]
    assert found[-1].subject == "step"


def test_a_device_of_an_unknown_name_is_one_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--device", "foo"])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "c2l: expected a device such as cpu, cuda or cuda:0, found 'foo'\n"


def test_a_device_that_this_machine_lacks_is_one_problem():
    """torch refuses to compute on meta; three checks need the device."""
    found = list(examine("meta"))
    (problem,) = [finding for finding in found if finding.problem]
    assert problem.subject == "bfloat16"
    assert problem.problem.startswith("device 'meta' cannot be used with torch")


def test_each_check_has_a_name(monkeypatch):
    number = itertools.count()

    def broken(*_):
        raise OSError(f"cause {next(number)}")

    for name in ("_versions", "_gpu", "_precision", "_memory", "_disk", "_decoders", "_weights", "_step"):
        monkeypatch.setattr(doctor, name, broken)
    subjects = [finding.subject for finding in examine()]
    assert subjects == ["versions", "GPU", "bfloat16", "memory", "disk", "decoders", "weights", "step"]
