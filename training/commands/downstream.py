"""`c2l probe`, `compare`, `few-shot`, `finetune`, `detect`, `look` and `reproduce`: measure and inspect features.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError
from c2l_models.files import check_folder

NETWORK = "a release, a .safetensors file, a run folder, imagenet, random, untrained, or pixels"
Target = Annotated[
    Positional[str],
    arg(metavar="WEIGHTS", help=NETWORK),
]
Initialization = Annotated[
    str,
    # tyro's help shows aliases before the name: `--init`, then the former name `--start`.
    arg(
        name="start",
        aliases=("--init",),
        help=NETWORK,
    ),
]
COMPARED = (
    "releases, .safetensors files, run folders, imagenet, random or pixels; by default all releases and baselines"
)
Device = Annotated[Literal["auto", "cpu", "cuda"], arg(help="auto uses CUDA if available")]
Workers = Annotated[int | None, arg(help="number of decoding processes; by default one per core")]


def probe(
    target: Target,
    store: Path,
    out: Path,
    task: str = "chestxray14",
    size: int | None = None,
    baselines: Annotated[bool, arg(name="floors", aliases=("--baselines",))] = True,
    classifier: Literal["linear", "knn"] = "linear",
    sizes: tuple[int, ...] = (),
    readouts: bool = False,
    uncertain: Literal["zeros", "ones", "ignore"] = "ignore",
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Measure frozen features with a linear probe or k-NN: AUROC with patient-level intervals.

    Args:
        store: folder that `c2l prepare` wrote.
        out: folder for the report, plots, predictions and result.json.
        task: chestxray14, chestxray14_out_of_fold, chexpert, knee_kl, fracatlas, shoulder_implants, folder, or the
            name of a data set in the store that has a dataset.toml.
        size: input side, pixels; by default the weights' own.
        baselines: also measure raw pixels and random networks.
        classifier: linear is logistic regression, knn is 20 nearest neighbours by cosine similarity.
        sizes: input sides to choose from, such as 64 96 128 192. The best on tuning folds of the training patients is
            tested, and the report lists all.
        readouts: also choose among layers 2 to 4, average and maximum pooling, and the mirrored copy averaged in.
        uncertain: how labels of -1 (CheXpert) are used in training.
        seed: seed of the tuning split, the bootstrap and a random network.
    """
    from dataclasses import replace

    from ..distributed import pick_device
    from ..evaluation.tasks import load_task
    from ..probing.probe import probe
    from ..store.image_store import ImageStore

    images, device_type = ImageStore.open(store), pick_device(device).type
    check_folder(out)
    settings = replace(load_task(task, images), uncertain=uncertain)
    report = probe(
        target,
        images,
        settings,
        out,
        size,
        baselines,
        seed,
        device=device_type,
        classifier=classifier,
        sizes=sizes,
        readouts=readouts,
    )
    report.show()
    print(f"report, metrics, predictions and plots: {out}")


def compare(
    networks: Annotated[Positional[tuple[str, ...]], arg(metavar="WEIGHTS …", help=COMPARED)],
    store: Path,
    out: Path,
    tasks: tuple[str, ...] = (),
    reference: str = "resnet18.imagenet",
    size: int = 64,
    sizes: tuple[int, ...] = (64, 96, 128, 192),
    device: Device = "auto",
) -> None:
    """Compare frozen networks on all tasks of a store: linear probes in one table and one plot.

    Random networks are measured with five seeds, at the common side only. An interrupted call resumes.

    Args:
        store: folder that `c2l prepare` wrote.
        out: gets comparison.csv, comparison.md, comparison.png and each probe's folder.
        tasks: names of tasks; by default each task that the store has labels of.
        reference: the network that the others are compared with.
        size: common input side, pixels.
        sizes: sides to choose each network's best one from, on tuning patients; `--sizes` alone: only the common side.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from ..distributed import pick_device
    from ..probing.compare import NETWORKS, compare
    from ..store.image_store import ImageStore

    images, torch_device = ImageStore.open(store), pick_device(device).type
    check_folder(out)
    found = compare(networks or NETWORKS, images, out, tasks, reference, size, sizes, torch_device)
    Console().print(Markdown(found.markdown()))
    print(f"tables, plot and probes: {out}")


def few_shot(
    targets: Annotated[Positional[tuple[str, ...]], arg(metavar="WEIGHTS …", help="networks, as for `c2l probe`")],
    store: Path,
    out: Path,
    task: str = "chestxray14",
    counts: tuple[int, ...] = (5, 10, 20, 50, 100, 500),
    draws: int = 10,
    size: int | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Compare networks on a few labelled images: linear probes on the same draws, as curves with intervals.

    Args:
        store: folder that `c2l prepare` wrote.
        out: folder for few-shot.png, few-shot.md, few-shot.csv and few-shot.json.
        task: as for `c2l probe`. A task without a test part is tested on its first fold.
        counts: numbers of labelled training images.
        draws: number of draws of these images; the metrics are means over the draws.
        size: input side, pixels; by default each network's own.
        seed: seed of random networks.
    """
    from ..distributed import pick_device
    from ..probing.few_shot import few_shot
    from ..store.image_store import ImageStore

    images, device_type = ImageStore.open(store), pick_device(device).type
    check_folder(out)
    found = few_shot(targets, images, task, out, counts, draws, size, seed, device=device_type)
    found.show()
    print(f"curves and tables: {out}")


