"""Jobs of one or more processes that run `c2l pretrain` with a small network, forked or under torchrun."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from runs import to_toml

DRIVER = Path(__file__).parent / "training" / "drivers" / "small_pretrain.py"
SECONDS = 400
"""Longest wait for a job. It takes a few seconds, and minutes on a machine that does other work."""


def start_server():
    """Start the process that forks jobs which need no torchrun."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(DRIVER)], text=True, env=environment, **pipes)


def arguments_of(folder, recipe, store):
    """The arguments of `c2l pretrain` for a job in a folder, with the recipe as a file."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{recipe.name}.toml"
    file.write_text(to_toml(recipe.to_dict()))
    return [str(file), "--store", str(store.path), "--out", str(folder / "run"), "--device", "cpu", "--resume"]


def run_job(server, folder, recipe, store, processes):
    """Run a job to its end in forked processes. Returns each rank's dump."""
    environment = {"DUMP": str(folder)}
    if processes > 1:
        environment |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    stderr = folder / "stderr"
    request = {"arguments": arguments_of(folder, recipe, store), "environment": environment, "processes": processes}
    print(json.dumps(request | {"stderr": str(stderr), "seconds": SECONDS}), file=server.stdin, flush=True)
    assert server.stdout.readline() == "0\n", stderr.read_text()
    return dumps(folder)


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def dumps(folder):
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pt"))]


def torchrun(options, folder, recipe, store, **environment):
    """Start a job under torchrun, and do not wait for it."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(DRIVER)]
    return subprocess.Popen(
        [*command, *arguments_of(folder, recipe, store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DUMP": str(folder)} | environment,
    )


def two_processes(folder, recipe, store, **environment):
    """Run a job of two processes under torchrun. Returns its exit status and standard error."""
    job = torchrun(["--standalone", "--nproc-per-node=2"], folder, recipe, store, **environment)
    _, stderr = job.communicate(timeout=SECONDS)
    return job.returncode, stderr
