"""`c2l reproduce`: the paper's tables and the releases, from raw data folders.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError
from c2l_models.files import check_folder
from c2l_models.progress import stage

from .options import Device, Workers

WHAT = "a table, such as table3, theta, open or search; or release. An unknown name lists all tables"


def reproduce(
    what: Annotated[Positional[str], arg(metavar="WHAT", help=WHAT)],
    release: Annotated[Positional[str], arg(metavar="[RELEASE]", help="a release's name, if WHAT is release")] = "",
    *,
    data: UseAppendAction[tuple[str, ...]],
    out: Path,
    scale: Literal["paper", "open", "search"] | None = None,
    smoke: bool = False,
    seeds: tuple[int, ...] = (0,),
    only: tuple[str, ...] = (),
    train: bool = False,
    check: bool = False,
    device: Device = "auto",
    workers: Workers = None,
    pretraining_only: UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """Reproduce a table of the paper, or a release's metrics, from raw data folders.

    Existing results are reused; an interrupted call resumes.

    Args:
        data: NAME=DIR, or a folder that holds data sets under their usual names; can be repeated.
        out: folder for stores, runs and tables.
        scale: paper (the paper's settings), open (open data sets, on a CPU) or search (short runs); by default the
            table's own scale.
        smoke: run a few steps of every row, to test that all rows run.
        seeds: seeds of pretraining and measurement; metrics are means over the seeds.
        only: names of the rows to reproduce, which are then the table's only ones; by default all rows.
        train: for a release: also pretrain by its recipe.
        check: for a release: only check that its recipe's first steps reproduce the recorded losses, on one CPU thread,
            in one or two minutes.
        pretraining_only: NAME:PATTERN, images that no labelled task may use, as for `c2l prepare`; can be repeated.
    """
    import sys

    check_folder(out)
    if train and check:
        raise C2LError(
            "expected --train (the whole pretraining) or --check (its first steps), found both; leave out one of them"
        )
    if what == "release" and not release:
        raise C2LError("expected a release's name after `c2l reproduce release`, found none; `c2l list` lists them")
    if what != "release" and (release or train or check):
        raise C2LError(
            f"expected a release's name, --train or --check only with `c2l reproduce release`, found one with {what!r}"
        )
    of_tables = {"--scale": scale, "--smoke": smoke, "--seeds": seeds != (0,), "--only": only}
    if what == "release" and (found := [name for name, value in of_tables.items() if value]):
        raise C2LError(f"expected {', '.join(found)} only with a table, found a release; leave it out")
    with stage("reproduce", show=True):
        from ..reproduce.release_losses import check_release
        from ..reproduce.release_metrics import all_reproduced, reproduce_release
        from ..reproduce.reproduce_table import reproduce_table

        if what == "release" and check:
            comparison = check_release(release, data, out, workers, pretraining_only)
            lines, ok = [comparison.table(), comparison.summary()], comparison.reproduced
        elif what == "release":
            metrics = reproduce_release(release, data, out, train, device, workers, pretraining_only=pretraining_only)
            lines = [
                f"{metric.name}: {metric.verdict}: released {metric.released}, now {metric.now or metric.reason}"
                for metric in metrics
            ]
            ok = all_reproduced(metrics)
        else:
            chosen = (scale, smoke, seeds, only, device, workers)
            results = reproduce_table(what, data, out, *chosen, pretraining_only=pretraining_only)
            lines, ok = [results.summary()], not results.failed
    print(*lines, sep="\n")
    sys.exit(0 if ok else 1)
