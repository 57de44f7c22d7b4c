"""A whole run on a miniature challenge: outputs, bit-identical resuming, refusals, and the command."""

import base64
import csv
import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from html_page import HtmlPage
from PIL import Image

from c2l_models.cli import main
from c2l_models.errors import C2LError, DatasetError, RunError, RunInterrupted
from c2l_models.training.detection import detector as detector_module
from c2l_models.training.detection import train as train_module
from c2l_models.training.detection.detect import detect
from c2l_models.training.detection.detector import build_detector
from c2l_models.training.detection.images import load_images
from c2l_models.training.detection.predict import predict
from c2l_models.training.detection.settings import Settings
from c2l_models.training.detection.train import batch_of
from c2l_models.training.evaluation.result import Result
from c2l_models.training.initialization import load_initialization
from c2l_models.training.run_files.log import read

from .conftest import SIDE

SMALL = Settings(size=SIDE, batch_size=4, epochs=2, lr=0.01, bootstrap=20)
OPTIONS = {"device": "cpu", "progress": False, "workers": 1}


@pytest.fixture(scope="module", autouse=True)
def narrow_pyramid():
    """Few channels, because these tests are not about the detector's cost. test_detector.py builds the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_module, "CHANNELS", 32)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(challenge, runs):
    """A run that was never stopped."""
    torch.set_num_threads(1)
    return detect("random", challenge, runs / "whole", SMALL, **OPTIONS)


def test_what_a_run_leaves(whole, runs, images):
    out = runs / "whole"
    assert {path.name for path in out.iterdir()} == {
        *("settings.json", "split.csv", "log.jsonl", "tensorboard", "model.safetensors", "detections.json"),
        *("boxes.png", "report.md", "report.csv", "figures.npz", "result.json"),
    }
    assert (whole.kind, whole.task, whole.initialization, whole.seed) == ("detect", "rsna", "random:resnet18", 0)
    assert Result.read(out).metrics.names == whole.metrics.names
    evaluated = images.of("evaluation")
    detections = json.loads((out / "detections.json").read_text())
    assert list(detections) == [images.ids[i] for i in evaluated]
    with (out / "split.csv").open(newline="") as file:
        assert [(row["image"], row["part"]) for row in csv.DictReader(file)] == images.split
    assert whole.facts["training"]["films"] + whole.facts["evaluation"]["films"] == 16
    assert whole.facts["steps"] == len(images.of("training")) // 4 * 2
    assert [line["step"] for line in read(out) if line["kind"] == "train"][-1] == whole.facts["steps"]
    report = (out / "report.md").read_text()
    assert "| mAP at 0.5 |" in report
    assert "| COCO AP |" in report
    with (out / "report.csv").open(newline="") as file:
        assert [row["figure"] for row in csv.DictReader(file)] == list(whole.metrics.names)
    assert Image.open(out / "boxes.png").width > 1000


def test_the_weights_are_the_detectors(whole, runs, images):
    detector = build_detector(load_initialization("random"), SIDE)
    detector.load_state_dict(safetensors.torch.load_file(runs / "whole" / "model.safetensors"))
    found = predict(detector, images, images.of("evaluation"), 4, torch.device("cpu"))
    detections = json.loads((runs / "whole" / "detections.json").read_text())
    for predicted, saved in zip(found, detections.values(), strict=True):
        np.testing.assert_allclose(predicted.scores, saved["scores"], atol=1e-4)
        x, y, right, bottom = predicted.boxes.T
        np.testing.assert_allclose(np.reshape(saved["boxes"], (-1, 4)).T, [x, y, right - x, bottom - y], atol=0.11)


@pytest.mark.parametrize("stop", [2, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(whole, challenge, runs, monkeypatch, stop):
    """The run is stopped within the first epoch, and at the end of the first epoch."""
    out = runs / f"stopped at {stop}"
    step, done = train_module.train_step, []

    def stopping(*arguments):
        done.append(1)
        if len(done) == stop:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(train_module, "train_step", stopping)
    with pytest.raises(RunInterrupted, match=f"stopped by SIGTERM after step {stop} of 6; resume with --resume"):
        detect("random", challenge, out, SMALL, **OPTIONS)
    monkeypatch.undo()
    result = detect("random", challenge, out, SMALL, resume=True, **OPTIONS)
    np.testing.assert_array_equal(result.metrics.values, whole.metrics.values)
    for name in ("detections.json", "report.csv"):
        assert (out / name).read_bytes() == (runs / "whole" / name).read_bytes()
    one, other = (safetensors.torch.load_file(run / "model.safetensors") for run in (out, runs / "whole"))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_a_curve_changes_nothing_else(whole, challenge, runs, monkeypatch):
    """Also if the run is stopped: each point is written once, and the last one is the reported metric."""
    curved, step, done = replace(SMALL, curve_every=2), train_module.train_step, []

    def stopping(*arguments):
        done.append(1)
        if len(done) == 5:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(train_module, "train_step", stopping)
    with pytest.raises(RunInterrupted):
        detect("random", challenge, runs / "curved", curved, **OPTIONS)
    result = detect("random", challenge, runs / "curved", curved, resume=True, **OPTIONS)
    np.testing.assert_array_equal(result.metrics.values, whole.metrics.values)
    with (runs / "curved" / "curve.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert [int(point["step"]) for point in points] == [2, 4, 6]
    for name in whole.metrics.names:
        assert float(points[-1][name]) == pytest.approx(whole.metrics[name].value, nan_ok=True)
    assert Image.open(runs / "curved" / "curve.png").width > 500


def test_other_optimizer_head_and_precision(whole, challenge, runs):
    other = replace(SMALL, head="group_norm", optimizer="adamw", lr=1e-4, precision="bfloat16", max_steps=2)
    result = detect("random", challenge, runs / "other", other, **OPTIONS)
    assert result.facts["settings"]["head"] == "group_norm"
    assert all(np.isfinite(line["loss"]) for line in read(runs / "other") if line["kind"] == "train")


def test_a_run_without_the_newest_settings_is_read(whole, challenge, runs):
    file = runs / "whole" / "settings.json"
    text = file.read_text()
    saved = json.loads(text)
    for key in ("head", "optimizer", "precision", "curve_every"):
        del saved["settings"][key]
    file.write_text(json.dumps(saved | {"code": "that of the run"}))
    detect("random", challenge, runs / "whole", SMALL, resume=True, **OPTIONS)
    assert json.loads(file.read_text())["code"] == "that of the run"  # not today's, which computed nothing
    file.write_text(text)


def test_a_run_is_not_written_over(whole, challenge, runs, tmp_path, monkeypatch):
    out = runs / "whole"
    with pytest.raises(RunError, match="whole exists; choose another folder, or resume that run with --resume"):
        detect("random", challenge, out, SMALL, **OPTIONS)
    with pytest.raises(RunError, match=r"holds another run\. These settings differ: lr: began with 0\.01, now 0\.02\."):
        detect("random", challenge, out, Settings(size=SIDE, epochs=2, lr=0.02, bootstrap=20), resume=True, **OPTIONS)
    with pytest.raises(RunError, match=r"These settings differ: .*start_sha256"):
        detect("resnet18.c2l_open26k", challenge, out, SMALL, resume=True, **OPTIONS)
    (tmp_path / "thing").touch()
    with pytest.raises(RunError, match="expected a run of `c2l detect`, found other files"):
        detect("random", challenge, tmp_path, SMALL, resume=True, store=runs / f"rsna-{SIDE}", **OPTIONS)
    monkeypatch.setattr(train_module, "train_step", None)  # a finished run is read
    again = detect("random", challenge, out, SMALL, resume=True, **OPTIONS)
    np.testing.assert_array_equal(again.metrics.resamples, whole.metrics.resamples)


def test_a_start_that_saw_a_test_patient_is_refused(challenge, runs, images, tmp_path, monkeypatch):
    seen = frozenset(images.patients[images.of("evaluation")][:1].tolist())
    monkeypatch.setattr(
        "c2l_models.training.detection.detect.load_initialization",
        lambda *_, **__: replace(load_initialization("random"), seen=seen),
    )
    store = runs / f"rsna-{SIDE}"
    with pytest.raises(DatasetError, match=r"was pretrained on 1 of the test patients.*--avoid"):
        detect("random", challenge, tmp_path / "out", SMALL, store=store, **OPTIONS)
    assert not (tmp_path / "out").exists()
    (tmp_path / "seen.txt").write_text("\n".join(seen))
    once = Settings(size=SIDE, max_steps=1, bootstrap=0)
    result = detect("random", challenge, tmp_path / "out", once, store=store, avoid=[tmp_path / "seen.txt"], **OPTIONS)
    assert result.facts["steps"] == 1
    assert "none of them in the test part" in (tmp_path / "out" / "report.md").read_text()


def test_a_test_part_without_boxes_has_no_figure(challenge, images, tmp_path):
    root = shutil.copytree(challenge, tmp_path / "copy")
    table = root / "stage_2_train_labels.csv"
    evaluated = {images.ids[i] for i in images.of("evaluation")}
    rows = [row for row in csv.reader(table.open(newline="")) if row[0] not in evaluated]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, *([name, "", "", "", "", 0] for name in sorted(evaluated))])
    once = Settings(size=SIDE, max_steps=1, bootstrap=5)
    result = detect("random", root, tmp_path / "out", once, **OPTIONS)
    assert np.isnan(result.metrics.values).all()
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| mAP at 0.2 | n/a | n/a |" in report
    assert "No image of the test part has a box" in report


def test_the_command(challenge, runs, whole, tmp_path, capsys):
    """The flags reach the run, and an error is printed as one line."""
    arguments = [
        "detect",
        "rsna",
        "--start",
        "random",
        "--data",
        str(challenge),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    arguments += ["--store", str(runs / f"rsna-{SIDE}"), "--size", str(SIDE), "--max-steps", "1", "--bootstrap", "5"]
    main([*arguments, "--html"])
    shown = capsys.readouterr().out
    assert "mAP at 0.8" in shown
    assert "COCO AP50" in shown
    page = HtmlPage(tmp_path / "out" / "report.html")
    page.check()
    sheet = base64.b64encode((tmp_path / "out" / "boxes.png").read_bytes()).decode()
    assert [of["src"] for tag, of in page.tags if tag == "img"] == [f"data:image/png;base64,{sheet}"]
    assert "contains images of films" in page.text
    figures = json.loads((tmp_path / "out" / "result.json").read_text())["figures"]
    for name, values in figures.items():
        (measured,) = page.measured(page.row("Metrics", name))
        assert measured == tuple("" if value is None else f"{value:.4f}" for value in values.values())
    logged = next(line for line in read(tmp_path / "out") if line["kind"] == "train")
    assert page.line("training loss", "boxes") == [pytest.approx((logged["step"], logged["loss_box"]), rel=1e-3)]
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]["max_steps"] == 1
    with pytest.raises(SystemExit):
        main(arguments)
    assert "out exists; choose another folder" in capsys.readouterr().err


def test_order_and_learning_rate_are_functions_of_the_step():
    settings = Settings(batch_size=4, epochs=3, warmup=0.2, lr=1.0)
    batches = [batch_of(step, 18, settings) for step in range(12)]
    for epoch in (0, 1, 2):
        assert len(set(np.concatenate(batches[4 * epoch : 4 * epoch + 4]).tolist())) == 16
    assert not np.array_equal(batches[0], batches[4])
    assert settings.total_steps(18) == 12
    assert Settings(max_steps=5).total_steps(100) == 5
    rates = [settings.lr_at(step, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.05


@pytest.mark.parametrize(
    "change",
    [{"size": 100}, {"size": 500}, {"epochs": 0}, {"lr": 0.0}, {"warmup": 1.0}, {"max_steps": 0}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(C2LError, match=f"{next(iter(change))}: expected .*, found"):
        Settings(**change)


def test_too_few_films_for_a_batch(challenge, images, tmp_path):
    many = Settings(size=SIDE, batch_size=64)
    with pytest.raises(DatasetError, match="expected at least one batch of 64 training images, found"):
        detect("random", challenge, tmp_path / "out", many, store=images.store.path, **OPTIONS)


def test_a_store_of_other_films_is_refused(challenge, tiny_store_folder):
    with pytest.raises(DatasetError, match="already exists and is not overwritten: it was built with other settings"):
        load_images(challenge, tiny_store_folder, SIDE, workers=1, progress=False)
