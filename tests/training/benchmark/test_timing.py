"""Alternate timing, warm-up and ratios, with a fake clock."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from c2l_models.training.benchmark import timing

CPU = torch.device("cpu")


class Clock:
    """A clock that only workloads advance."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def workload(self, name: str, seconds: float) -> timing.Workload:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_quick_work_is_called_often_enough_and_slow_work_once(clock: Clock) -> None:
    assert timing.calls_per_timing(clock.workload("quick", 0.01), CPU) == 10
    assert timing.calls_per_timing(clock.workload("slow", 5.0), CPU) == 1
    assert timing.seconds_per_call(clock.workload("quick", 0.01), 10, CPU) == pytest.approx(0.01)


def test_turns_go_forth_and_back_after_the_warm_up(clock: Clock) -> None:
    workloads = {"a": clock.workload("a", 2.0), "b": clock.workload("b", 0.05)}
    seconds = timing.time_alternately(workloads, 2, CPU, progress=False)
    assert seconds == {"a": pytest.approx((2.0, 2.0)), "b": pytest.approx((0.05, 0.05))}
    assert "".join(clock.calls) == "a" + "bb" + "a" + "bb" + "bb" + "a"  # b: two calls per timing


def test_the_ratio_is_of_pairs() -> None:
    ratios = timing.ratios_by_round((2.0, 30.0, 6.0), (1.0, 10.0, 5.0))
    assert ratios == (2.0, 3.0, 1.2)
    assert timing.median_and_range(ratios) == "2.000 (1.200 to 3.000)"
    assert timing.median_and_range(ratios, 1) == "2.0 (1.2 to 3.0)"
    with pytest.raises(ValueError, match="argument 2"):
        timing.ratios_by_round((1.0,), (1.0, 2.0))


def test_a_result_is_saved_with_all_its_figures(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Result:
        machine: timing.Machine
        step: tuple[float, ...]

    result = Result(timing.Machine("a processor", 2, 1, "2.6.0", (0.5, 1.5)), (1.0, 2.0))
    timing.save_json(result, tmp_path / "new" / "result.json", ratio=1.5)
    read = json.loads((tmp_path / "new" / "result.json").read_text())
    assert read.pop("ratio") == 1.5
    read["machine"]["load"] = tuple(read["machine"]["load"])
    assert Result(timing.Machine(**read["machine"]), tuple(read["step"])) == result


def test_the_machine_is_told() -> None:
    machine = timing.Machine.after_benchmark(CPU, 0.25)
    assert dataclasses.asdict(machine)["threads"] == torch.get_num_threads()
    assert machine.load[0] == 0.25
    assert machine.load[1] >= 0 or math.isnan(machine.load[1])
    assert torch.__version__ in str(machine)
