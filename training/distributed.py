"""Distributed training: each process's rows of a batch, and the exchange of images and features.

Batches and random numbers belong to the whole job; each process computes an equal block of rows. Except for the
rounding of sums, a job therefore has the same result on any number of processes.
"""

import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from c2l_models.devices import check_default_dtype, find_device
from c2l_models.errors import RunError, RunInterrupted

T = TypeVar("T")

HOST_TIMEOUT = timedelta(minutes=30)
"""Longest wait of hosts for one another. It is long because they wait for the slowest disk before the first step, and
for rank 0 while it probes and writes."""
DEVICE_TIMEOUT = timedelta(minutes=5)
"""Longest wait of one GPU for another within a step. After that, the other process counts as lost."""
GLOO_RELEASE = 0.1
"""Seconds to wait before a process ends, so that gloo's threads can release their last tensors.

They need Python's lock to do so, and abort a process that ends earlier. Known up to torch 2.14, where the threads
outlive their group."""


@dataclass(frozen=True)
class World:
    """The processes of a job, seen from one of them.

    Attributes:
        rank: this process's number, from 0. Rank 0 writes the run folder.
        size: W, the number of processes.
        hosts: the group for decisions between steps, which does not wait for a GPU; None: the default group.
    """

    rank: int = 0
    size: int = 1
    hosts: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def block(self, rows: Tensor) -> Tensor:
        """This process's block of a whole batch: [W B, …] -> [B, …]."""
        return rows.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """Every process's rows, in the order of ranks, on each process: [B, …] -> [W B, …]; without gradient."""
        if self.size == 1:
            return rows
        everyone = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        distributed.all_gather_into_tensor(everyone, rows.contiguous())
        return everyone

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over processes; it has the same shape on each."""
        if self.size > 1:
            distributed.all_reduce(values)  # gloo has no mean
            values /= self.size
        return values

    def any(self, here: bool) -> bool:
        """Whether `here` is true on any process, so that all of them can leave a loop at the same step."""
        if self.size == 1:
            return here
        flag = torch.tensor(float(here))
        distributed.all_reduce(flag, group=self.hosts)
        return bool(flag)

    def share(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0, and return its result on every process."""
        if self.size == 1:
            return make()
        box = [make() if self.is_main else None]
        distributed.broadcast_object_list(box, group=self.hosts)
        return cast(T, box[0])

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.any(False)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a module so that gradients are averaged over processes. All processes begin with the weights of rank 0.

        Buffers are not synchronised. The queue is equal on all processes without it. Batch norm's running statistics
        differ between processes; only rank 0's are probed and saved, by default after a recalibration.
        """
        if self.size == 1:
            return module
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions of torch rename the argument
            return DistributedDataParallel(module, devices, broadcast_buffers=False, gradient_as_bucket_view=True)


ALONE = World()


@contextmanager
def join(device: str = "auto") -> Iterator[tuple[World, torch.device]]:
    """Join the job that `torchrun` started: this process's `World` and its device. Without torchrun, it is alone.

    Args:
        device: "cpu", "cuda", or "auto": CUDA if the machine has it. A process takes the GPU of its local rank.

    Raises:
        RunError: this machine has more processes than GPUs, another has another kind of device, or a process was lost.
        C2LError: as `find_device` and `check_default_dtype`.
    """
    check_default_dtype()
    own_device = pick_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield ALONE, own_device
        return
    if own_device.type == "cuda":
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise RunError(
                f"expected one GPU per process, found process {local} and {gpus} GPUs on this machine; set "
                f"--nproc-per-node {gpus}"
            )
        own_device = torch.device("cuda", local)
        torch.cuda.set_device(own_device)
    store, rank, size = next(distributed.rendezvous("env://", timeout=HOST_TIMEOUT))
    store = distributed.PrefixStore(_meet(store, rank, size, own_device.type), store)
    backend, timeout = ("nccl", DEVICE_TIMEOUT) if own_device.type == "cuda" else ("gloo", HOST_TIMEOUT)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    hosts = distributed.new_group(backend="gloo", timeout=HOST_TIMEOUT) if backend == "nccl" else None
    try:
        yield World(rank, size, hosts), own_device
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in ("gloo", "nccl", "peer")):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise RunError(
            f"process {rank} of {size} lost contact with the others ({reason}). The first error above is the cause. "
            "torchrun's --max-restarts and our --resume restart from the last checkpoint"
        ) from error
    except RunInterrupted:
        time.sleep(GLOO_RELEASE)
        raise
    time.sleep(GLOO_RELEASE)
    distributed.destroy_process_group()  # not after an error, because it would wait for the others


def is_main_process() -> bool:
    """Whether this process is rank 0 of its job, or alone. It may be called before and after `join`."""
    return os.environ.get("RANK", "0") == "0"


def _meet(store: distributed.Store, rank: int, size: int, device: str) -> str:
    """Agree on a name with the processes that run now, and with no earlier ones. All must have one kind of device.

    torchrun keeps one store over all restarts, and the addresses of dead processes in it must not be used. Its count of
    restarts cannot serve as a name, because each machine has its own count. So each rank leaves a random token, and
    rank 0 answers each token with the name. The token of a dead process is never confirmed.

    Raises:
        RunError: a process did not start, or some have a GPU and others do not: they would wait for one another.
    """
    token = uuid.uuid4().hex
    if rank:
        store.set(f"here/{rank}", token)
        name = store.get(f"name/{rank}/{token}").decode()
        store.set(f"known/{rank}/{name}", device)
    else:
        name = token  # rank 0's token is the name
        store.set(f"devices/{name}", json.dumps(_devices(store, size, name, device)))
    devices = json.loads(store.get(f"devices/{name}"))
    if len(devices) > 1:
        found = " and ".join(f"{kind} in {', '.join(map(str, ranks))}" for kind, ranks in devices.items())
        raise RunError(
            f"expected one kind of device in all processes, found {found}; run `c2l doctor` on the machine of the odd "
            "ones, or choose --device cpu"
        )
    return name


def _devices(store: distributed.Store, size: int, name: str, device: str) -> dict[str, list[int]]:
    """Rank 0's part of `_meet`: tell every other process the name. Returns the ranks by kind of device."""
    devices = {device: [0]}
    absent, deadline = set(range(1, size)), time.monotonic() + HOST_TIMEOUT.total_seconds()
    while absent:
        for other in [other for other in absent if store.check([f"here/{other}"])]:
            store.set(f"name/{other}/{store.get(f'here/{other}').decode()}", name)
            if store.check([f"known/{other}/{name}"]):
                devices.setdefault(store.get(f"known/{other}/{name}").decode(), []).append(other)
                absent.remove(other)
        if time.monotonic() > deadline:
            raise RunError(f"processes {', '.join(map(str, sorted(absent)))} of {size} did not start; see their output")
        time.sleep(0.05)
    return {kind: sorted(ranks) for kind, ranks in devices.items()}


def unwrap(module: nn.Module) -> Any:
    """The module inside the result of `World.wrap`."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def pick_device(device: str) -> torch.device:
    """The device of this name; "auto" is CUDA if the machine has it, otherwise the CPU. Raises as `find_device`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return find_device(device)
