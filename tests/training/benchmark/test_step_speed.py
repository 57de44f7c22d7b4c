"""The step benchmark at a tiny size: its workloads and output, not the speed."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from c2l_models.errors import RecipeError
from c2l_models.training import pretrain
from c2l_models.training.benchmark import roofline, timing
from c2l_models.training.benchmark import step_speed as module
from c2l_models.training.benchmark.roofline import Ceilings, Cost
from c2l_models.training.benchmark.step_speed import StepBenchmark, build_workloads, time_step
from c2l_models.training.recipe import Objective, Recipe

CPU = torch.device("cpu")
PARTS = {"gather", "augment", "mixup", "loss_and_queue", "optimizer", "teacher_update", "grouping"}
TINY = Recipe("tiny", batch_size=4, batch_norm_group=2, queue_length=64, size=32)


@pytest.fixture(scope="module")
def measured() -> StepBenchmark:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "MIN_SECONDS", 0.0)  # one call per timing
        patch.setattr(roofline, "MATRIX_SIDE", {"cpu": 64})
        patch.setattr(roofline, "CONVOLUTION", {"cpu": (1, 2, 3)})
        patch.setattr(roofline, "VECTOR_LENGTH", {"cpu": 64})
        return time_step(TINY, batch_size=4, size=32, repeats=2, device="cpu", progress=False)


def metrics(step: tuple[float, ...], bare: tuple[float, ...], **others: Any) -> StepBenchmark:
    """A result with these seconds, for 50 images per step."""
    values: dict[str, Any] = {
        "recipe": "made-up",
        "architecture": "resnet18",
        "size": 128,
        "batch_size": 50,
        "batch_norm_group": 25,
        "precision": "float32",
        "machine": timing.Machine("a machine", 2, 2, "2.6.0", (0.5, 1.5)),
        "compiled": (),
        "parts": {},
        "costs": {"step": Cost(int(50e9), int(2e9)), "bare": Cost(int(40e9), int(1e9))},
        "ceilings": Ceilings(flops=10e9, bytes=1e9),
    }
    return StepBenchmark(step=step, bare=bare, **values | others)


def shown(result: StepBenchmark) -> dict[str, list[str]]:
    """The printed table: cells by row name."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


def test_a_tiny_step_is_timed(measured: StepBenchmark) -> None:
    assert len(measured.step) == len(measured.bare) == 2
    assert measured.compiled == ()
    assert math.isfinite(measured.ratio)
    assert measured.ratio > 0.5
    assert set(measured.parts) == PARTS
    assert all(seconds > 0 for name, seconds in measured.parts.items() if name != "grouping")
    assert (measured.batch_size, measured.size, measured.precision) == (4, 32, "float32")


def test_what_a_step_computes_is_counted(measured: StepBenchmark) -> None:
    """A step's FLOPs: networks, and products with the queue in the loss (forward, backward) and the top-1 metric."""
    assert set(measured.costs) == (PARTS | {"step", "bare"}) - {"grouping"}
    queue = 2 * 4 * TINY.queue_length * TINY.feature_dim
    assert (
        measured.costs["loss_and_queue"].flops == 5 * queue
    )  # v1_a and v1_m, each forward and backward, and the top-1 metric
    assert measured.costs["step"].flops == measured.costs["bare"].flops + 5 * queue
    assert measured.costs["step"].bytes > measured.costs["bare"].bytes > 0
    assert measured.costs["gather"].bytes == 2 * 4 * 32 * 32
    assert measured.costs["augment"].flops == 0


def test_the_networks_flops_are_those_of_the_known_network(measured: StepBenchmark) -> None:
    """ResNet-18: 1.8 G multiply-adds at 224 pixels and three channels; four passes forward, two backward."""
    convolutions = [(1, 64, 7, 16)]
    for width, side, blocks in ((64, 8, 2), (128, 4, 2), (256, 2, 2), (512, 1, 2)):
        for block in range(blocks):
            entering = width if block or width == 64 else width // 2
            convolutions += [(entering, width, 3, side), (width, width, 3, side)]
            if entering != width:
                convolutions.append((entering, width, 1, side))
    layers = [2 * i * o * k * k * side * side for i, o, k, side in convolutions] + [2 * 512 * 128]
    backward = 2 * sum(layers) - layers[0]  # no gradient of the images is computed
    assert measured.costs["bare"].flops == 4 * (4 * sum(layers) + 2 * backward)


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    assert metrics(step=(2.0, 30.0, 6.0), bare=(1.0, 10.0, 5.0)).ratio == 2.0  # the ratio of medians is 6 / 5


