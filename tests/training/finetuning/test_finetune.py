"""Fine-tuning from an initialization to a result: learning, bit-identical resuming, reports and refusals."""

import hashlib
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from html_page import HtmlPage
from safetensors import safe_open
from safetensors.torch import load_file

from c2l_models.cli import main
from c2l_models.errors import C2LError, RunError, RunInterrupted
from c2l_models.training.evaluation.predictions import Predictions
from c2l_models.training.evaluation.result import Result
from c2l_models.training.evaluation.tasks import load_task
from c2l_models.training.finetuning import finetune as finetune_module
from c2l_models.training.finetuning import task_split
from c2l_models.training.finetuning.finetune import finetune
from c2l_models.training.finetuning.finetuning_run import FinetuningRun
from c2l_models.training.finetuning.settings import Settings
from c2l_models.training.finetuning.task_split import TaskSplit

from .conftest import small_initialization

pytestmark = pytest.mark.usefixtures("small_network")


def finetune_small(store, out, settings, **options):
    return finetune("small", store, "folder", out, settings, "cpu", progress=False, **options)


def read_log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_what_it_should(store, settings, tmp_path):
    out = tmp_path / "run"
    result = finetune_small(store, out, replace(settings, epochs=6))
    lines = read_log(out)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert result.metrics["bright"].value > 0.9
    assert np.isnan(result.metrics["rare"].value)  # never positive in the images to fit
    assert np.isnan(result.metrics["always"].value)  # one class only in the test part
    assert result.metrics["mean"].value == result.metrics["bright"].value

    assert Result.is_done(out)
    found = {path.name for path in out.iterdir()}
    assert found >= {
        "settings.json",
        "log.jsonl",
        "model.safetensors",
        "predictions.npz",
        "report.md",
        "report.csv",
        "roc.png",
    }
    assert "checkpoints" not in found
    best = max(lines, key=lambda line: line["tuning_auroc"])
    assert result.facts["epoch"] == best["epoch"]
    assert result.facts["epoch_rule"] == "best on the tuning patients"
    assert "Means leave out" in (out / "report.md").read_text()

    # The saved network is the network that was measured.
    init = small_initialization()
    network = init.network
    network.reset_classifier(3)
    network.load_state_dict(load_file(out / "model.safetensors"))
    predictions = Predictions.load(out)
    column = list(predictions.labels).index("bright")
    with torch.inference_mode():
        images = (store[np.arange(80, 120)].float() / 255 - 0.5) / 0.25
        scores = network.eval()(images)[:, column].numpy()
    order = np.argsort(scores)
    assert np.array_equal(order, np.argsort(predictions.scores[:, column]))
    with safe_open(out / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["c2l-finetuned"])
    assert (about["labels"], about["mean"], about["size"]) == (list(predictions.labels), 0.5, 32)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("hold_out", "reason"), [(0.0, "hold_out is 0"), (0.05, "6 images would be held out, fewer than 10")]
)
def test_without_tuning_patients_the_last_epoch_is_tested(store, settings, tmp_path, monkeypatch, hold_out, reason):
    after_training, evaluate = {}, finetune_module.evaluate

    def keep(run, *arguments):
        after_training.update({key: value.clone() for key, value in run.network.state_dict().items()})
        return evaluate(run, *arguments)

    monkeypatch.setattr(finetune_module, "evaluate", keep)
    result = finetune_small(store, tmp_path / "run", replace(settings, hold_out=hold_out))
    assert (result.facts["fit_images"], result.facts["tune_images"]) == (79, 0)  # every labelled image is trained on
    assert (result.facts["epoch"], result.facts["tuning_auroc"]) == (3, None)
    assert result.facts["epoch_rule"] == f"last: {reason}"
    assert not any("tuning_auroc" in line for line in read_log(tmp_path / "run"))
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[key], after_training[key]) for key in saved)
    assert f"epoch 3 of 3 was tested, the last: {reason}." in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_the_epoch_is_chosen_by_the_headline(store, settings, tmp_path, monkeypatch):
    """A label outside the headline, and a label with a single positive image, do not move the choice."""
    labels = load_task("folder").labels(store)
    names = load_task("folder").label_names(store)
    epochs = iter([(0.9, 0.0), (0.6, 1.0), (0.7, 1.0)])  # AUROC of `bright`, and of all other labels

    def predict(run, store, rows):
        if len(rows) == 40:  # the test part
            return np.zeros((40, len(names)), np.float32)
        bright, others = next(epochs)
        scores = np.stack([scores_with(labels[rows, i], others) for i in range(len(names))], axis=1)
        scores[:, names.index("bright")] = scores_with(labels[rows, names.index("bright")], bright)
        return scores

    monkeypatch.setattr(FinetuningRun, "predict", predict)
    task = replace(load_task("folder"), headline="bright")
    result = finetune("small", store, task, tmp_path / "run", settings, "cpu", progress=False)
    assert result.facts["epoch"] == 1
    assert result.facts["tuning_auroc"] == pytest.approx(0.9, abs=0.1)


