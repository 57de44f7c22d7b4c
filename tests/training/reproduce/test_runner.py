"""The runner: existing results are reused, a failed row stops no other, and an interrupted run resumes."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from reproduce_fakes import FakeBackend, metrics_of

from c2l_models.errors import C2LError, RunError, RunInterrupted
from c2l_models.training.evaluation.result import Result
from c2l_models.training.imagenet import InitializationNotAvailable
from c2l_models.training.reproduce.seed_means import seed_mean
from c2l_models.training.reproduce.table_report import markdown


def states(results):
    return {(name, seed): entry.state for (name, _, seed), entry in results.entries.items()}


def reasons(results):
    return {name: entry.reason for (name, _, _), entry in results.entries.items()}


def test_every_row_is_pretrained_and_measured_once(reproduce):
    backend = FakeBackend()
    results = reproduce("table3", backend)
    assert set(states(results).values()) == {"done"}
    assert len(results.entries) == 12
    assert sorted(backend.pretrained) == sorted(
        f"{architecture}-{method}-seed0"
        for architecture in ("resnet18", "densenet121")
        for method in ("c2l", "moco", "moco-equal-passes", "model-genesis")
    )
    assert len(set(backend.measured)) == len(backend.measured) == 12


def test_seeds_are_pretrained_and_measured_each(reproduce):
    backend = FakeBackend()
    results = reproduce("table5", backend, seeds=(0, 3))
    assert len(results.entries) == 12
    assert {name for name in backend.pretrained if "c2l" in name} == {"resnet18-c2l-seed0", "resnet18-c2l-seed3"}
    assert backend.measured.index("detect/rsna/resnet18-random-seed0") < backend.measured.index(
        "detect/rsna/resnet18-model-genesis-seed3"
    )  # the whole table of one seed comes first


def test_few_labels_are_drawn_ten_times_and_every_row_has_the_same_draws(reproduce):
    backend = FakeBackend()
    rows = ("resnet18-random", "resnet18-c2l")
    results = reproduce("open", backend, seeds=(0, 1), only=rows)
    drawn = {
        (name, seed, measurement.draw): entry.result.seed
        for (name, measurement, seed), entry in results.entries.items()
        if measurement.fraction == 0.01
    }
    assert drawn == {(row, seed, n): seed + 100 * n for row in rows for seed in (0, 1) for n in range(10)}
    assert "finetune/chestxray14-0.01/resnet18-c2l-seed1" in backend.measured  # the folder of earlier versions
    assert "finetune/chestxray14-0.01-draw9/resnet18-c2l-seed1" in backend.measured
    column = next(column for column in results.table.columns if column.measurement.draws == 10)
    init = results.table.rows[0][0]
    mean = seed_mean(results, init, column)
    values = [metrics_of("resnet18-random", seed).values[0] for (row, *_), seed in drawn.items() if "random" in row]
    assert (mean.seeds, mean.estimate.value) == (2, pytest.approx(sum(values) / 20))
    few = replace(results, entries={key: entry for key, entry in results.entries.items() if key[1].draw != 4})
    assert seed_mean(few, init, column).seeds == 2
    assert "seed 1, draw 4: waiting" in seed_mean(few, init, column).reason
    assert "the mean over 10 draws of the labelled patients" in markdown(results)


def test_what_is_done_is_not_done_again(reproduce, tmp_path):
    reproduce("table5")
    backend = FakeBackend()
    results = reproduce("table5", backend)
    assert backend.measured == []
    assert set(states(results).values()) == {"done"}


def test_a_failing_row_stops_no_other(reproduce):
    backend = FakeBackend(
        {
            "resnet18-moco": RuntimeError("out of memory"),
            "resnet18-imagenet": InitializationNotAvailable("no network"),
            "pretrain resnet18-model-genesis-seed0": RunError("the loss is nan"),
        }
    )
    results = reproduce("table5", backend)
    assert states(results) == {
        ("resnet18-model-genesis", 0): "failed",
        ("resnet18-imagenet", 0): "not run",
        ("resnet18-moco", 0): "failed",
        ("resnet18-c2l", 0): "done",
        ("resnet18-moco-equal-passes", 0): "done",
        ("resnet18-random", 0): "done",
    }
    assert reasons(results)["resnet18-moco"] == "RuntimeError: out of memory"
    assert reasons(results)["resnet18-imagenet"] == "no network"
    assert reasons(results)["resnet18-model-genesis"] == "the loss is nan"


def test_a_failed_pretraining_is_not_begun_again_for_the_next_figure(reproduce):
    backend = FakeBackend({"pretrain resnet18-c2l-seed0": RunError("the loss is nan")})
    results = reproduce("open", backend, only=["resnet18-c2l"])
    assert backend.pretrained == ["resnet18-c2l-seed0"]
    assert {entry.reason for entry in results.entries.values()} == {"the loss is nan"}


def test_a_failed_pretraining_frees_its_tensors(reproduce):
    """Its error is kept for the row's other measurements, and would keep all memory of the failed step."""
    failed, still_there = [], []

    class OutOfMemory(FakeBackend):
        def pretrain(self, recipe, store, folder):
            gc.collect()
            still_there.extend(one() is not None for one in failed)
            activations = torch.zeros(4)
            failed.append(weakref.ref(activations))
            try:
                raise RuntimeError("CUDA out of memory")
            except RuntimeError as error:
                raise RunError("a step does not fit") from error

    results = reproduce("open", OutOfMemory(), only=["resnet18-c2l", "resnet18-moco"])
    assert {entry.reason for entry in results.entries.values()} == {"a step does not fit"}
    assert still_there == [False]


