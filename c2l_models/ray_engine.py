"""Run one function over the parts of long work on a Ray cluster: one task per part, repeated if its worker dies.

Ray core, not Ray Data: the parts are cut before the cluster is known, so that they keep their boundaries, names and
batches on every cluster, and a second call finds the finished ones. Ray Data cuts blocks as it runs, and has nothing
between two stages to shuffle or stream here.
"""

import logging
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import C2LError
from .progress import report

ATTEMPTS = 3
"""A part whose worker died this often ends the call, after the other parts are done."""

Part = TypeVar("Part")
Result = TypeVar("Result")

Nodes = Sequence[Mapping[str, float]]
"""The resources of each node as Ray names them: CPU, GPU (numbers) and memory (bytes)."""


@dataclass(frozen=True)
class Worker:
    """The share of a node that one worker takes: cores, GPUs, and bytes of memory."""

    cpus: int
    gpus: int
    memory: int

    def count(self, nodes: Nodes) -> int:
        """Number of such workers that the nodes hold at a time."""
        needed = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return sum(min(int(node.get(name, 0) // n) for name, n in needed.items() if n) for node in nodes)


def check_address(engine: str, address: str | None) -> None:
    """Raise C2LError if a command got the address of a cluster that it would not use."""
    if address and engine != "ray":
        raise C2LError(f"--address {address}: expected it with --engine ray only; add --engine ray")


def plan_worker(nodes: Nodes, memory: int, device: str | None = "cpu", memory_per_core: int = 0) -> Worker:
    """The worker that a cluster gets: one per GPU with its share of the node's cores, or else one per core.

    Args:
        nodes: the resources of the cluster's nodes.
        memory: bytes that each worker needs. A node starts no more workers than its memory holds.
        device: cpu, cuda, or None for GPUs if there are any.
        memory_per_core: bytes that it needs in addition for each of its cores.

    Raises C2LError for another device, no GPU, or no node with the memory of one worker.
    """
    if device not in (None, "cpu", "cuda"):
        raise C2LError(f"--device {device}: expected cpu or cuda with --engine ray, which chooses each worker's GPU")
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise C2LError(f"--device cuda: expected a GPU in the cluster, found none on {len(nodes)} nodes; use cpu")
    use_gpus = bool(with_gpu) and device != "cpu"
    cpus = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu) if use_gpus else 1
    worker = Worker(cpus, int(use_gpus), memory + max(cpus, 1) * memory_per_core)
    if not worker.count(nodes):
        largest = max((node.get("memory", 0) for node in nodes), default=0)
        raise C2LError(
            f"expected a node with a free core and {worker.memory / 1e9:.1f} GB for one worker, found {len(nodes)} "
            f"nodes with at most {largest / 1e9:.1f} GB for Ray; free memory, or state it: ray start --memory BYTES"
        )
    return worker


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine; yields the module `ray`.

    A connection that the caller made before is used and kept.

    Args:
        address: HOST:PORT, auto or local; None: as `ray.init`: RAY_ADDRESS, a cluster that runs on this machine, or a
            new one with all its cores and GPUs.

    Raises C2LError if Ray is not installed or the cluster cannot be reached.
    """
    # Ray would send statistics of its use to its makers. A running cluster keeps its own setting.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise C2LError("--engine ray needs Ray: pip install 'c2l-models[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises errors of every type, Exception itself among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if address:
            where, todo = f"--address {address}", "correct the address, or leave it out to use this machine"
        elif named := os.environ.get("RAY_ADDRESS"):
            where, todo = f"RAY_ADDRESS {named}", "correct or unset RAY_ADDRESS, or choose a cluster with --address"
        else:
            where, todo = "this machine", "choose a cluster with --address, or leave out --engine ray"
        raise C2LError(
            f"{where}: expected a Ray cluster with the same versions of Ray and Python, found: {reason}; {todo}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def live_nodes(ray: Any) -> Nodes:
    """The resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run_parts(
    ray: Any, function: Callable[[Part, bool], Result], parts: Sequence[Part], worker: Worker
) -> Iterator[tuple[int, Result]]:
    """Call `function(part, again)` for each part on the cluster; yield (number of the part, result) as they finish.

    `again` is true if a worker died while it worked on this part. The function must be one of an installed module, and
    a repeated call must give the same result. Nodes may come and go.

    Raises:
        C2LError: a worker died `ATTEMPTS` times on one part. The other parts are done before.
        Exception: what `function` raised, at once.
    """
    died = tuple(
        getattr(ray.exceptions, name)
        for name in ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
    )
    options = {"num_cpus": worker.cpus, "num_gpus": worker.gpus, "memory": worker.memory, "max_retries": 0}
    remote = ray.remote(**options)(function)
    waiting, failed = deque((number, 0) for number in range(len(parts))), list[int]()
    running: dict[Any, tuple[int, int]] = {}
    while waiting or running:
        ahead = 2 * max(worker.count(live_nodes(ray)), 1)  # the next tasks wait on their nodes
        while waiting and len(running) < ahead:
            number, deaths = waiting.popleft()
            running[remote.remote(parts[number], deaths > 0)] = number, deaths
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        number, deaths = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        except died as error:
            report(f"part {number + 1} of {len(parts)}: its worker died ({type(error).__name__}), death {deaths + 1}")
            if deaths + 1 < ATTEMPTS:
                waiting.appendleft((number, deaths + 1))
            else:
                failed.append(number)
            continue
        yield number, result
    if failed:
        raise C2LError(
            f"workers died {ATTEMPTS} times on each of these parts: {', '.join(str(number + 1) for number in failed)} "
            f"of {len(parts)}, from {parts[failed[0]]}; a file may crash its decoder, or memory is short. The other "
            "parts are kept, and the same command resumes"
        )


def part_path(folder: Path, number: int, count: int) -> Path:
    """The folder in which part `number` of `count`, from 1, is kept."""
    return folder / f"{number:06}-of-{count:06}"


def remove_parts(folder: Path) -> None:
    """Remove the parts in a folder, and the folder if it then is empty."""
    for part in folder.iterdir():
        if re.fullmatch(r"\d{6,}(-of-\d{6,}|\.parquet)", part.name):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
