"""One process of many: which rows are its own, and how features and images are exchanged.

A batch, its random draws, and their order belong to the whole job; each process works on an equal block of rows. So
a job computes the same on any number of processes, but for the rounding of sums.
"""

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

from c2l_models.errors import RunError, RunInterrupted

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long the processes' hosts wait for one another: one probes and writes while the others wait."""
DEVICE_PATIENCE = timedelta(minutes=5)
"""How long a GPU waits for another in a step, before its process is taken for lost."""
LETTING_GO = 0.1
"""Seconds in which gloo's threads put down the last tensors that they were handed. They need Python's lock for it, and
abort a process that ends before they have it (known of torch to 2.14: a destroyed group's threads live on)."""


@dataclass(frozen=True)
class World:
    """The processes of a job, seen from one of them.

    Attributes:
        rank: this process, from 0; 0 writes the run folder.
        size: W, the number of processes.
        hosts: the group for what is agreed between steps, without waiting for a GPU; None: the same as for all else.
    """

    rank: int = 0
    size: int = 1
    hosts: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def block(self, rows: Tensor) -> Tensor:
        """This process's equal share of a whole batch: [W B, …] -> [B, …]."""
        return rows.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """Every process's rows in the order of ranks, on each of them: [B, …] -> [W B, …]; without gradient."""
        if self.size == 1:
            return rows
        everyone = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        distributed.all_gather_into_tensor(everyone, rows.contiguous())
        return everyone

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes of a tensor that has the same shape on each."""
        if self.size > 1:
            distributed.all_reduce(values)  # gloo knows sums only
            values /= self.size
        return values

    def any(self, here: bool) -> bool:
        """Whether it is so on any process: all of them leave a loop at the same step."""
        if self.size == 1:
            return here
        flag = torch.tensor(float(here))
        distributed.all_reduce(flag, group=self.hosts)
        return bool(flag)

    def share(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, on every process."""
        if self.size == 1:
            return make()
        box = [make() if self.is_main else None]
        distributed.broadcast_object_list(box, group=self.hosts)
        return cast(T, box[0])

    def wait(self) -> None:
        """Until every process has come here."""
        self.any(False)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with its gradients averaged over processes; its first weights become rank 0's.

        Buffers are not sent around: the queue is equal everywhere already; of batch norm's statistics rank 0's are
        probed and saved, and by default set anew for it.
        """
        if self.size == 1:
            return module
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions of torch have another name for the argument
            return DistributedDataParallel(module, devices, broadcast_buffers=False, gradient_as_bucket_view=True)


ALONE = World()


@contextmanager
def join(device: str = "auto") -> Iterator[tuple[World, torch.device]]:
    """This process's place in the job that `torchrun` started, and its device; alone without torchrun.

    Args:
        device: "cpu", "cuda", or "auto": CUDA where there is one. A process takes the GPU of its local rank.

    Raises:
        RunError: more processes on this machine than GPUs; another process is gone.
    """
    place = pick_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield ALONE, place
        return
    if place.type == "cuda":
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise RunError(f"process {local} of this machine has no GPU, there are {gpus}: --nproc-per-node {gpus}")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    store, rank, size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    store = distributed.PrefixStore(_meet(store, rank, size), store)
    backend, patience = ("nccl", DEVICE_PATIENCE) if place.type == "cuda" else ("gloo", PATIENCE)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    hosts = distributed.new_group(backend="gloo", timeout=PATIENCE) if backend == "nccl" else None
    try:
        yield World(rank, size, hosts), place
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in ("gloo", "nccl", "peer")):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise RunError(
            f"process {rank} of {size} lost the others ({reason}); the first error above is the cause. "
            "torchrun --max-restarts with --resume goes on from the last checkpoint"
        ) from error
    except RunInterrupted:
        time.sleep(LETTING_GO)
        raise
    time.sleep(LETTING_GO)
    distributed.destroy_process_group()  # not after an error: it would wait for the others


def is_main_process() -> bool:
    """Whether this process is rank 0 of its job, or alone; known before and after `join`."""
    return os.environ.get("RANK", "0") == "0"


def _meet(store: distributed.Store, rank: int, size: int) -> str:
    """A name that the processes which are here now, and no others, agree on.

    torchrun keeps one store for all its restarts, in which the addresses of the dead must not be found, and the count
    of restarts that it gives is each machine's own. So rank 0 makes a name, and hands it to each other rank under the
    word that this rank left for it; a word of a dead process is never answered.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"here/{rank}", mine)
        name = store.get(f"name/{rank}/{mine}").decode()
        store.set(f"known/{rank}/{name}", "")
        return name
    absent, until = set(range(1, size)), time.monotonic() + PATIENCE.total_seconds()
    while absent:
        for other in [other for other in absent if store.check([f"here/{other}"])]:
            store.set(f"name/{other}/{store.get(f'here/{other}').decode()}", mine)
            if store.check([f"known/{other}/{mine}"]):
                absent.remove(other)
        if time.monotonic() > until:
            raise RunError(f"processes {', '.join(map(str, sorted(absent)))} of {size} never came")
        time.sleep(0.05)
    return mine


def unwrap(module: nn.Module) -> Any:
    """The module inside `World.wrap`'s."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def pick_device(device: str) -> torch.device:
    """ "auto": CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