def scores_with(labels, auroc):
    """Scores [N] that order about this share of the pairs of a positive and a negative image correctly."""
    scores = np.zeros(len(labels), np.float32)
    scores[labels == 1] = 1
    negatives = np.flatnonzero(labels == 0)
    scores[negatives[: round((1 - auroc) * len(negatives))]] = 2
    return scores


@pytest.mark.usefixtures("no_pictures")
def test_a_run_interrupted_under_another_rule_is_not_resumed(store, settings, tmp_path, monkeypatch):
    def stopping(*arguments):
        raise MemoryError

    monkeypatch.setattr(finetune_module, "evaluate", stopping)
    with pytest.raises(MemoryError):
        finetune_small(store, tmp_path / "run", settings)
    monkeypatch.setattr(task_split, "MIN_TUNING_IMAGES", 50)
    with pytest.raises(RunError, match=r"began with 'best on the tuning patients', now 'last: .*fewer than 50'"):
        finetune_small(store, tmp_path / "run", settings, resume=True)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_a_stopped_run_goes_on_to_the_same_bits(store, settings, tmp_path, monkeypatch, how):
    whole = finetune_small(store, tmp_path / "whole", settings)
    steps, train_step = 0, finetune_module.train_step

    def stopping(*arguments):
        nonlocal steps
        steps += 1
        if steps == 6:  # in the middle of the second epoch
            if how == "killed":
                raise MemoryError
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    monkeypatch.setattr(finetune_module, "train_step", stopping)
    with pytest.raises(RunInterrupted if how == "asked to stop" else MemoryError):
        finetune_small(store, tmp_path / "stopped", settings)
    assert not Result.is_done(tmp_path / "stopped")
    with pytest.raises(RunError, match="exists; choose another folder, or resume that run with --resume"):
        finetune_small(store, tmp_path / "stopped", settings)
    again = finetune_small(store, tmp_path / "stopped", settings, resume=True)

    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    first, second = ([line | {"seconds": 0} for line in read_log(tmp_path / name)] for name in ("whole", "stopped"))
    assert first == second
    assert np.array_equal(whole.metrics.values, again.metrics.values, equal_nan=True)


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_of_another_run_is_not_gone_on_with(store, settings, tmp_path):
    finetune_small(store, tmp_path / "run", replace(settings, epochs=1))
    with pytest.raises(RunError, match=r"These settings differ: settings\.lr: began with 0\.003, now 0\.1\."):
        finetune_small(store, tmp_path / "run", replace(settings, epochs=1, lr=0.1), resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "something").touch()
    with pytest.raises(RunError, match=r"expected a run's settings\.json, found only other files"):
        finetune_small(store, tmp_path / "other", settings, resume=True)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_the_newest_settings_is_resumed(store, settings, tmp_path):
    """settings.json of an earlier version lacks keys that exist now."""
    finetune_small(store, tmp_path / "run", replace(settings, epochs=1))
    file = tmp_path / "run" / "settings.json"
    saved = json.loads(file.read_text())
    del saved["settings"]["augment"]["crop_fit"]
    file.write_text(json.dumps(saved))
    finetune_small(store, tmp_path / "run", replace(settings, epochs=1), resume=True)


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_run_is_read_and_paired(store, settings, tmp_path, monkeypatch):
    short = replace(settings, epochs=1)
    first = finetune_small(store, tmp_path / "one", short)
    finetune_small(store, tmp_path / "two", replace(short, lr=1e-5))
    monkeypatch.setattr(finetune_module, "FinetuningRun", None)  # nothing is trained again
    again = finetune_small(store, tmp_path / "one", short, resume=True, versus=tmp_path / "two")
    assert np.array_equal(again.metrics.resamples, first.metrics.resamples, equal_nan=True)
    report = (tmp_path / "one" / "report.md").read_text()
    other = Result.read(tmp_path / "two")
    assert "small (the other run)" in report
    assert str(first.metrics.minus(other.metrics, "bright")) in report
    csv = (tmp_path / "one" / "report.csv").read_text().splitlines()
    bright = next(line for line in csv if line.startswith("difference,bright,")).split(",")
    assert float(bright[4]) == pytest.approx(first.metrics["bright"].value - other.metrics["bright"].value, abs=1e-4)
    with pytest.raises(C2LError):
        finetune_small(store, tmp_path / "three", short, versus=tmp_path / "nowhere")
    assert not (tmp_path / "three").exists()


