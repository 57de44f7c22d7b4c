"""A full disk: the old checkpoint survives, and the run reports the failed write and continues."""

import signal
from pathlib import Path

import pytest
from small_disk import mounted_disk

REFUSED = 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes."""
    with mounted_disk(tmp_path / "disk", "4m") as folder:
        yield folder


@pytest.fixture(params=["limited files", "small disk"])
def limited_disk(request, tmp_path):
    """The run's parent folder, and how its disk is filled."""
    if request.param == "limited files":
        return tmp_path, {}
    folder = request.getfixturevalue("small_disk")
    return folder, {"full": str(folder / "filler")}


def test_a_disk_that_is_full_for_a_while(make_runs, whole, limited_disk, tmp_path):
    """The disk is full from step 12 to 20. The checkpoint of step 10 survives; later checkpoints are written again."""
    disk, how = limited_disk
    runs = make_runs(tmp_path, disk)
    status = runs(limit_space={"first": 12, "last": 21, **how}, send_signal={"phase": "step", "count": 20})
    assert status == -signal.SIGKILL, runs.stderr
    assert runs.state()["step"] == 10
    assert [event["written"] for event in runs.events("written")] == [0, 3, 5, 6, 9, 10]
    if how:
        Path(how["full"]).unlink()
    assert runs(limit_space={"first": 12, "last": 21, **how}) == 0, runs.stderr
    (*_, note) = runs.notes()
    assert "step 20 could not be written" in note
    assert "No space left on device" in note or "File too large" in note
    assert "step-000000010" in note
    assert "step 20 could not be written" in " ".join(runs.stderr.split())
    runs.assert_nothing_lost(whole)


def test_a_disk_that_stays_full(make_runs, half, limited_disk, tmp_path):
    """The run continues to its last step, and fails there, because its last checkpoint cannot be written."""
    disk, how = limited_disk
    runs = make_runs(tmp_path, disk, epochs=4, probe_every=2)
    assert runs(limit_space={"first": 12, "last": 10**6, **how}, pictures=True) == REFUSED, runs.stderr
    assert runs.stderr.splitlines()[-1].startswith("c2l: the checkpoint of step 20 could not be written")
    assert runs.state()["step"] == 10
    if how:
        Path(how["full"]).unlink()
    assert runs() == 0, runs.stderr
    runs.assert_same_networks(half)  # of step 20


def test_a_best_one_that_finds_no_room(make_runs, whole, tmp_path):
    """The previous best checkpoint is kept until a better one is written."""
    metrics = {line["step"]: line["folder"] for line in whole.log() if line["kind"] == "probe"}
    assert whole.state(best=True)["step"] == max(metrics, key=metrics.__getitem__)
    lost = max(list(metrics)[:-1], key=metrics.__getitem__)
    runs = make_runs(tmp_path)
    assert runs(limit_space={"first": lost, "last": lost + 1}) == 0, runs.stderr
    assert lost not in [event["written"] for event in runs.events("written")]
    del metrics[lost]
    assert runs.state(best=True)["step"] == max(metrics, key=metrics.__getitem__)
    runs.assert_same_networks(whole)
    assert runs.log() == whole.log()  # failed lines are written later
