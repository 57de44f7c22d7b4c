"""The engine: what is there is used, what fails is told and stops nothing else, a stop is gone on from."""

from dataclasses import replace

import pytest
from reproduce_fakes import FakeJobs

from c2l_models.errors import C2LError, RunError, RunInterrupted
from c2l_models.training.evaluation.result import Result
from c2l_models.training.initialization import InitializationNotAvailable


def states(book):
    return {(name, seed): cell.state for (name, _, seed), cell in book.cells.items()}


def whys(book):
    return {name: cell.why for (name, _, _), cell in book.cells.items()}


def test_every_row_is_pretrained_and_measured_once(reproduce):
    jobs = FakeJobs()
    book = reproduce("table3", jobs)
    assert set(states(book).values()) == {"done"}
    assert len(book.cells) == 12
    assert sorted(jobs.pretrained) == sorted(
        f"{architecture}-{method}-seed0"
        for architecture in ("resnet18", "densenet121")
        for method in ("c2l", "moco", "moco-equal-passes", "model-genesis")
    )
    assert len(set(jobs.measured)) == len(jobs.measured) == 12


def test_seeds_are_pretrained_and_measured_each(reproduce):
    jobs = FakeJobs()
    book = reproduce("table5", jobs, seeds=(0, 3))
    assert len(book.cells) == 12
    assert {name for name in jobs.pretrained if "c2l" in name} == {"resnet18-c2l-seed0", "resnet18-c2l-seed3"}
    assert jobs.measured.index("detect/rsna/resnet18-random-seed0") < jobs.measured.index(
        "detect/rsna/resnet18-model-genesis-seed3"
    )  # a whole table of one seed comes first


def test_what_is_done_is_not_done_again(reproduce, tmp_path):
    reproduce("table5")
    jobs = FakeJobs()
    book = reproduce("table5", jobs)
    assert jobs.measured == []
    assert set(states(book).values()) == {"done"}


def test_a_failing_row_stops_no_other(reproduce):
    jobs = FakeJobs(
        {
            "resnet18-moco": RuntimeError("out of memory"),
            "resnet18-imagenet": InitializationNotAvailable("no network"),
            "pretrain resnet18-model-genesis-seed0": RunError("the loss is nan"),
        }
    )
    book = reproduce("table5", jobs)
    assert states(book) == {
        ("resnet18-model-genesis", 0): "failed",
        ("resnet18-imagenet", 0): "not run",
        ("resnet18-moco", 0): "failed",
        ("resnet18-c2l", 0): "done",
        ("resnet18-moco-equal-passes", 0): "done",
        ("resnet18-random", 0): "done",
    }
    assert whys(book)["resnet18-moco"] == "RuntimeError: out of memory"
    assert whys(book)["resnet18-imagenet"] == "no network"
    assert whys(book)["resnet18-model-genesis"] == "the loss is nan"


def test_a_failed_pretraining_is_not_begun_again_for_the_next_figure(reproduce):
    jobs = FakeJobs({"pretrain resnet18-c2l-seed0": RunError("the loss is nan")})
    book = reproduce("open", jobs, only=["resnet18-c2l"])
    assert jobs.pretrained == ["resnet18-c2l-seed0"]
    assert {cell.why for cell in book.cells.values()} == {"the loss is nan"}


def test_without_its_test_data_nothing_is_pretrained(reproduce):
    jobs = FakeJobs()
    book = reproduce("table4", jobs, missing=("chexpert",))
    assert jobs.pretrained == jobs.measured == []
    assert {cell.state for cell in book.cells.values()} == {"not run"}
    assert "no chexpert" in whys(book)["resnet18-c2l"]


def test_without_the_corpus_the_rows_that_need_none_are_run(reproduce):
    book = reproduce("table5", missing=("knee_kl",))
    done = {name for (name, _), state in states(book).items() if state == "done"}
    assert done == {"resnet18-imagenet", "resnet18-random"}


