"""`c2l prepare --engine ray`: each task writes one shard, and the shards are joined.

A store is one array in the order of its index, and workers cannot append to it together. So each task is a call of
`write_part`, with its journal and its resumption, and `join_shards` checks and copies the shards.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from c2l_models.progress import stage
from c2l_models.ray_engine import live_nodes, part_path, plan_worker, ray_cluster, remove_parts, run_parts

from .finished_store import PrepareReport, check_same_plan, summarize_store
from .prepare import Part, check_arguments, plan_parts, warn_if_disk_too_small, write_part
from .shards import join_shards
from .sources import load_sources
from .store_format import library_versions
from .unmounted_disk import find_sentinels

SHARD_IMAGES = 4096
"""Images per shard, whatever the cluster, so that a call on another one finds the finished shards."""
WORKER_BYTES = 5 * 10**8  # Python and pyarrow, and a film of 15 million pixels of 16 bits: 0.3 GB measured


class Task(NamedTuple):
    """A shard and its folder."""

    part: Part
    out: Path

    def __str__(self) -> str:
        return str(self.out)


def shards_of(out: Path) -> Path:
    """The folder that keeps the shards of an interrupted call."""
    return out.with_name(f"{out.name}.shards")


def prepare_on_ray(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    size: int = 128,
    pretraining_only: Sequence[str] = (),
    address: str | None = None,
    progress: bool = True,
) -> PrepareReport:
    """Prepare a store on a Ray cluster, with one worker per core: the bytes of `prepare`'s store.

    This process lists the data sets, so only it needs the patient key. Every node must see the data sets and the
    folder of `out` under the same paths, and have the same decoders. Shards are written to `shards_of(out)` and removed
    when they are joined; the disk needs room for two copies of the array. The same call resumes, within a shard too.

    Raises C2LError if Ray is not installed or not reached, and DatasetError as `prepare` and `join_shards`.
    """
    started = time.monotonic()
    out = Path(out).absolute()
    check_arguments(out, size)
    loaded = load_sources([(name, Path(root).absolute()) for name, root in sources], True, pretraining_only)
    count = sum(len(source.records) for source in loaded)
    total = max(-(-count // SHARD_IMAGES), 1)
    parts = plan_parts(loaded, size, [(number, total) for number in range(1, total + 1)])
    folder = shards_of(out)
    if out.exists():
        check_same_plan(out, parts[0].plan | library_versions(), None)
        if folder.is_dir():  # a call was killed after it had joined them
            remove_parts(folder)
        return summarize_store(out, None, started)
    folder.mkdir(parents=True, exist_ok=True)
    warn_if_disk_too_small(folder, 2 * count * size**2)
    tasks = [Task(_with_sentinels(part), part_path(folder, n, total)) for n, part in enumerate(parts, 1)]
    with ray_cluster(address) as ray, stage("decoding", count, "images", progress) as line:
        worker = plan_worker(live_nodes(ray), WORKER_BYTES)
        for number, _ in run_parts(ray, write_shard, tasks, worker):
            line.advance(len(tasks[number].part.rows))
    join_shards([task.out for task in tasks], out, progress)
    remove_parts(folder)
    return summarize_store(out, None, started)


def write_shard(task: Task, again: bool) -> None:
    """Write one shard. `again`: in processes of its own, which find and refuse a file that crashes its decoder."""
    write_part(task.part, task.out, workers=2 if again else 1, progress=False)


def _with_sentinels(part: Part) -> Part:
    """The part with the sentinels that this machine finds, so that a node without the disk does not miss them."""
    return part._replace(sentinels=find_sentinels([record for _, record in part.rows]))