@pytest.mark.usefixtures("no_pictures")
def test_test_patients_seen_in_pretraining_are_told(store, settings, tmp_path, monkeypatch):
    seen = frozenset({"folder:000", "folder:041", "folder:042", "folder:999"})  # the test patients are from 040 on
    monkeypatch.setattr(finetune_module, "load_initialization", lambda *_: small_initialization(seen))
    result = finetune_small(store, tmp_path / "run", replace(settings, epochs=1))
    assert result.facts["test_patients_seen_in_pretraining"] == 2
    report = (tmp_path / "run" / "report.md").read_text()
    assert "2 of the test patients were also in pretraining, without labels" in report


def test_a_test_patient_that_was_fitted_is_never_scored(store, settings, tmp_path, monkeypatch):
    leaking = TaskSplit(np.arange(10, 80), np.arange(10), np.arange(78, 120))  # `split_task` never returns this
    monkeypatch.setattr(finetune_module, "split_task", lambda *_: leaking)
    with pytest.raises(RunError, match="found 1 patients in both the training and the test part"):
        finetune_small(store, tmp_path / "run", replace(settings, epochs=1))
    assert not (tmp_path / "run" / "predictions.npz").exists()


@pytest.mark.parametrize("uncertain", ["zeros", "ones", "ignore"])
def test_a_task_is_told_what_uncertain_means(store, settings, tmp_path, monkeypatch, uncertain):
    class Called(Exception):
        pass

    def split_task(task, *_):
        raise Called(task.uncertain)

    monkeypatch.setattr(finetune_module, "split_task", split_task)
    with pytest.raises(Called, match=uncertain):
        finetune_small(store, tmp_path / "run", replace(settings, uncertain=uncertain))


@pytest.mark.usefixtures("no_pictures")
def test_a_frozen_start_stays_as_it_is(store, settings, tmp_path):
    finetune_small(store, tmp_path / "run", replace(settings, epochs=1, frozen=True))
    found, before = load_file(tmp_path / "run" / "model.safetensors"), small_initialization().network.state_dict()
    assert all(torch.equal(found[key], before[key]) for key in before)


def test_a_loss_that_is_not_finite_ends_the_run(store, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_module, "masked_bce", lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(
        RunError,
        match=r"epoch 1: .* found NaN or infinity \(mean loss nan\); start a new run with a lower --lr than 0\.003",
    ):
        finetune_small(store, tmp_path / "run", settings)


@pytest.mark.usefixtures("no_pictures")
def test_fewer_films_than_a_batch_are_one_batch(store, settings, tmp_path):
    finetune_small(store, tmp_path / "run", replace(settings, epochs=1, batch_size=1000, precision="bfloat16"))
    assert read_log(tmp_path / "run")[0]["step"] == 1
    scores = Predictions.load(tmp_path / "run").scores[:, 1]
    assert not torch.equal(torch.tensor(scores), torch.tensor(scores).bfloat16().double())  # not rounded


def test_the_command(tiny_store_folder, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["finetune", "folder", "--store", str(tiny_store_folder), "--start", "random", "--out", str(out)]
    flags = ["--size", "48", "--epochs", "1", "--batch-size", "8", "--bootstrap", "10", "--device", "cpu"]
    main([*command, *flags, "--augment.flip", "0", "--html"])
    assert "Fine-tuning: small on folder" in capsys.readouterr().out
    settings = json.loads((out / "settings.json").read_text())["settings"]
    assert settings["augment"]["flip"] == 0
    assert settings["size"] == 48
    assert settings["weight_decay"] == Settings().weight_decay
    assert "32 pixels, enlarged to 48" in (out / "report.md").read_text()
    page = HtmlPage(out / "report.html")
    page.check()
    assert "32 pixels, enlarged to 48" in page.text
    (line,) = read_log(out)
    assert page.row("Each epoch", "1")[1]["text"] == f"{line['loss']:.4g}"
    assert page.line("training loss") == [pytest.approx((1, line["loss"]), rel=1e-3)]
    sha256 = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    assert page.row("Weights", "model.safetensors sha256")[1]["text"] == sha256
    figures = json.loads((out / "result.json").read_text())["figures"]
    assert figures["mean"] == figures["finding"]
    (row,) = page.tables["AUROC"]  # the mean over one label is not repeated
    (shown,) = page.measured(row)
    assert [float(value) for value in shown] == list(figures["finding"].values())
    with pytest.raises(SystemExit, match="2"):
        main(command + flags)
    assert "choose another folder" in capsys.readouterr().err
