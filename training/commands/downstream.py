"""The part of the `c2l` command that measures what features are worth: probes, fine-tuning, detection, tables.

As in commands.py, each command imports what it needs when it runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError


def probe(
    target: Annotated[Positional[str], arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
    store: Path,
    out: Path,
    task: str = "chestxray14",
    size: int | None = None,
    baselines: Annotated[bool, arg(aliases=("--floors",))] = True,
    classifier: Literal["linear", "knn"] = "linear",
    uncertain: Literal["zeros", "ones", "ignore"] = "ignore",
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """A linear probe, or nearest neighbours, on frozen features: AUROC with patient-level intervals, beside baselines.

    Args:
        store: folder that `c2l prepare` wrote.
        out: folder for report, pictures, predictions and result.json.
        task: chestxray14, chexpert, knee_kl or folder.
        size: input side, pixels; the weights' own by default.
        baselines: show what pixels and random networks reach.
        classifier: fitted, or 20 neighbours by cosine.
        uncertain: what a label of -1 (CheXpert) is learnt as.
        seed: of the tuning split, the bootstrap and a random target.
        device: auto takes CUDA where there is one.
    """
    from dataclasses import replace

    from ..distributed import pick_device
    from ..evaluation.tasks import load_task
    from ..probing.probe import probe
    from ..store.image_store import ImageStore

    place = pick_device(device).type
    images, asked = ImageStore.open(store), replace(load_task(task), uncertain=uncertain)
    report = probe(target, images, asked, out, size, baselines, seed, device=place, classifier=classifier)
    report.show()
    print(f"tables, metrics, predictions and pictures: {out}")


def finetune(arguments: list[str]) -> None:
    """Fine-tune a start on a task's labels: `c2l finetune TASK --store STORE --start START --out DIR`."""
    from ..finetuning import Settings

    def run(
        task: Annotated[Positional[str], arg(help="a task of tasks.toml: chestxray14, chexpert, knee_kl or folder")],
        store: Path,
        start: Annotated[str, arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
        out: Path,
        settings: Annotated[Settings, arg(name="")] = Settings(),  # noqa: B008 (frozen)
        device: Literal["auto", "cpu", "cuda"] = "auto",
        resume: bool = False,
        versus: Path | None = None,
    ) -> None:
        """Fine-tune a start on a task's training patients, choose the epoch on held-out ones, test once.

        Args:
            store: folder that `c2l prepare` wrote.
            out: the run's folder; must not exist, unless with --resume.
            settings: what is computed.
            device: auto takes CUDA where there is one.
            resume: go on from the run's newest sound checkpoint, or begin where there is none.
            versus: folder of another finished run on the same task: show the paired differences to it.
        """
        from ..evaluation.predictions import Predictions
        from ..evaluation.result import Result
        from ..evaluation.tasks import load_task
        from ..finetuning import finetune
        from ..finetuning.finetuning_report import report_of
        from ..store.image_store import ImageStore

        result = finetune(start, ImageStore.open(store), task, out, settings, device, resume, versus=versus)
        other = Result.read(versus) if versus else None
        report_of(result, Predictions.load(out), load_task(task), other).show()
        print(f"network, predictions, table, CSV and pictures: {out}")

    tyro.cli(run, args=arguments, prog="c2l finetune")


def detect(arguments: list[str]) -> None:
    """Fine-tune a pneumonia detector and measure it: `c2l detect rsna --start START --data DIR --out RUN`."""
    from ..detection.settings import Settings

    defaults = Settings()

    def rsna(
        start: Annotated[str, arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
        data: Path,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = defaults,
        avoid: UseAppendAction[tuple[Path, ...]] = (),
        store: Path | None = None,
        workers: int | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        resume: bool = False,
    ) -> None:
        """RetinaNet on the start's ResNet-18: the challenge's mAP and COCO's AP on a fifth of the patients.

        Args:
            data: the challenge's folder, stage 1 or 2, as distributed.
            out: run folder; must not exist, unless with --resume.
            avoid: stores, or lists of images or patients, whose patients are never in the evaluation part: those that
                any of the compared starts has seen; repeat it.
            store: folder for the decoded films; by default beside the run folder, where the next run finds it.
            workers: decoding processes; by default one a core.
            device: auto takes CUDA where there is one.
            resume: go on from the run's newest checkpoint, or begin where there is none.
        """
        from ..detection.detect import detect

        result = detect(
            start, data, out, settings, device=device, avoid=avoid, store=store, workers=workers, resume=resume
        )
        for name in result.metrics.names:
            print(f"{name:12}{result.metrics[name]}")
        print(f"report, boxes and pictures: {out}")

    description = "RetinaNet, fine-tuned and measured."
    tyro.extras.subcommand_cli_from_dict({"rsna": rsna}, prog="c2l detect", args=arguments, description=description)


def look(
    target: Annotated[Positional[str], arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
    store: Path,
    out: Path,
    finetuned: Path | None = None,
    boxes: Path | None = None,
    size: int | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Pictures of what features hold: nearest films, a map, and a fine-tuned network's activation maps beside boxes.

    neighbours.png and cams.png show films of the store; map.png shows none.

    Args:
        store: folder that `c2l prepare` wrote.
        out: folder for the pictures, look.md and look.json.
        finetuned: a finished run of `c2l finetune chestxray14` on this store, for activation maps.
        boxes: BBox_List_2017.csv of ChestX-ray14, with --finetuned.
        size: input side of neighbours and map, pixels; the weights' own by default.
        seed: of the films that are drawn, the bootstrap and a random target.
        device: auto takes CUDA where there is one.
    """
    from ..distributed import pick_device
    from ..inspection.inspect_features import look
    from ..store.image_store import ImageStore

    facts = look(target, ImageStore.open(store), out, finetuned, boxes, size, seed, device=pick_device(device).type)
    print(f"neighbours.png, map.png{', cams.png' if 'cams' in facts else ''} and what they show, look.md: {out}")


def reproduce(
    what: Annotated[Positional[str], arg(help="table1 to table5, open or search (this project's own), or release")],
    release: Annotated[Positional[str], arg(help="the release's name")] = "",
    *,
    data: UseAppendAction[tuple[str, ...]],
    out: Path,
    scale: Literal["paper", "open", "search"] | None = None,
    smoke: bool = False,
    seeds: tuple[int, ...] = (0,),
    only: tuple[str, ...] = (),
    train: bool = False,
    check: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
) -> None:
    """A table, or a release's metrics, from raw folders on. What is there is used; stopped, it goes on where it was.

    Args:
        data: NAME=DIR, or a folder that holds data sets under their usual names; repeat it.
        out: folder of stores, runs and tables.
        scale: paper, as printed; open, for the open data sets on a CPU; search, for its short runs; by default the
            table's own.
        smoke: a few steps of every row: shows that all of it runs.
        seeds: of pretraining and measurement; metrics are means over them.
        only: rows by name; by default all.
        train: of a release: pretrain by its recipe too.
        check: of a release: only whether its recipe's first steps give its losses, on one CPU thread; a minute or two.
        device: auto takes CUDA where there is one.
        workers: decoding processes; by default one a core.
    """
    import sys

    from ..reproduce.release_losses import check_release
    from ..reproduce.release_metrics import all_reproduced, reproduce_release
    from ..reproduce.reproduce_table import reproduce_table

    if train and check:
        raise C2LError("--train trains a release's recipe to its end, --check its first steps: wanted one of them")
    if what == "release" and check:
        comparison = check_release(release, data, out, workers)
        print(comparison.table(), comparison.summary(), sep="\n")
        sys.exit(0 if comparison.reproduced else 1)
    if what == "release":
        metrics = reproduce_release(release, data, out, train, device, workers)
        for one in metrics:
            print(f"{one.name}: {one.verdict}: released {one.released}, today {one.now or one.reason}")
        sys.exit(0 if all_reproduced(metrics) else 1)
    if release or train or check:
        raise C2LError(
            f"a release's name, --train and --check are for `c2l reproduce release`; {what} has none of them"
        )
    book = reproduce_table(what, data, out, scale, smoke, seeds, only, device, workers)
    print(book.summary())
    sys.exit(1 if book.failed else 0)


COMMANDS: dict[str, Callable[..., Any]] = {
    "probe": probe,
    "finetune": finetune,
    "detect": detect,
    "look": look,
    "reproduce": reproduce,
}

OWN_ARGUMENTS = ("finetune", "detect")
"""Commands that read their arguments themselves."""
