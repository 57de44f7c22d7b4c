"""The engine without Ray: the plan of the workers, and parts that are repeated when workers die."""

import sys
from types import SimpleNamespace

import pytest
from ray_stand_in import StandIn

from c2l_models.errors import C2LError, DatasetError
from c2l_models.ray_engine import Worker, part_path, plan_worker, ray_cluster, remove_parts, run_parts

GB = 10**9
GPU_NODE = {"CPU": 26.0, "GPU": 8.0, "memory": 400e9}
CPU_NODE = {"CPU": 64.0, "memory": 100e9}


@pytest.mark.parametrize(
    ("nodes", "device", "worker", "count"),
    [
        ([{"CPU": 2.0, "memory": 15e9}], None, Worker(1, 0, 3 * GB), 2),
        ([CPU_NODE], "cpu", Worker(1, 0, 3 * GB), 33),  # memory for 33 workers, cores for 64
        ([CPU_NODE, {"CPU": 4.0, "memory": 2e9}], "cpu", Worker(1, 0, 3 * GB), 33),  # the small node holds none
        ([GPU_NODE, CPU_NODE], None, Worker(3, 1, 5 * GB), 8),  # three cores a GPU
        ([GPU_NODE, {"CPU": 1.0, "GPU": 1.0, "memory": 9e9}], "cuda", Worker(1, 1, 3 * GB), 9),  # the poorest share
        ([GPU_NODE], "cpu", Worker(1, 0, 3 * GB), 26),
    ],
)
def test_one_worker_per_gpu_or_core_if_memory_allows(nodes, device, worker, count):
    assert plan_worker(nodes, 2 * GB, device, GB) == worker
    assert worker.count(nodes) == count


@pytest.mark.parametrize(
    ("nodes", "device", "message"),
    [
        ([CPU_NODE], "cuda", "expected a GPU in the cluster, found none on 1 nodes"),
        ([CPU_NODE], "cuda:1", "expected cpu or cuda with --engine ray"),
        ([{"CPU": 8.0, "memory": 2e9}], None, r"3\.0 GB for one worker, found 1 nodes with at most 2\.0 GB for Ray"),
        ([], None, "found 0 nodes"),
    ],
)
def test_a_cluster_without_room_for_one_worker(nodes, device, message):
    with pytest.raises(C2LError, match=message):
        plan_worker(nodes, 2 * GB, device, GB)


def test_each_part_gives_its_result_and_few_wait():
    ray = StandIn()
    found = list(run_parts(ray, lambda part, again: (part * 2, again), range(10), Worker(1, 0, GB)))
    assert sorted(found) == [(number, (number * 2, False)) for number in range(10)]
    assert ray.most_running == 4  # two workers, and a task for each beyond
    assert ray.options == {"num_cpus": 1, "num_gpus": 0, "memory": GB, "max_retries": 0}


def test_the_part_of_a_dead_worker_is_repeated_and_knows_it(capsys):
    ray = StandIn(dies=lambda task, call: call in (0, 5))
    found = dict(run_parts(ray, lambda part, again: (part, again), "abcdef", Worker(1, 0, GB)))
    assert [found[number][0] for number in range(6)] == list("abcdef")
    assert sum(again for _, again in found.values()) == 2
    assert capsys.readouterr().err.count("its worker died (WorkerCrashedError)") == 2


def test_a_part_that_kills_every_worker_ends_the_call_after_the_others():
    ray = StandIn(dies=lambda task, call: task()[0] == "b")
    found = []
    with pytest.raises(C2LError, match="workers died 3 times on each of these parts: 2 of 4, from b;"):
        found.extend(run_parts(ray, lambda part, again: (part, again), "abcd", Worker(1, 0, GB)))
    assert sorted(result for _, (result, _) in found) == ["a", "c", "d"]
    assert ray.calls == 6


def test_an_error_of_a_task_is_raised_as_it_was():
    def fail(part, again):
        raise DatasetError("the disk is full; free space")

    with pytest.raises(DatasetError, match=r"^the disk is full; free space$"):
        list(run_parts(StandIn(), fail, "ab", Worker(1, 0, GB)))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(C2LError, match=r"needs Ray: pip install 'c2l-models\[ray\]'"), ray_cluster(None):
        pass


@pytest.mark.parametrize(
    ("address", "variable", "message"),
    [
        ("h:1", "v:2", "^--address h:1: expected a Ray cluster .*, found: no answer; correct the address, or leave"),
        (None, "v:2", "^RAY_ADDRESS v:2: expected .*, found: no answer; correct or unset RAY_ADDRESS"),
        (None, "", "^this machine: expected .*, found: no answer; choose a cluster with --address"),
    ],
)
def test_a_cluster_that_is_not_reached_is_named_as_the_user_named_it(monkeypatch, address, variable, message):
    def refuse(**_):
        raise ConnectionError("no answer\nmore")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=refuse))
    monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(C2LError, match=message), ray_cluster(address):
        pass


@pytest.mark.parametrize("foreign", [True, False])
def test_parts_are_removed_and_nothing_else(tmp_path, foreign):
    folder = tmp_path / "x.parts"
    folder.mkdir()
    (folder / "000001.parquet").write_text("rows")
    part_path(folder, 2, 2).mkdir()
    (part_path(folder, 2, 2) / "index.parquet").write_text("rows")
    assert sorted(path.name for path in folder.iterdir()) == ["000001.parquet", "000002-of-000002"]
    kept = ["notes.txt", "x000001.parquet"] if foreign else []
    for name in kept:
        (folder / name).write_text("mine")
    remove_parts(folder)
    assert folder.exists() is foreign
    assert sorted(path.name for path in folder.glob("*")) == kept
