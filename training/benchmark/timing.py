"""Time workloads alternately, so that other load on the machine affects all of them equally."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from c2l_models.files import write_atomically
from c2l_models.progress import stage

from ..run_files.run_folder import machine_name

MIN_SECONDS = 0.1
"""Duration of one timing; a shorter workload is called several times per timing."""

Workload = Callable[[], object]


@dataclass(frozen=True)
class Machine:
    """The machine of a benchmark.

    Attributes:
        name: its processor or GPU.
        cores: CPU cores.
        threads: torch's CPU threads.
        torch_version: torch's version.
        load: one-minute load average before the first round and after the last; NaN if the system reports none.
    """

    name: str
    cores: int
    threads: int
    torch_version: str
    load: tuple[float, float]

    @classmethod
    def after_benchmark(cls, device: torch.device, load_before: float) -> "Machine":
        """This machine; call it after the last round, with the load average before the first."""
        load = (load_before, load_average())
        return cls(machine_name(device), os.cpu_count() or 1, torch.get_num_threads(), torch.__version__, load)

    def __str__(self) -> str:
        before, after = self.load
        return f"{self.name}, {self.threads} threads, torch {self.torch_version}, load {before:.1f} to {after:.1f}"


def time_alternately(
    workloads: Mapping[str, Workload], repeats: int, device: torch.device, progress: bool = True
) -> dict[str, tuple[float, ...]]:
    """Seconds per call of each workload, one value per round. Before the first round, each is called to warm up."""
    calls = {name: calls_per_timing(workload, device) for name, workload in workloads.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    with stage("timing", repeats, "rounds", progress) as line:
        for repeat in range(repeats):
            # Every second round is in reverse order, so that a drift of the machine favours no workload.
            order = list(workloads) if repeat % 2 == 0 else list(workloads)[::-1]
            with stage("", show=False):  # drawing progress would take a core's time
                for name in order:
                    seconds[name].append(seconds_per_call(workloads[name], calls[name], device))
            line.advance()
    return {name: tuple(times) for name, times in seconds.items()}


def seconds_per_call(workload: Workload, calls: int, device: torch.device) -> float:
    """Mean seconds per call over `calls` calls; waits for a GPU before and after."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        workload()
    synchronize(device)
    return (time.perf_counter() - started) / calls


def calls_per_timing(workload: Workload, device: torch.device) -> int:
    """Warm up and return the number of calls that take about `MIN_SECONDS` or more."""
    seconds = seconds_per_call(workload, 1, device)
    if seconds < 10 * MIN_SECONDS:  # the first call of a short workload takes longer than later calls
        seconds = seconds_per_call(workload, 1, device)
    return max(1, round(MIN_SECONDS / seconds))


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished; returns at once on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load_average() -> float:
    """Runnable processes, averaged over the last minute; NaN if the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def ratios_by_round(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """The ratio in each round. If the machine is slow for a while, both values of a round are affected."""
    return tuple(a / b for a, b in zip(numerators, denominators, strict=True))


def median_and_range(ratios: Sequence[float], digits: int = 3) -> str:
    """Median, lowest and highest ratio as text, such as "2.000 (1.200 to 3.000)"."""
    return f"{median(ratios):.{digits}f} ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})"


def save_json(result: Any, path: Path, **derived: Any) -> None:
    """Write the fields of a result dataclass and metrics derived from them as JSON; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(dataclasses.asdict(result) | derived, indent=2) + "\n").encode())
