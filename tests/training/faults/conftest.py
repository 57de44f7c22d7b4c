"""Runs of the real command with faults: kills, signals, a full disk, damaged files and NaN."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from runs import same, to_toml

from c2l_models.training.run_files import checkpoint, log

TIMING = ("images_per_second", "data_wait")
STEPS, PER_EPOCH = 40, 5


@pytest.fixture(scope="session")
def server():
    """The process that forks the runs."""
    command = [sys.executable, str(Path(__file__).parent / "driver.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.stdin.close()


@dataclass(frozen=True)
class Runs:
    """Repeated calls of `c2l pretrain` in one folder."""

    server: subprocess.Popen
    store: Path
    recipe: Path
    folder: Path
    records: Path
    """Folder of the driver's events and of standard error, outside the disk that is filled."""

    def __call__(self, times=False, pictures=False, resume=True, recipe=None, **faults):
        """Run the command with faults. Returns its exit status, or minus the signal that ended it."""
        arguments = [str(recipe or self.recipe), "--store", str(self.store), "--out", str(self.folder)]
        arguments += ["--device", "cpu", *(["--resume"] if resume else [])]
        files = {kind: str(self.records / kind) for kind in ("events", "stderr")}
        request = {"arguments": arguments, "faults": faults, "times": times, "pictures": pictures, **files}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    @property
    def stderr(self):
        """Standard error of the last run."""
        return (self.records / "stderr").read_text()

    def events(self, kind):
        """The driver's events of all runs so far."""
        lines = [json.loads(line) for line in (self.records / "events").read_text().splitlines()]
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
        """The checkpoints, the newest last."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"))

    def copied_to(self, records):
        """A copy of the run, with the same hard links."""
        subprocess.run(["cp", "-a", str(self.folder), str(records / "run")], check=True)
        return replace(self, folder=records / "run", records=records)

    def assert_same_networks(self, other):
        """Parameters and queue equal those of another run, to the bit."""
        same(self.state()["method"], other.state()["method"])

    def assert_nothing_lost(self, whole):
        """Parameters, queue, optimizer, log and best checkpoint equal those of an undisturbed run."""
        state, expected = self.state(), whole.state()
        assert {"method", "optimizer", "step", "best"} <= state.keys()
        assert "queue.keys" in state["method"]
        same(state, expected)
        assert self.log() == whole.log()
        same(self.state(best=True), whole.state(best=True))
        assert not list((self.folder / "checkpoints").glob(".*"))


@pytest.fixture(scope="session")
def faults_recipe(tiny_recipe):
    """Forty steps in eight epochs, with a probe after each epoch and a checkpoint after every third step and epoch."""
    return replace(
        tiny_recipe, epochs=STEPS // PER_EPOCH, probe_every=1, checkpoint_minutes=0, checkpoint_every=0, log_every=3
    )


@pytest.fixture(scope="session")
def make_runs(server, tiny_store_folder, faults_recipe):
    """Return a function that makes a `Runs` for a new folder, with the recipe and some changed keys."""

    def make_runs(records, disk=None, **keys):
        recipe = records / "tiny.toml"
        recipe.write_text(to_toml(replace(faults_recipe, **keys).to_dict()))
        return Runs(server, tiny_store_folder, recipe, (disk or records) / "run", records)

    return make_runs


@pytest.fixture(scope="session")
def whole(make_runs, tmp_path_factory):
    """An undisturbed run."""
    runs = make_runs(tmp_path_factory.mktemp("whole"))
    assert runs(times=True, resume=False) == 0, runs.stderr
    assert runs.state()["step"] == STEPS
    assert len(runs.log()) == -(-STEPS // 3) + STEPS // PER_EPOCH
    return runs


@pytest.fixture(scope="session")
def half(make_runs, tmp_path_factory):
    """A run that was killed after step 20."""
    runs = make_runs(tmp_path_factory.mktemp("half"))
    assert runs(send_signal={"phase": "step", "count": 21}) == -signal.SIGKILL
    assert runs.state()["step"] == 20
    return runs