def test_the_table_tells_each_part_and_what_is_left_over() -> None:
    parts = {"augment": 1.0, "grouping": -0.5}
    rows = shown(metrics((12.5, 12.5, 12.5), (10.0, 10.0, 10.0), parts=parts, compiled=(5.0, 5.0, 5.0)))
    assert rows["pretraining step"] == ["12.5000", "4.0", "1.250 (1.250 to 1.250)", "50.0", "2.00", "40% (compute)"]
    assert rows["with compiled networks"][:3] == ["5.0000", "10.0", "0.500 (0.500 to 0.500)"]
    assert rows["bare networks"] == ["10.0000", "5.0", "1", "40.0", "1.00", "40% (compute)"]
    assert rows["augment"][:3] == ["1.0000", "", "+0.100"]
    assert rows["grouping"] == ["-0.5000", "", "-0.050", "", "", ""]
    assert rows["rest"][:3] == ["2.0000", "", "+0.200"]


def test_the_table_names_the_nearer_ceiling() -> None:
    costs = {"step": Cost(int(5e9), int(4e9)), "bare": Cost(0, 0)}
    assert shown(metrics((8.0,), (8.0,), costs=costs))["pretraining step"][-1] == "50% (memory)"


def test_all_figures_are_written_as_json(tmp_path: Path, measured: StepBenchmark) -> None:
    measured.save(tmp_path / "step.json")
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["step"] == list(measured.step)
    assert written["ratio"] == measured.ratio
    assert written["roofline_share"] == measured.roofline_share
    assert Cost(**written["costs"]["step"]) == measured.costs["step"]
    assert Ceilings(**written["ceilings"]) == measured.ceilings
    assert "compiled_ratio" not in written
    metrics((4.0,), (2.0,), compiled=(3.0,)).save(tmp_path / "compiled.json")
    assert json.loads((tmp_path / "compiled.json").read_text())["compiled_ratio"] == 0.75


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bare_networks_do_the_stated_work(precision: str) -> None:
    """Student on both batches with gradients, teacher twice without, in the recipe's precision."""
    recipe = Recipe(**{**vars(TINY), "precision": precision})
    seen: list[SimpleNamespace] = []
    workloads = build_workloads(recipe, CPU)

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.append(SimpleNamespace(rows=len(output), grad=output.requires_grad, dtype=output.dtype))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        for name in ("bare", "grouped", "step"):
            workloads[name]()
    finally:
        handle.remove()
    bare, grouped, step = seen[:3], seen[3:6], seen[6:]
    assert [call.rows for call in bare] == [8, 4, 4]
    assert [call.grad for call in bare] == [True, False, False]
    assert {call.dtype for call in bare} == {getattr(torch, precision)}
    assert [vars(call) for call in step] == [vars(call) for call in grouped] == [vars(call) for call in bare]


def test_a_step_is_that_of_pretraining_and_leaves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def train_step(model: torch.nn.Module, optimizer: Any, images: torch.Tensor, generator: torch.Generator) -> Any:
        before = [parameter.detach().clone() for parameter in model.student.parameters()]
        pointer = int(model.queue.pointer)
        result = pretrain.train_step(model, optimizer, images, generator)
        assert all(map(torch.equal, before, model.student.parameters()))
        assert int(model.queue.pointer) == (pointer + 3 * 4) % TINY.queue_length
        done.append((model, images))
        return result

    monkeypatch.setattr(module, "train_step", train_step)
    workloads = build_workloads(TINY, CPU)
    workloads["step"]()
    workloads["step"]()
    assert len(done) == 2
    assert done[0][1].shape == (4, 1, 32, 32)
    assert done[0][1].dtype == torch.uint8


def test_the_parts_do_what_a_step_does() -> None:
    """The parts and the grouped networks move as many bytes as a step, except for operations between the parts."""
    workloads = build_workloads(TINY, CPU)
    workloads["step"]()  # the optimizer's first step differs
    joined = roofline.count_cost(workloads["step"]).bytes
    parts = sum(
        roofline.count_cost(workload).bytes for name, workload in workloads.items() if name not in ("step", "bare")
    )
    assert parts == pytest.approx(joined, abs=100_000)  # mixing two views' images moves 300,000


def test_a_variant_is_refused() -> None:
    with pytest.raises(RecipeError, match="recipe tiny: expected method c2l with the default objective"):
        time_step(replace(TINY, objective=Objective(shuffle_bn=False)), 4, 32, 1, "cpu", progress=False)


def test_compiled_networks_are_timed_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []

    def fake_workloads(recipe: Recipe, device: torch.device) -> dict[str, timing.Workload]:
        compiled.append(recipe.compile)
        return dict.fromkeys(("step", "bare", "grouped"), float)

    monkeypatch.setattr(module, "build_workloads", fake_workloads)
    monkeypatch.setattr(module, "time_alternately", lambda workloads, *_: dict.fromkeys(workloads, (1.5,)))
    assert time_step(TINY, 4, 32, 1, "cpu", compile=True, progress=False).compiled == (1.5,)
    assert compiled == [False, True]
    assert time_step(TINY, 4, 32, 1, "cpu", progress=False).compiled == ()
