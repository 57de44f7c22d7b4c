"""`c2l doctor`: check a machine."""

import sys


def doctor(device: str | None = None) -> None:
    """Check this machine in seconds: versions, GPU, bfloat16, memory, disk, decoders, weights, and one tiny step.

    Each line is a fact or a problem, with what to do. The exit status is 1 if there is a problem.

    Args:
        device: the torch device of the tiny step, such as cpu or cuda; CUDA by default if available.
    """
    from ..doctor import examine

    problems = 0
    for finding in examine(device):
        print(finding, flush=True)
        problems += bool(finding.problem)
    print(f"{problems} problem{'s' if problems != 1 else ''} found" if problems else "no problem found")
    if problems:
        sys.exit(1)
