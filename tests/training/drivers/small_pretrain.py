"""`c2l pretrain` with networks of one convolution, for tests that start, stop and kill many jobs.

With arguments, this is one process of a job, as torchrun starts it. Without arguments it reads jobs from standard
input, one JSON object per line, and forks their processes, because its imports take longer than such a job. It answers
with the job's exit status, 0 or 1.

Each process also writes its final state to `$DUMP/rank<R>.pt`. `KILL=rank:step:marker` kills the
process of that rank before that step, and creates the file `marker`. If `marker` exists, no process is killed.
`TERM_AT=rank:step` sends SIGTERM to the process of that rank before that step.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import SmallEncoder

from c2l_models.cli import main
from c2l_models.training import callbacks, pretrain, run
from c2l_models.training.objectives import momentum_teacher
from c2l_models.training.run_files import backbone as export

torch.set_num_threads(1)
momentum_teacher.Encoder = SmallEncoder
export.export_run = lambda run_folder, path, store, device: path.write_text("exported")
callbacks.draw_curves = callbacks.draw_first_batch = lambda *_: None
step = pretrain.train_step
runs = []


def rank():
    return int(os.environ.get("RANK", "0"))


class WatchedRun(run.Run):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        runs.append(self)


def watched_step(*arguments):
    killed, when, marker = os.environ.get("KILL", "-1:0:").split(":")
    if int(killed) == rank() and runs[0].step == int(when) and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    signalled, when = os.environ.get("TERM_AT", "-1:0").split(":")
    if int(signalled) == rank() and runs[0].step == int(when):
        os.kill(os.getpid(), signal.SIGTERM)
    done = step(*arguments)
    losses.append(done.loss.total.detach())
    return done


def counted_gather(everyone, rows):
    received.append(everyone.nbytes - rows.nbytes)
    return gather(everyone, rows)


losses: list[torch.Tensor] = []
received: list[int] = []
gather, torch.distributed.all_gather_into_tensor = torch.distributed.all_gather_into_tensor, counted_gather
pretrain.Run, pretrain.train_step = WatchedRun, watched_step


def run(arguments):
    """Run one process of a job."""
    try:
        main(["pretrain", *arguments])
    finally:
        if "DUMP" in os.environ and runs:
            ends = {"method": runs[0].method.state_dict(), "losses": torch.stack(losses), "received": sum(received)}
            torch.save(ends, Path(os.environ["DUMP"]) / f"rank{rank()}.pt")


def forked(arguments, environment, stderr, seconds):
    """Run a forked process of a job for at most `seconds`. Returns its exit status."""
    os.environ.update(environment)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(2, 1)
    signal.alarm(seconds)
    try:
        run(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve():
    """Run the jobs of standard input until it ends."""
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for number in range(job["processes"]):
            child = os.fork()
            if not child:
                environment = job["environment"] | {"RANK": str(number)}
                os._exit(forked(job["arguments"], environment, job["stderr"], job["seconds"]))
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        print(int(any(statuses)), flush=True)


if sys.argv[1:]:
    run(sys.argv[1:])
else:
    serve()