def finetune(arguments: list[str]) -> None:
    """Fine-tune a network on a task's labels: `c2l finetune TASK --store STORE --init INIT --out RUN`."""
    from ..finetuning.settings import Settings

    def run(
        task: Annotated[Positional[str], arg(metavar="TASK", help="chestxray14, chexpert, knee_kl or folder")],
        store: Path,
        initialization: Initialization,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = Settings(),  # noqa: B008 (frozen)
        device: Device = "auto",
        resume: bool = False,
        versus: Path | None = None,
    ) -> None:
        """Fine-tune a network on a task's training patients, choose the epoch on held-out patients, test once.

        Args:
            store: folder that `c2l prepare` wrote.
            out: run folder; must not exist, except with --resume.
            settings: the run's settings.
            resume: resume from the newest intact checkpoint in the run folder; start a new run if it has none.
            versus: folder of another finished run on the same task; paired differences to it are reported.
        """
        from ..evaluation.predictions import Predictions
        from ..evaluation.result import Result
        from ..evaluation.tasks import load_task
        from ..finetuning.finetune import finetune
        from ..finetuning.finetuning_report import report_of
        from ..store.image_store import ImageStore

        images = ImageStore.open(store)
        result = finetune(initialization, images, task, out, settings, device, resume, versus=versus)
        other = Result.read(versus) if versus else None
        report_of(result, Predictions.load(out), load_task(task, images), other).show()
        print(f"network, predictions, report and plots: {out}")

    tyro.cli(run, args=arguments, prog="c2l finetune")


def detect(arguments: list[str]) -> None:
    """Fine-tune and measure a pneumonia detector: `c2l detect rsna --init INIT --data DIR --out RUN`."""
    from ..detection.settings import Settings

    defaults = Settings()

    def rsna(
        initialization: Initialization,
        data: Path,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = defaults,
        avoid: UseAppendAction[tuple[Path, ...]] = (),
        store: Path | None = None,
        workers: Workers = None,
        device: Device = "auto",
        resume: bool = False,
    ) -> None:
        """Fine-tune a RetinaNet with a ResNet-18 backbone; report the challenge's mAP and COCO's AP.

        A fifth of the patients are test patients.

        Args:
            data: the challenge's folder, stage 1 or 2, as distributed.
            out: run folder; must not exist, except with --resume.
            settings: the run's settings.
            avoid: a store, or a list of images or patients; its patients are never test patients. For a comparison,
                name the patients that any of the initializations has seen. Can be repeated.
            store: folder for the decoded films; by default a folder beside the run folder, shared by later runs.
            resume: resume from the newest checkpoint in the run folder; start a new run if it has none.
        """
        from ..detection.detect import detect

        result = detect(
            initialization, data, out, settings, device=device, avoid=avoid, store=store, workers=workers, resume=resume
        )
        for name in result.metrics.names:
            print(f"{name:12}{result.metrics[name]}")
        print(f"report, boxes and plots: {out}")

    description = "Fine-tune and measure a RetinaNet detector."
    tyro.extras.subcommand_cli_from_dict({"rsna": rsna}, prog="c2l detect", args=arguments, description=description)


def look(
    target: Target,
    store: Path,
    out: Path,
    finetuned: Path | None = None,
    boxes: Path | None = None,
    size: int | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Draw nearest films, a feature map, and a fine-tuned network's class activation maps.

    neighbours.png and cams.png show films of the store; map.png shows no films.

    Args:
        store: folder that `c2l prepare` wrote.
        out: folder for the images, look.md and look.json.
        finetuned: a finished run of `c2l finetune chestxray14` on this store; its class activation maps are drawn.
        boxes: BBox_List_2017.csv of ChestX-ray14; its boxes are drawn beside the activation maps; needs --finetuned.
        size: input side for neighbours and map, pixels; by default the weights' own.
        seed: seed of the choice of films, the bootstrap and a random network.
    """
    from ..distributed import pick_device
    from ..inspection.inspect_features import inspect_features
    from ..store.image_store import ImageStore

    images, device_type = ImageStore.open(store), pick_device(device).type
    check_folder(out)
    facts = inspect_features(target, images, out, finetuned, boxes, size, seed, device=device_type)
    print(f"neighbours.png, map.png{', cams.png' if 'cams' in facts else ''} and their description look.md: {out}")


def reproduce(
    what: Annotated[Positional[str], arg(metavar="WHAT", help="table1 to table5, theta, open, search, or release")],
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
        only: names of the rows to reproduce; by default all rows.
        train: for a release: also pretrain by its recipe.
        check: for a release: only check that its recipe's first steps reproduce the recorded losses, on one CPU thread,
            in one or two minutes.
        pretraining_only: NAME:PATTERN, images that no labelled task may use, as for `c2l prepare`; can be repeated.
    """
    import sys

    from ..reproduce.release_losses import check_release
    from ..reproduce.release_metrics import all_reproduced, reproduce_release
    from ..reproduce.reproduce_table import reproduce_table

    check_folder(out)
    if train and check:
        raise C2LError(
            "expected --train (the whole pretraining) or --check (its first steps), found both; leave out one of them"
        )
    if what == "release" and check:
        comparison = check_release(release, data, out, workers)
        print(comparison.table(), comparison.summary(), sep="\n")
        sys.exit(0 if comparison.reproduced else 1)
    if what == "release":
        metrics = reproduce_release(release, data, out, train, device, workers)
        for metric in metrics:
            print(f"{metric.name}: {metric.verdict}: released {metric.released}, now {metric.now or metric.reason}")
        sys.exit(0 if all_reproduced(metrics) else 1)
    if release or train or check:
        raise C2LError(
            f"expected a release's name, --train or --check only with `c2l reproduce release`, found one with {what!r}"
        )
    results = reproduce_table(what, data, out, scale, smoke, seeds, only, device, workers, None, pretraining_only)
    print(results.summary())
    sys.exit(1 if results.failed else 0)
