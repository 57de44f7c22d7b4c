"""Nothing is lost: runs of the real command are killed, starved of disk, damaged, preempted and poisoned, for real."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from c2l_models.training import checkpoint, log
from c2l_models.training.batches import batch_rows, training_rows
from c2l_models.training.run_folder import read_run

KILLS = 20
TIMING = ("images_per_second", "data_wait")
REFUSED, INTERRUPTED = 2, 75
STEPS, PER_EPOCH = 40, 5


@pytest.fixture(scope="module")
def server():
    """The process that forks the runs."""
    command = [sys.executable, str(Path(__file__).parent / "faults" / "driver.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.stdin.close()


@dataclass(frozen=True)
class Runs:
    """`c2l pretrain` in a folder, again and again."""

    server: subprocess.Popen
    store: Path
    recipe: Path
    folder: Path
    desk: Path
    """Where the driver's notes lie: never on the disk that is filled."""

    def __call__(self, times=False, pictures=False, resume=True, recipe=None, **faults):
        """Run the command with some faults; gives its exit status, or minus the signal that ended it."""
        arguments = [str(recipe or self.recipe), "--store", str(self.store), "--out", str(self.folder)]
        arguments += ["--device", "cpu", *(["--resume"] if resume else [])]
        files = {kind: str(self.desk / kind) for kind in ("events", "stderr")}
        request = {"arguments": arguments, "faults": faults, "times": times, "pictures": pictures, **files}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    @property
    def stderr(self):
        """What the last run said."""
        return (self.desk / "stderr").read_text()

    def events(self, kind):
        """What the driver noted of all runs so far."""
        lines = [json.loads(line) for line in (self.desk / "events").read_text().splitlines()]
        return [line for line in lines if kind in line]

    def state(self, best=False):
        return checkpoint.load(self.folder, best).state

    def log(self):
        """The lines of steps and probes, without timings."""
        lines = [line for line in log.read(self.folder) if line["kind"] != "note"]
        return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]

    def notes(self):
        return [line["text"] for line in log.read(self.folder) if line["kind"] == "note"]

    def files(self):
        """The newest last."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"))


def to_toml(values, section=""):
    """A recipe as it is written in a file."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and key != "name"}
    lines = [f"[{section}]"] * bool(section) + [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    tables = [to_toml(value, key) for key, value in values.items() if isinstance(value, dict)]
    return "\n".join(lines + tables) + "\n"


@pytest.fixture(scope="module")
def faults_recipe(tiny_recipe):
    """Forty steps in eight epochs: a probe each, a checkpoint each third step."""
    return replace(tiny_recipe, epochs=STEPS // PER_EPOCH, probe_every=1, checkpoint_every=3, log_every=2)


@pytest.fixture(scope="module")
def start(server, tiny_store_folder, faults_recipe):
    """Makes a `Runs` for a new folder, of the recipe or of one with other keys."""

    def start(desk, disk=None, **keys):
        recipe = desk / "tiny.toml"
        recipe.write_text(to_toml(replace(faults_recipe, **keys).to_dict()))
        return Runs(server, tiny_store_folder, recipe, (disk or desk) / "run", desk)

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that nothing happened to."""
    runs = start(tmp_path_factory.mktemp("whole"))
    assert runs(times=True, resume=False) == 0, runs.stderr
    assert runs.state()["step"] == STEPS
    assert len(runs.log()) == STEPS // 2 + STEPS // PER_EPOCH
    return runs


@pytest.fixture(scope="module")
def half(start, tmp_path_factory):
    """A run that was killed after step 20."""
    runs = start(tmp_path_factory.mktemp("half"))
    assert runs(send_signal={"phase": "step", "count": 21}) == -signal.SIGKILL
    assert runs.state()["step"] == 20
    return runs


def same(one, other, where=""):
    """Equal to the bit, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for n, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{n}]")
    else:
        assert one == other, where


def assert_nothing_lost(runs, whole):
    """Parameters, queue, optimizer and log are those of the run that nothing happened to, and so is the best one."""
    state, expected = runs.state(), whole.state()
    assert {"c2l", "optimizer", "step", "best"} <= state.keys()
    assert "queue.keys" in state["c2l"]
    same(state, expected)
    assert runs.log() == whole.log()
    same(runs.state(best=True), whole.state(best=True))
    assert not list(runs.folder.rglob("*.part*"))


# Killed


def test_killed_at_twenty_random_moments(start, whole, tmp_path):
    """At the start, in steps, in checkpoints and in probes, five times each; nothing is lost in any."""
    medians = {
        phase: statistics.median(event["seconds"] for event in whole.events("phase") if event["phase"] == phase)
        for phase in ("start", "step", "checkpoint", "probe")
    }
    chance = random.Random(20)
    moments = [phase for phase in medians for _ in range(KILLS // 4)]
    chance.shuffle(moments)
    runs = start(tmp_path)
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
    assert_nothing_lost(runs, whole)


def test_killed_between_a_checkpoint_and_its_mark_as_the_best(start, whole, tmp_path):
    runs = start(tmp_path)
    for count in (1, 1, 2):
        runs(send_signal={"phase": "best", "count": count})
    assert runs() == 0, runs.stderr
    assert_nothing_lost(runs, whole)


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"a small disk needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=["limited files", "small disk"])
def room(request, tmp_path):
    """The run's parent folder, and what leaves no room in it."""
    if request.param == "limited files":
        return tmp_path, {}
    folder = request.getfixturevalue("small_disk")
    return folder, {"full": str(folder / "filler")}


def test_a_disk_that_is_full_for_a_while(start, whole, room, tmp_path):
    """From step 12 to 20: the checkpoint of step 10 survives, the run says so, goes on, and writes again."""
    disk, how = room
    runs = start(tmp_path, disk)
    status = runs(little_room={"first": 12, "last": 21, **how}, send_signal={"phase": "step", "count": 20})
    assert status == -signal.SIGKILL, runs.stderr
    assert runs.state()["step"] == 10
    assert [event["written"] for event in runs.events("written")] == [0, 3, 5, 6, 9, 10]
    if how:
        Path(how["full"]).unlink()
    assert runs(little_room={"first": 12, "last": 21, **how}) == 0, runs.stderr
    (*_, note) = runs.notes()
    assert "step 20 could not be written" in note
    assert "No space left on device" in note or "File too large" in note
    assert "step-000000010" in note
    assert "step 20 could not be written" in " ".join(runs.stderr.split())
    assert_nothing_lost(runs, whole)


def test_a_disk_that_stays_full(start, half, room, tmp_path):
    """The run goes to its end, pictures and all, and fails there: what it computed is not on disk."""
    disk, how = room
    runs = start(tmp_path, disk, epochs=4, probe_every=2)
    assert runs(little_room={"first": 12, "last": 10**6, **how}, pictures=True) == REFUSED, runs.stderr
    assert runs.stderr.splitlines()[-1].startswith("c2l: the checkpoint of step 20 could not be written")
    assert runs.state()["step"] == 10
    if how:
        Path(how["full"]).unlink()
    assert runs() == 0, runs.stderr
    same(runs.state()["c2l"], half.state()["c2l"])  # of step 20


def test_a_best_one_that_finds_no_room(start, whole, tmp_path):
    """The best one before it stays, until a better one is written."""
    figures = {line["step"]: line["folder"] for line in whole.log() if line["kind"] == "probe"}
    assert whole.state(best=True)["step"] == max(figures, key=figures.__getitem__)
    lost = max(list(figures)[:-1], key=figures.__getitem__)
    runs = start(tmp_path)
    assert runs(little_room={"first": lost, "last": lost + 1}) == 0, runs.stderr
    assert lost not in [event["written"] for event in runs.events("written")]
    del figures[lost]
    assert runs.state(best=True)["step"] == max(figures, key=figures.__getitem__)
    same(runs.state()["c2l"], whole.state()["c2l"])
    assert runs.log() == whole.log()  # lines that found no room are written later


# Damage


def copy_of(runs, desk):
    """The same run elsewhere, with the same hard links."""
    subprocess.run(["cp", "-a", str(runs.folder), str(desk / "run")], check=True)
    return replace(runs, folder=desk / "run", desk=desk)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "header": lambda path, size: flip(path, 2),
    "quarter": lambda path, size: flip(path, size // 4),
    "middle": lambda path, size: flip(path, size // 2),
    "last byte": lambda path, size: flip(path, -1),
    "empty": lambda path, size: os.truncate(path, 0),
    "torn early": lambda path, size: os.truncate(path, 100),
    "torn at a block": lambda path, size: os.truncate(path, 4096),
    "torn late": lambda path, size: os.truncate(path, size - 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint(half, whole, tmp_path, damage):
    """It is noticed, the run says so, goes on from the one before, and ends with the same bits."""
    runs = copy_of(half, tmp_path)
    newest, before = runs.files()[-1], runs.files()[-2]
    DAMAGE[damage](newest, newest.stat().st_size)
    found = checkpoint.load(runs.folder)
    assert found.path.name.removeprefix("best-") == before.name
    assert found.passed_over[0].startswith(newest.name)
    assert runs() == 0, runs.stderr
    assert runs.events("began")[-1]["began"] == found.state["step"] == 18
    assert newest.name in runs.notes()[-1]
    assert_nothing_lost(runs, whole)


def test_all_checkpoints_damaged(half, tmp_path):
    runs = copy_of(half, tmp_path)
    files = list((runs.folder / "checkpoints").iterdir())
    for n, path in enumerate(files):
        os.truncate(path, 1000 - n)
    before = {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()}
    assert runs() == REFUSED
    said = " ".join(runs.stderr.split())
    assert "is sound" in said
    assert all(path.name in said for path in files)
    assert {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()} == before


# Preempted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("phase", "count", "delay", "steps"), [("step", 7, 0, 7), ("checkpoint", 4, 0.01, 7)])
def test_asked_to_stop(start, whole, tmp_path, number, phase, count, delay, steps):
    """In a step, or in the middle of a slow write of a checkpoint: one is left of the very step where it stopped."""
    runs = start(tmp_path)
    when = {"phase": phase, "count": count, "delays": [delay], "number": number}
    assert runs(send_signal=when, slow_disk={"seconds": 0.05 if delay else 0.0}) == INTERRUPTED, runs.stderr
    assert runs.state()["step"] == steps
    assert len(runs.events("written")) == len({event["written"] for event in runs.events("written")})
    assert f"step {steps}" in runs.stderr
    assert "--resume" in runs.stderr
    assert runs() == 0, runs.stderr
    assert runs.events("began")[-1]["began"] == steps
    assert_nothing_lost(runs, whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_asked_to_stop_twice(start, whole, tmp_path, number, status):
    """The second signal acts at once, in the middle of a write, and costs no more than a kill."""
    runs = start(tmp_path)
    when = {"phase": "checkpoint", "count": 3, "delays": [0, 0.1], "number": number}
    assert runs(send_signal=when, slow_disk={"seconds": 0.3}) == status, runs.stderr
    assert runs.state()["step"] == 3
    assert runs() == 0, runs.stderr
    assert_nothing_lost(runs, whole)


# Poisoned


def assert_stopped_at(runs, step, recipe, store):
    """With the step, the batch's rows and files, and a checkpoint from before it that is sound."""
    assert f"step {step}" in runs.stderr
    failure = json.loads((runs.folder / "failure.json").read_text())
    rows = batch_rows(training_rows(recipe, store), recipe, step - 1).tolist()
    assert failure["step"] == step
    assert failure["rows"] == rows
    assert failure["paths"] == store.index["path"].take(rows).to_pylist()
    for path in runs.files():
        state = torch.load(path, weights_only=True)
        assert state["step"] < step
        assert all(value.isfinite().all() for value in state["c2l"].values())
        assert all(
            value.isfinite().all()
            for parameter in state["optimizer"]["state"].values()
            for value in parameter.values()
            if isinstance(value, torch.Tensor)
        )
    assert runs.files()


def test_weights_that_turn_to_nan(start, tmp_path, faults_recipe, tiny_store):
    runs = start(tmp_path)
    assert runs(poison_weights={"step": 14}) == REFUSED
    assert_stopped_at(runs, 14, faults_recipe, tiny_store)
    assert runs.state()["step"] == 12


def test_an_image_that_turns_to_nan(start, tmp_path, faults_recipe, tiny_store):
    """It is among those listed, and the epoch's order says at which step it comes."""
    rows = training_rows(faults_recipe, tiny_store)
    step = next(step for step in range(STEPS) if rows[5] in batch_rows(rows, faults_recipe, step))
    runs = start(tmp_path)
    assert runs(poison_image={"row": int(rows[5])}) == REFUSED
    assert_stopped_at(runs, step + 1, faults_recipe, tiny_store)


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_a_loss_that_explodes(start, tmp_path, faults_recipe, tiny_store, log_every):
    """Wherever the lines of the log fall."""
    optimizer = replace(faults_recipe.optimizer, lr=1e30)
    keys = {"optimizer": optimizer, "log_every": log_every, "checkpoint_every": 100}
    runs = start(tmp_path, **keys)
    assert runs() == REFUSED
    failure = json.loads((runs.folder / "failure.json").read_text())
    assert 1 <= failure["step"] <= PER_EPOCH
    assert_stopped_at(runs, failure["step"], replace(faults_recipe, **keys), tiny_store)
    assert "optimizer.lr" in runs.stderr


# Another run's


def test_another_recipe_is_refused(half, start, tmp_path, faults_recipe):
    runs = copy_of(half, tmp_path)
    objective = replace(faults_recipe.objective, mixup="separate")
    other = start(tmp_path, temperature=0.3, objective=objective, keep_checkpoints=1).recipe
    before = {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()}
    assert runs(recipe=other) == REFUSED
    said = " ".join(runs.stderr.split())
    assert "objective.mixup: began with 'shared', now 'separate'; temperature: began with 0.07, now 0.3" in said
    assert "keep_checkpoints" not in said
    assert {path: path.read_bytes() for path in runs.folder.rglob("*") if path.is_file()} == before
    assert read_run(runs.folder)
