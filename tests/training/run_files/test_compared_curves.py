"""`c2l curves`: the monitor of several runs over their hours, on two logs written by hand."""

import csv
import json

import pytest
from PIL import Image

from c2l_models import cli
from c2l_models.errors import RunError
from c2l_models.training.run_files.compared_curves import compare_curves


def make_run(folder, batch_size, lines):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "recipe.json").write_text(json.dumps({"batch_size": batch_size}))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def train(step, speed):
    return {"kind": "train", "step": step, "images_per_second": speed}


def probed(step, epoch, **tasks):
    return {"kind": "probe", "step": step, "epoch": epoch, **tasks}


@pytest.fixture
def runs(tmp_path):
    slow = [train(90, 0.5), probed(90, 1, chest=0.6, knee=0.7), train(180, 1.0), probed(180, 2, chest=0.65, knee=0.75)]
    fast = [train(90, 2.0), {"kind": "note", "step": 90, "text": "x"}, train(100, 1.0), probed(100, 1, chest=0.5)]
    return [make_run(tmp_path / "slow", 20, slow), make_run(tmp_path / "fast", 40, fast)]


def test_each_probe_stands_at_its_hours(runs, tmp_path):
    compare_curves(runs, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").open(encoding="utf-8")))
    found = [(row["run"], row["task"], int(row["step"]), float(row["hours"]), float(row["auroc"])) for row in rows]
    # slow: 90 steps of 20 images at 0.5 images a second are one hour, 90 more at 1.0 half an hour.
    # fast: 90 steps of 40 images at 2.0 a second are half an hour, 10 more at 1.0 take 400 seconds.
    assert found == [
        ("slow", "chest", 90, 1.0, 0.6),
        ("slow", "knee", 90, 1.0, 0.7),
        ("slow", "chest", 180, 1.5, 0.65),
        ("slow", "knee", 180, 1.5, 0.75),
        ("fast", "chest", 100, pytest.approx(0.5 + 400 / 3600), 0.5),
    ]
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert len(picture.convert("L").getcolors()) > 10


def test_two_runs_of_one_name_are_told_apart(runs, tmp_path):
    other = make_run(tmp_path / "again" / "slow", 20, [train(90, 0.5), probed(90, 1, chest=0.4)])
    rows = compare_curves([runs[0], other], tmp_path / "out")
    assert {row["run"] for row in rows} == {str(runs[0]), str(other)}


def test_curves_of_an_earlier_call_are_added(runs, tmp_path, capsys):
    earlier = tmp_path / "before.csv"
    earlier.write_text("run,task,step,epoch,hours,auroc\nlong,knee,900,9.5,12.25,0.875\nlong,knee,950,10,13,\n")
    cli.main(["curves", str(runs[1]), "--out", str(tmp_path / "out"), "--earlier", str(earlier), "--html"])
    capsys.readouterr()
    *_, last, empty = (tmp_path / "out" / "curves.csv").read_text().splitlines()
    assert (last, empty) == ("long,knee,900,9.5,12.25,0.875", "long,knee,950,10.0,13.0,")
    assert "12.25" in (tmp_path / "out" / "curves.html").read_text()
    for text in ("run,task,step\nlong,knee,900\n", "run,task,step,epoch,hours,auroc\nlong,knee,900,9.5,,0.875\n"):
        earlier.write_text(text)
        with pytest.raises(RunError, match=r"before\.csv: expected the columns run, task, .*, found others"):
            compare_curves(runs, tmp_path / "out", [earlier])
    with pytest.raises(RunError, match=r"absent\.csv cannot be read: No such file"):
        compare_curves(runs, tmp_path / "out", [tmp_path / "absent.csv"])


def test_a_run_of_an_earlier_call_with_a_name_that_is_taken_is_told_apart(runs, tmp_path):
    other = make_run(tmp_path / "again" / "slow", 20, [train(90, 0.5), probed(90, 1, chest=0.4)])
    compare_curves([other], tmp_path / "before")
    earlier = tmp_path / "before" / "curves.csv"
    rows = compare_curves(runs, tmp_path / "out", [earlier])
    assert {(row["run"], row["auroc"]) for row in rows if row["task"] == "chest"} == {
        *(("slow", 0.6), ("slow", 0.65), ("fast", 0.5)),
        (f"slow ({earlier})", 0.4),
    }


def test_the_command_writes_both_files(runs, tmp_path, capsys):
    cli.main(["curves", *map(str, runs), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "curves.png")
    assert (tmp_path / "out" / "curves.csv").is_file()


def test_runs_without_probes_are_named(tmp_path):
    silent = make_run(tmp_path / "silent", 20, [train(90, 0.5)])
    with pytest.raises(RunError, match=r"found none in .*silent; set `probe_every`"):
        compare_curves([silent], tmp_path / "out")
    with pytest.raises(RunError, match=r"found no run\.json"):
        compare_curves([tmp_path], tmp_path / "out")