def test_without_its_test_data_nothing_is_pretrained(reproduce):
    backend = FakeBackend()
    results = reproduce("table4", backend, missing=("chexpert",))
    assert backend.pretrained == backend.measured == []
    assert {entry.state for entry in results.entries.values()} == {"not run"}
    assert "does not name chexpert" in reasons(results)["resnet18-c2l"]


def test_without_the_corpus_the_rows_that_need_none_are_run(reproduce):
    results = reproduce("table5", missing=("knee_kl",))
    done = {name for (name, _), state in states(results).items() if state == "done"}
    assert done == {"resnet18-imagenet", "resnet18-random"}


@pytest.mark.parametrize("stop", [RunInterrupted("stopped by SIGTERM"), KeyboardInterrupt()])
def test_a_stop_is_told_and_the_same_call_goes_on(reproduce, stop):
    backend = FakeBackend({"resnet18-c2l": stop})
    with pytest.raises(type(stop)):
        reproduce("table5", backend)
    assert backend.measured[-1] == "detect/rsna/resnet18-c2l-seed0"
    backend = FakeBackend()
    results = reproduce("table5", backend)
    assert set(states(results).values()) == {"done"}
    assert backend.measured[0] == "detect/rsna/resnet18-c2l-seed0"


def test_another_result_in_the_way_is_told_key_by_key(reproduce, tmp_path):
    reproduce("table5")
    folder = tmp_path / "out/detect/rsna/resnet18-c2l-seed0"
    found = Result.read(folder)
    Result(found.kind, found.initialization, "densenet121", found.task, 7, found.metrics, found.facts).write(folder)
    results = reproduce("table5")
    reason = reasons(results)["resnet18-c2l"]
    assert "architecture: began with 'densenet121', now 'resnet18'" in reason
    assert "seed: began with 7, now 0" in reason
    assert states(results)["resnet18-moco", 0] == "done"


def test_a_result_of_other_settings_is_not_taken_for_this_scales(reproduce, tmp_path):
    reproduce("table3", only=("resnet18-c2l",))
    folder = tmp_path / "out/finetune/chestxray14-1/resnet18-c2l-seed0"
    found = Result.read(folder)
    smoke = found.facts | {"settings": {"size": 32, "epochs": 1, "fraction": 1.0, "lr": 0.1}}
    replace(found, facts=smoke).write(folder)
    reason = reasons(reproduce("table3", only=("resnet18-c2l",)))["resnet18-c2l"]
    assert "size: began with 32, now 64" in reason
    assert "epochs: began with 1, now 3" in reason
    assert "lr:" not in reason


def test_a_result_of_another_pretraining_is_not_taken_for_this_ones(reproduce, tmp_path):
    reproduce("table3", only=("resnet18-c2l",))
    folder = tmp_path / "out/finetune/chestxray14-1/resnet18-c2l-seed0"
    found = Result.read(folder)
    older = found.facts | {"about": {"checkpoint": "step-000000010-0123456789ab.pt"}}
    replace(found, facts=older).write(folder)
    reason = reasons(reproduce("table3", only=("resnet18-c2l",)))["resnet18-c2l"]
    assert "was measured on checkpoint step-000000010-0123456789ab.pt" in reason


def test_a_result_of_other_images_is_not_taken_for_these(reproduce, tmp_path):
    """The row has no pretraining, which would be refused itself."""
    row = "resnet18-random"
    reproduce("table3", only=(row,))
    folder = tmp_path / "out/finetune/chestxray14-1/resnet18-random-seed0"
    found = Result.read(folder)
    replace(found, facts=found.facts | {"store_sha256": "b" * 64}).write(folder)
    results = reproduce("table3", only=(row,))
    assert states(results)[row, 0] == "failed"
    assert "was measured on the store bbbbbbbbbbbb, which is gone" in reasons(results)[row]


def test_a_damaged_result_fails_its_row_alone(reproduce, tmp_path):
    reproduce("table5")
    (tmp_path / "out/detect/rsna/resnet18-c2l-seed0/figures.npz").write_bytes(b"torn")
    results = reproduce("table5")
    assert [name for (name, _), state in states(results).items() if state == "failed"] == ["resnet18-c2l"]


def test_tables_are_written_before_the_first_cell_and_after_each(reproduce_all):
    results, written = reproduce_all("table5")
    assert [len(states) for states in written] == list(range(7))
    assert written[-1] == {key: entry.state for key, entry in results.entries.items()}


def test_the_table_says_interrupted_before_the_stop(reproduce_all):
    written = []
    with pytest.raises(RunInterrupted):
        reproduce_all("table5", FakeBackend({"resnet18-c2l": RunInterrupted("stopped by SIGTERM")}), written)
    assert list(written[-1].values()).count("interrupted") == 1


def test_unknown_rows_are_refused_before_anything_is_run(reproduce):
    backend = FakeBackend()
    with pytest.raises(C2LError, match="resnet18-moco"):
        reproduce("table5", backend, only=["resnet18-mocko"])
    assert backend.pretrained == []


def test_no_detector_is_built_on_densenet(reproduce):
    """Its other metrics are measured, and no entry counts as failed."""
    backend = FakeBackend()
    results = reproduce("open", backend, only=("densenet121-random",))
    assert not results.failed
    by_kind = {measurement.kind: entry.state for (_, measurement, _), entry in results.entries.items()}
    assert by_kind == {"probe": "done", "knn": "done", "finetune": "done", "detect": "not run"}
    (reason,) = {entry.reason for entry in results.entries.values() if entry.state == "not run"}
    assert "resnet18" in reason
    assert not [measured for measured in backend.measured if "detect" in measured]
