"""Many processes compute the same as one: losses, networks and queue, also after one of them is killed."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from runs import same
from small_jobs import SECONDS, dumps, free_port, run_job, start_server, torchrun, two_processes

from c2l_models.errors import RunError
from c2l_models.training import distributed, mixup, pretrain
from c2l_models.training.benchmark.scaling import traffic
from c2l_models.training.distributed import ALONE, World
from c2l_models.training.objectives import build
from c2l_models.training.recipe import Objective
from c2l_models.training.run_files import checkpoint, log

STEPS = 10


# One process's block


def test_a_world_of_one_changes_nothing():
    x = torch.randn(6, 3)
    assert ALONE.is_main
    for unchanged in (ALONE.block(x), ALONE.gather(x), ALONE.mean(x)):
        assert unchanged is x or torch.equal(unchanged, x)
    assert ALONE.share(lambda: 7) == 7
    assert [ALONE.any(here) for here in (True, False)] == [True, False]
    layer = torch.nn.Linear(2, 2)
    assert distributed.unwrap(ALONE.wrap(layer, torch.device("cpu"))) is layer


def test_blocks_are_equal_and_in_order():
    rows = torch.arange(12)
    parts = [World(rank, 3).block(rows) for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_no_image_is_mixed_with_another_processes():
    """Each block of a blockwise permutation mixes its rows as the whole permutation does."""
    m = mixup.draw(12, generator=torch.Generator().manual_seed(0), blocks=3)
    x = torch.randn(12, 5, dtype=torch.float64)
    whole = mixup.mix(x, m)
    for rank in range(3):
        world = World(rank, 3)
        own = m.block(world)
        assert sorted(own.permutation.tolist()) == [0, 1, 2, 3]
        assert torch.equal(mixup.mix(world.block(x), own), world.block(whole))


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.join("cpu") as (world, place):
        assert (world, place.type) == (ALONE, "cpu")


def meet(*devices):
    """What `_meet` returns or raises in each process of a job, in threads."""
    store, size = torch.distributed.HashStore(), len(devices)

    def one(rank):
        try:
            return distributed._meet(store, rank, size, devices[rank])
        except RunError as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(one, range(size)))


def test_processes_meet_under_one_name():
    assert len({*meet("cpu", "cpu", "cpu")}) == 1
    assert len({*meet("cuda", "cuda"), *meet("cuda", "cuda")}) == 2  # another job has another name


def test_a_machine_without_its_gpus_is_named_at_once_by_all_processes():
    """They would wait for one another for half an hour, under different backends."""
    for error in meet("cuda", "cuda", "cpu", "cpu"):
        assert isinstance(error, RunError)
        assert "found cuda in 0, 1 and cpu in 2, 3; run `c2l doctor`" in str(error)


# Whole jobs


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """A batch of 16, in batch-norm groups of 4 and 4 mixup blocks: the same run on 1, 2 and 4 processes.

    Two steps per epoch and a log line every three, so every second checkpoint is within a step group; one probe.
    """
    return replace(
        tiny_recipe,
        batch_size=16,
        mixup_blocks=4,
        queue_length=101,
        epochs=5,
        log_every=3,
        checkpoint_every=3,
        probe_every=4,
    )


@pytest.fixture(scope="module")
def variant(recipe):
    """A recipe whose run is a `Variant`: other terms, other draws, no shuffle, views drawn once."""
    objective = Objective(
        terms=("mixed", "feature"),
        mixup="separate",
        feature_mixup="after_norm",
        queue_update="interleaved",
        shuffle_bn=False,
    )
    return replace(recipe, objective=objective, views="once", epochs=2, probe_every=0)


@pytest.fixture(scope="module")
def server():
    with start_server() as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def jobs(server, recipe, tiny_store, tmp_path_factory):
    """The same run on 1, 2 and 4 processes: {processes: (folder, dumps)}."""
    found = {}
    for processes in (1, 2, 4):
        folder = tmp_path_factory.mktemp("jobs") / str(processes)
        found[processes] = folder, run_job(server, folder, recipe, tiny_store, processes)
        assert len(found[processes][1]) == processes
    return found


def trained(dump):
    """Parameters and queue. Running statistics are left out: they differ between processes, and nothing uses them."""
    return {name: value for name, value in dump["method"].items() if "running" not in name and "tracked" not in name}


@pytest.mark.parametrize("processes", [2, 4])
def test_student_teacher_and_queue_are_one_on_all_processes(jobs, processes):
    _, (first, *others) = jobs[processes]
    assert len(first["losses"]) == STEPS
    assert 3 * 16 * STEPS > 4 * 101  # the queue has wrapped around, in the middle of a batch
    for other in others:
        for name, value in trained(first).items():
            assert torch.equal(trained(other)[name], value), name


@pytest.mark.parametrize("processes", [2, 4])
def test_many_processes_compute_what_one_does(jobs, processes):
    """Loss, parameters and queue, to the rounding of float32."""
    _, (one,) = jobs[1]
    _, many = jobs[processes]
    losses = torch.stack([dump["losses"] for dump in many]).mean(dim=0)
    torch.testing.assert_close(losses, one["losses"], rtol=2e-4, atol=1e-5)
    assert one["losses"].std() > 0.05  # they differ from step to step
    for name, value in trained(one).items():
        torch.testing.assert_close(trained(many[0])[name], value, rtol=2e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("processes", [2, 4])
def test_one_log_of_the_whole_job(jobs, processes):
    one, many = (log.read(jobs[n][0] / "run") for n in (1, processes))
    assert [(line["kind"], line["step"]) for line in many] == [
        *(("train", 3), ("train", 6), ("probe", 8), ("train", 9), ("train", 10))
    ]
    for alone, shared in zip(one, many, strict=True):
        for key in {"loss", "loss_a", "loss_m", "spread"} & alone.keys():
            assert shared[key] == pytest.approx(alone[key], rel=1e-3), key
    assert json.loads((jobs[processes][0] / "run" / "run.json").read_text())["processes"] == processes


def test_a_variant_is_the_same_on_two_processes_too(server, variant, tiny_store, tmp_path):
    (one,), two = (run_job(server, tmp_path / str(number), variant, tiny_store, number) for number in (1, 2))
    assert len(two[1]["losses"]) == 4
    assert two[0]["received"] == 4 * traffic(variant, 2).keys  # without a shuffle no image is exchanged
    losses = torch.stack([dump["losses"] for dump in two]).mean(dim=0)
    torch.testing.assert_close(losses, one["losses"], rtol=2e-4, atol=1e-5)
    for name, value in trained(one).items():
        torch.testing.assert_close(trained(two[0])[name], value, rtol=2e-3, atol=2e-5, msg=name)
        assert torch.equal(trained(two[0])[name], trained(two[1])[name])


def test_no_more_goes_over_the_wire_than_is_counted(jobs, recipe):
    for processes in (2, 4):
        expected = traffic(recipe, processes)
        for dump in jobs[processes][1]:
            assert dump["received"] == STEPS * (expected.images + expected.keys)


@pytest.mark.parametrize("method", ["c2l", "model_genesis"])
def test_checkpointing_goes_with_the_averaging_of_gradients(tiny_recipe, method):
    """One process under DistributedDataParallel, which tracks the gradients of recomputed layers."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        found = []
        for wrap in (False, True):
            torch.manual_seed(0)
            model = build(replace(tiny_recipe, method=method, gradient_checkpointing=True))
            if wrap:
                model = World(0, 2).wrap(model, torch.device("cpu"))
            student = distributed.unwrap(model).student
            optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
            images = torch.randint(256, (8, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
            for step in range(2):
                pretrain.train_step(model, optimizer, images, torch.Generator().manual_seed(step))
            found.append(dict(student.state_dict()))
        same(*found)
    finally:
        torch.distributed.destroy_process_group()


# A killed process


def test_a_killed_process_ends_the_job_with_one_clear_error(server, jobs, recipe, tiny_store, tmp_path):
    status, stderr = two_processes(tmp_path / "job", recipe, tiny_store, KILL=f"1:5:{tmp_path / 'killed'}")
    assert status not in (0, -signal.SIGKILL)
    errors = [line for line in stderr.splitlines() if line.startswith("c2l: ")]
    assert len(errors) == 1, stderr
    assert "process 0 of 2 lost contact with the others" in errors[0]
    assert "--resume" in errors[0]
    assert checkpoint.load(tmp_path / "job" / "run").state["step"] == 3  # the last multiple of checkpoint_every

    run_job(server, tmp_path / "job", recipe, tiny_store, 1)  # one process can finish it
    alone, finished = (checkpoint.load(folder / "run").state for folder in (jobs[1][0], tmp_path / "job"))
    assert finished["step"] == STEPS
    for name, value in trained(alone).items():
        torch.testing.assert_close(trained(finished)[name], value, rtol=2e-3, atol=2e-5, msg=name)


def without_timing(run):
    timing = ("images_per_second", "data_wait")
    return [{key: value for key, value in line.items() if key not in timing} for line in log.read(run)]


def test_two_machines_start_a_killed_job_again_from_its_checkpoint(jobs, recipe, tiny_store, tmp_path):
    """The resumed job ends with the same bits and log as a job that was not killed.

    Each machine's torchrun has its own count of restarts, and keeps the addresses of dead processes.
    """
    marker, port = tmp_path / "killed", free_port()
    machines = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]
    machines += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    jobs_there = [torchrun(machines, tmp_path / "job", recipe, tiny_store, KILL=f"1:5:{marker}") for _ in range(2)]
    for job in jobs_there:
        _, stderr = job.communicate(timeout=SECONDS)
        assert job.returncode == 0, stderr
    assert marker.exists()
    again, whole = (checkpoint.load(folder / "run").state for folder in (tmp_path / "job", jobs[2][0]))
    assert again["step"] == whole["step"] == STEPS
    for name, value in whole["method"].items():
        assert torch.equal(again["method"][name], value), name
    assert without_timing(tmp_path / "job" / "run") == without_timing(jobs[2][0] / "run")


def test_a_signal_to_any_process_stops_them_all(server, jobs, recipe, tiny_store, tmp_path):
    """All processes stop after the same step. Rank 0 saves, and exports nothing. The resumed job ends the same."""
    status, stderr = two_processes(tmp_path / "job", recipe, tiny_store, TERM_AT="1:4")
    assert status
    assert [len(dump["losses"]) for dump in dumps(tmp_path / "job")] == [5, 5]
    assert "stopped by SIGTERM at step 5. A checkpoint was written" in stderr
    assert not (tmp_path / "job" / "run" / "backbone.safetensors").exists()
    run_job(server, tmp_path / "job", recipe, tiny_store, 2)
    assert (tmp_path / "job" / "run" / "backbone.safetensors").exists()
    again, whole = (checkpoint.load(folder / "run").state for folder in (tmp_path / "job", jobs[2][0]))
    for name, value in whole["method"].items():
        assert torch.equal(again["method"][name], value), name
    assert without_timing(tmp_path / "job" / "run") == without_timing(jobs[2][0] / "run")


def test_a_batch_is_shared_in_whole_groups_and_blocks(recipe):
    assert pretrain.share_batch(recipe, World(0, 2)) == recipe
    assert pretrain.share_batch(replace(recipe, mixup_blocks=1), World(0, 2)).mixup_blocks == 2
    for change, processes in (({"batch_norm_group": 16}, 2), ({"mixup_blocks": 1}, 3), ({"mixup_blocks": 4}, 8)):
        with pytest.raises(RunError, match=f"{processes} processes cannot share a batch of 16"):
            pretrain.share_batch(replace(recipe, **change), World(0, processes))