@pytest.mark.parametrize("stop", [RunInterrupted("stopped by SIGTERM"), KeyboardInterrupt()])
def test_a_stop_is_told_and_the_same_call_goes_on(reproduce, stop):
    jobs = FakeJobs({"resnet18-c2l": stop})
    with pytest.raises(type(stop)):
        reproduce("table5", jobs)
    assert jobs.measured[-1] == "detect/rsna/resnet18-c2l-seed0"
    jobs = FakeJobs()
    book = reproduce("table5", jobs)
    assert set(states(book).values()) == {"done"}
    assert jobs.measured[0] == "detect/rsna/resnet18-c2l-seed0"


def test_another_result_in_the_way_is_told_key_by_key(reproduce, tmp_path):
    reproduce("table5")
    folder = tmp_path / "out/detect/rsna/resnet18-c2l-seed0"
    found = Result.read(folder)
    Result(found.kind, found.initialization, "densenet121", found.task, 7, found.metrics, found.facts).write(folder)
    book = reproduce("table5")
    why = whys(book)["resnet18-c2l"]
    assert "architecture: it has 'densenet121', wanted 'resnet18'" in why
    assert "seed: it has 7, wanted 0" in why
    assert states(book)["resnet18-moco", 0] == "done"


def test_a_result_of_other_settings_is_not_taken_for_this_scales(reproduce, tmp_path):
    reproduce("table3", only=("resnet18-c2l",))
    folder = tmp_path / "out/finetune/chestxray14-1/resnet18-c2l-seed0"
    found = Result.read(folder)
    smoke = found.facts | {"settings": {"size": 32, "epochs": 1, "fraction": 1.0, "lr": 0.1}}
    replace(found, facts=smoke).write(folder)
    why = whys(reproduce("table3", only=("resnet18-c2l",)))["resnet18-c2l"]
    assert "size: it has 32, wanted 64" in why
    assert "epochs: it has 1, wanted 3" in why
    assert "lr:" not in why


def test_a_result_of_another_pretraining_is_not_taken_for_this_ones(reproduce, tmp_path):
    reproduce("table3", only=("resnet18-c2l",))
    folder = tmp_path / "out/finetune/chestxray14-1/resnet18-c2l-seed0"
    found = Result.read(folder)
    older = found.facts | {"about": {"checkpoint": "step-000000010-0123456789ab.pt"}}
    replace(found, facts=older).write(folder)
    why = whys(reproduce("table3", only=("resnet18-c2l",)))["resnet18-c2l"]
    assert "was measured on checkpoint step-000000010-0123456789ab.pt" in why


def test_a_damaged_result_fails_its_row_alone(reproduce, tmp_path):
    reproduce("table5")
    (tmp_path / "out/detect/rsna/resnet18-c2l-seed0/figures.npz").write_bytes(b"torn")
    book = reproduce("table5")
    assert [name for (name, _), state in states(book).items() if state == "failed"] == ["resnet18-c2l"]


def test_tables_are_written_before_the_first_cell_and_after_each(reproduce_all):
    book, written = reproduce_all("table5")
    assert [len(states) for states in written] == list(range(7))
    assert written[-1] == {key: cell.state for key, cell in book.cells.items()}


def test_the_table_says_interrupted_before_the_stop(reproduce_all):
    written = []
    with pytest.raises(RunInterrupted):
        reproduce_all("table5", FakeJobs({"resnet18-c2l": RunInterrupted("stopped by SIGTERM")}), written)
    assert list(written[-1].values()).count("interrupted") == 1


def test_unknown_rows_are_refused_before_anything_is_run(reproduce):
    jobs = FakeJobs()
    with pytest.raises(C2LError, match="resnet18-moco"):
        reproduce("table5", jobs, only=["resnet18-mocko"])
    assert jobs.pretrained == []


def test_no_detector_is_built_on_densenet(reproduce):
    """Its other metrics are measured, and nobody is told of a failure."""
    jobs = FakeJobs()
    book = reproduce("open", jobs, only=("densenet121-random",))
    assert not book.failed
    by_kind = {measured.kind: cell.state for (_, measured, _), cell in book.cells.items()}
    assert by_kind == {"probe": "done", "knn": "done", "finetune": "done", "detect": "not run"}
    (why,) = {cell.why for cell in book.cells.values() if cell.state == "not run"}
    assert "resnet18" in why
    assert not [measured for measured in jobs.measured if "detect" in measured]
