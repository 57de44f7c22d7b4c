"""Killed at any moment, or stopped by a signal: nothing is lost."""

import random
import signal
import statistics

import pytest

from c2l_models.training.run_files import checkpoint

KILLS = 20
INTERRUPTED = 75


def test_killed_at_twenty_random_moments(make_runs, whole, tmp_path):
    """Five times each: at the start, within a step, a checkpoint and a probe. Nothing is lost."""
    medians = {
        phase: statistics.median(event["seconds"] for event in whole.events("phase") if event["phase"] == phase)
        for phase in ("start", "step", "checkpoint", "probe")
    }
    chance = random.Random(20)
    moments = [phase for phase in medians for _ in range(KILLS // 4)]
    chance.shuffle(moments)
    runs = make_runs(tmp_path)
    kills = in_a_write = 0
    for phase in moments:
        slow = 0.02 if phase == "checkpoint" else 0.0
        delay = chance.random() * (medians[phase] + 2 * slow)
        count = chance.randint(1, 3) if phase in ("step", "checkpoint") else 1
        status = runs(slow_disk={"seconds": slow}, send_signal={"phase": phase, "count": count, "delays": [delay]})
        assert status == -signal.SIGKILL, f"{phase}: {status} {runs.stderr}"
        kills += 1
        in_a_write += phase == "checkpoint" and bool(list(runs.folder.glob("checkpoints/.*.part")))
        written = [event["written"] for event in runs.events("written")]
        if written:
            found = checkpoint.load(runs.folder)
            assert found.state["step"] >= written[-1], phase
            assert found.passed_over == ()
    assert runs() == 0, runs.stderr
    assert kills == KILLS
    assert in_a_write
    runs.assert_nothing_lost(whole)


def test_killed_between_a_checkpoint_and_its_mark_as_the_best(make_runs, whole, tmp_path):
    runs = make_runs(tmp_path)
    for count in (1, 1, 2):
        runs(send_signal={"phase": "best", "count": count})
    assert runs() == 0, runs.stderr
    runs.assert_nothing_lost(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("phase", "count", "delay", "steps"), [("step", 7, 0, 7), ("checkpoint", 4, 0.01, 7)])
def test_asked_to_stop(make_runs, whole, tmp_path, number, phase, count, delay, steps):
    """Within a step, or within a slow write of a checkpoint: a checkpoint of the last step is left."""
    runs = make_runs(tmp_path)
    when = {"phase": phase, "count": count, "delays": [delay], "number": number}
    assert runs(send_signal=when, slow_disk={"seconds": 0.05 if delay else 0.0}) == INTERRUPTED, runs.stderr
    assert runs.state()["step"] == steps
    assert len(runs.events("written")) == len({event["written"] for event in runs.events("written")})
    assert f"step {steps}" in runs.stderr
    assert "--resume" in runs.stderr
    assert runs() == 0, runs.stderr
    assert runs.events("began")[-1]["began"] == steps
    runs.assert_nothing_lost(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_asked_to_stop_twice(make_runs, whole, tmp_path, number, status):
    """The second signal acts at once, even within a write, and loses no more than a kill."""
    runs = make_runs(tmp_path)
    when = {"phase": "checkpoint", "count": 3, "delays": [0, 0.1], "number": number}
    assert runs(send_signal=when, slow_disk={"seconds": 0.3}) == status, runs.stderr
    assert runs.state()["step"] == 3
    assert runs() == 0, runs.stderr
    runs.assert_nothing_lost(whole)
