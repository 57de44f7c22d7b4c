"""The whole way from films to metrics through the commands: each uses the output of the command before."""

import json
import re

import pytest
from labelled_films import draw_films

from c2l_models import cli


@pytest.mark.training
def test_from_films_to_figures(tmp_path, monkeypatch, capsys):
    """prepare, pretrain, resume, export, probe, embed: each uses the output of the command before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("C2L_PATIENT_KEY", str(tmp_path / "patient.key"))
    (tmp_path / "patient.key").write_bytes(bytes(32))  # pseudonyms decide who is held out: the same each time
    draw_films(tmp_path / "films")

    cli.main(["prepare", "--source", "folder=films", "--out", "store", "--size", "32", "--workers", "1"])
    assert "80 images" in capsys.readouterr().out

    values = {
        "size": 32,
        "batch-size": 8,
        "batch-norm-group": 4,
        "queue-length": 29,
        "epochs": 1,
        "probe-every": 0,
    }
    overrides = [text for key, value in values.items() for text in (f"--recipe.{key}", str(value))]
    pretrain = ["pretrain", "smoke", "--store", "store", "--out", "run", "--device", "cpu", *overrides]
    cli.main([*pretrain, "--max-seconds", "0"])
    assert "backbone.safetensors" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["queue_length"] == 29

    for more, named in (([], "--resume"), (["--resume", "--recipe.temperature", "0.9"], "temperature")):
        with pytest.raises(SystemExit) as stop:
            cli.main([*pretrain, *more])
        assert stop.value.code == 2
        assert named in capsys.readouterr().err
    cli.main([*pretrain, "--resume"])
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 7

    cli.main(["export", "run", "--out", "mine.safetensors", "--tag", "mine"])
    assert (tmp_path / "mine.safetensors").stat().st_size > 20e6
    capsys.readouterr()

    probe = [
        "probe",
        "mine.safetensors",
        "--store",
        "store",
        "--out",
        "probe",
        "--task",
        "folder",
        "--no-floors",
    ]
    cli.main(probe)
    assert "finding" in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / "probe").iterdir()} >= {".csv", ".json"}
    metrics = (tmp_path / "probe" / "report.csv").read_text()
    assert any(0.6 < float(number) <= 1 for number in re.findall(r"\d\.\d+", metrics))

    cli.main(["embed", "films", "--out", "features.parquet", "--model", "mine.safetensors"])
    assert "80 films" in capsys.readouterr().out
