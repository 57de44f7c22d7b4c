"""The step benchmark at a tiny size: what it times and tells, never how many seconds that takes."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from c2l_models.cli import main
from c2l_models.training import benchmark
from c2l_models.training.recipe import Recipe

PARTS = {"gather", "augment", "mixup", "loss and queue", "optimizer", "teacher update", "grouping"}
TINY = Recipe("tiny", batch_size=4, batch_norm_group=2, queue_length=64, size=32)


@pytest.fixture(scope="module")
def measured() -> benchmark.StepBenchmark:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "SHORTEST", 0.0)  # one call a timing
        return benchmark.step(TINY, batch_size=4, size=32, repeats=3, device="cpu", progress=False)


def figures(step: tuple[float, ...], bare: tuple[float, ...], **parts: float) -> benchmark.StepBenchmark:
    """A result with these seconds, for 50 images a step."""
    return benchmark.StepBenchmark(
        "made-up", "resnet18", 128, 50, 25, "float32", "a machine", 2, "2.6.0", (0.5, 1.5), step, bare, parts
    )


def shown(result: benchmark.StepBenchmark) -> dict[str, list[str]]:
    """The printed table: the figures of each row, by the row's name."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


def test_a_tiny_step_is_timed(measured: benchmark.StepBenchmark) -> None:
    assert len(measured.step) == len(measured.bare) == 3
    assert math.isfinite(measured.ratio)
    assert measured.ratio > 0.5
    assert set(measured.parts) == PARTS
    assert all(seconds > 0 for name, seconds in measured.parts.items() if name != "grouping")
    assert (measured.batch_size, measured.size, measured.precision) == (4, 32, "float32")
    assert measured.threads == torch.get_num_threads()


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    result = figures(step=(2.0, 30.0, 6.0), bare=(1.0, 10.0, 5.0))
    assert result.ratios == (2.0, 3.0, 1.2)
    assert result.ratio == 2.0  # of medians: 6 / 5


def test_the_table_tells_each_part_and_what_is_left_over() -> None:
    rows = shown(figures((12.5, 12.5, 12.5), (10.0, 10.0, 10.0), augment=1.0, grouping=-0.5))
    assert rows["pretraining step"] == ["12.5000", "4.0", "1.250 (1.250 to 1.250)"]
    assert rows["bare networks"] == ["10.0000", "5.0", "1"]
    assert rows["augment"] == ["1.0000", "", "+0.100"]
    assert rows["grouping"] == ["-0.5000", "", "-0.050"]
    assert rows["rest"] == ["2.0000", "", "+0.200"]


def test_the_command_prints_the_table_and_writes_json(
    tmp_path: Path, measured: benchmark.StepBenchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []
    monkeypatch.setattr(benchmark, "step", lambda *arguments: asked.append(arguments) or measured)
    arguments = ["--size", "32", "--batch-size", "32", "--precision", "float32", "--repeats", "2", "--device", "cpu"]
    main(["benchmark", "step", *arguments, "--out", str(tmp_path / "step.json")])

    recipe, *others = asked[0]
    assert (recipe.name, recipe.precision, others) == ("open15k-resnet18", "float32", [32, 32, 2, "cpu"])
    printed = capsys.readouterr().out
    assert all(part in printed for part in PARTS | {"pretraining step", "bare networks", "rest"})
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["step"] == list(measured.step)
    assert written["ratio"] == measured.ratio


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bare_networks_do_the_stated_work(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Student twice with gradients, teacher twice without, the whole batch at once, in the recipe's precision."""
    recipe = Recipe(**{**vars(TINY), "precision": precision})
    seen: list[SimpleNamespace] = []
    works = benchmark.build_works(recipe, torch.device("cpu"))

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.append(SimpleNamespace(rows=len(output), grad=output.requires_grad, dtype=output.dtype))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        works["bare"]()
        bare = list(seen)
        seen.clear()
        works["grouped"]()
    finally:
        handle.remove()
    assert [call.rows for call in bare] == [4] * 4
    assert [call.grad for call in bare] == [True, True, False, False]
    assert {call.dtype for call in bare} == {getattr(torch, precision)}
    assert [call.rows for call in seen] == [2] * 8


def test_quick_work_is_called_often_enough_and_slow_work_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])

    def work(seconds: float) -> benchmark.Work:
        return lambda: now.__setitem__(0, now[0] + seconds)

    cpu = torch.device("cpu")
    assert benchmark.calls_per_timing(work(0.01), cpu) == 10
    assert benchmark.calls_per_timing(work(5.0), cpu) == 1
    assert benchmark.seconds_of(work(0.01), 10, cpu) == pytest.approx(0.01)
