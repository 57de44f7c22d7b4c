"""Timing works by turns, so that whatever else a machine does falls on all of them alike."""

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
from rich.progress import track

from ..run_files.run_folder import machine_name

SHORTEST = 0.1  # seconds; quicker work is called several times a timing
Work = Callable[[], object]


@dataclass(frozen=True)
class Machine:
    """What a benchmark ran on.

    Attributes:
        load: the one-minute load average, before the first round and after the last; NaN where there is none.
    """

    name: str
    cores: int
    threads: int
    torch_version: str
    load: tuple[float, float]

    @classmethod
    def now(cls, device: torch.device, load_before: float) -> "Machine":
        """This machine, after the last round."""
        load = (load_before, load_average())
        return cls(machine_name(device), os.cpu_count() or 1, torch.get_num_threads(), torch.__version__, load)

    def __str__(self) -> str:
        before, after = self.load
        return f"{self.name}, {self.threads} threads, torch {self.torch_version}, load {before:.1f} to {after:.1f}"


def take_turns(
    works: Mapping[str, Work], repeats: int, device: torch.device, progress: bool = True
) -> dict[str, tuple[float, ...]]:
    """Seconds of a call of each work, one a round; each is called once or twice before, to warm up."""
    calls = {name: calls_per_timing(work, device) for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in track(range(repeats), "timing", disable=not progress, transient=True):
        order = list(works) if turn % 2 == 0 else list(works)[::-1]  # whatever drifts, favours neither
        for name in order:
            seconds[name].append(seconds_of(works[name], calls[name], device))
    return {name: tuple(times) for name, times in seconds.items()}


def seconds_of(work: Work, calls: int, device: torch.device) -> float:
    """Seconds a call, over so many calls; a GPU is waited for before and after."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def calls_per_timing(work: Work, device: torch.device) -> int:
    """Warm up, and say how many calls make a timing of about `SHORTEST` seconds or more."""
    seconds = seconds_of(work, 1, device)
    if seconds < 10 * SHORTEST:  # a first call is no measure of quick work
        seconds = seconds_of(work, 1, device)
    return max(1, round(SHORTEST / seconds))


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; the CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load_average() -> float:
    """Processes that wanted to run, averaged over the last minute; NaN where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def pairwise(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round: what slows a machine for a while is in both."""
    return tuple(a / b for a, b in zip(numerators, denominators, strict=True))


def spread(ratios: Sequence[float], digits: int = 3) -> str:
    """Median, lowest and highest, as a table shows them."""
    return f"{median(ratios):.{digits}f} ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})"


def save(result: Any, path: Path, **derived: Any) -> None:
    """Write a result's fields, and metrics derived from them, as JSON; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(result) | derived, indent=2) + "\n")


def source_name(images: Path | None) -> str:
    """What a benchmark says of its films: the end of the folder's path, which need not tell more of the machine."""
    return "synthetic films" if images is None else str(Path(*images.resolve().parts[-2:]))
