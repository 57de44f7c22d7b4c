"""The part of the `c2l` command that makes weights: a thin layer of functions whose flags are their arguments.

Each command imports what it needs when it runs, so that `c2l --help` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError

if TYPE_CHECKING:
    from c2l_models.training.prepare import PrepareReport


def prepare(
    source: Annotated[UseAppendAction[tuple[str, ...]], arg(help="a data set and its folder, NAME=DIR; repeat it")],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    shard: str | None = None,
) -> None:
    """Radiographs on disk -> an image store: one uint8 array and one index. Stopped, it goes on where it was.

    Data sets: chestxray14, chexpert, mimic_cxr, mura, rsna, knee_kl, folder (any folder of images, with an optional
    labels.csv).

    Args:
        out: the store's folder; must not exist.
        size: side of the stored images, pixels.
        workers: decoding processes; by default one a core.
        shard: K/N, the K-th of N parts, made by machines of their own; `c2l join` puts them together.
    """
    from c2l_models.training.prepare import prepare

    pairs = []
    for pair in source:
        name, equals, folder = pair.partition("=")
        if not equals:
            raise C2LError(f"--source {pair}: wanted NAME=DIR, such as chestxray14=data/chestxray14")
        pairs.append((name, Path(folder)))
    report = prepare(pairs, out, size, workers, shard=_shard(shard) if shard else None)
    _tell(report)


def join(
    shards: Positional[tuple[Path, ...]],
    out: Path,
) -> None:
    """The shards of a store, all of one `c2l prepare --shard`, put together to the bytes that one machine would make.

    Args:
        shards: the shards' folders, in any order.
        out: the store's folder; must not exist.
    """
    from c2l_models.training.shards import join_shards

    _tell(join_shards(shards, out))


def _tell(report: "PrepareReport") -> None:
    import json

    import pyarrow.parquet as pq
    from rich.console import Console

    from c2l_models.training.datasets import corpus

    print(
        f"{report.images} images in {report.store} ({report.duplicates} of them copies of others), "
        f"{report.refused} refused (refused.parquet), {report.seconds:.0f} s"
    )
    if report.shard:
        return
    counts = json.loads((report.store / "store.json").read_text())["counts"]
    if rows := corpus.beside_paper({tuple(part.split("/")): count for part, count in counts.items()}):
        Console().print(corpus.table(rows))
    index = pq.read_table(report.store / "index.parquet", columns=["patient", "dataset", "split"])
    for shared in corpus.shared_patients(index):
        print(
            f"{shared.images} images of {shared.part} are of {shared.patients} patients who are in {shared.other} too"
        )


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise C2LError(f"--shard {text}: wanted K/N with 1 <= K <= N, such as 3/16")
    return int(number), int(count)


def pretrain(arguments: list[str]) -> None:
    """Pretrain by a recipe: `c2l pretrain RECIPE --store STORE --out RUN`; every key of the recipe is a flag."""
    from c2l_models.training.recipe import Recipe, load_recipe, recipe_table

    if not arguments or arguments[0] in ("-h", "--help", "--list-recipes"):
        from rich.console import Console

        print("usage: c2l pretrain RECIPE --store STORE --out RUN [--resume] [--recipe.KEY VALUE …] [--help]\n")
        print("RECIPE is a .toml file or one of:")
        Console().print(recipe_table())
        return
    recipe = load_recipe(arguments[0])

    def run(
        store: Path,
        out: Path,
        recipe: Recipe = recipe,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        resume: bool = False,
        max_seconds: float | None = None,
    ) -> None:
        """Pretrain by a recipe.

        Args:
            store: folder that `c2l prepare` wrote.
            out: run folder; must not exist, unless with --resume.
            recipe: what is computed.
            device: auto takes CUDA where there is one.
            resume: go on from the run's newest sound checkpoint, or begin where there is none.
            max_seconds: stop after about so long and export what there is; --resume goes on.
        """
        from c2l_models.training.distributed import is_main_process
        from c2l_models.training.export import export_run
        from c2l_models.training.image_store import ImageStore
        from c2l_models.training.pretrain import pretrain

        images = ImageStore.open(store)
        pretrain(recipe, images, out, device, resume, max_seconds)
        if not is_main_process():
            return
        weights = export_run(out, out / "backbone.safetensors", images)
        print(f"{weights}: load it with c2l_models.{recipe.architecture}(weights={str(weights)!r})")

    tyro.cli(run, args=arguments[1:], prog=f"c2l pretrain {arguments[0]}")


def export(
    run: Positional[Path],
    out: Path,
    teacher: bool = False,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
    best: bool = False,
) -> None:
    """A run's network as a .safetensors file that loads in one line.

    Args:
        run: run folder.
        out: the file to write.
        teacher: take the teacher's weights; by default the recipe's `exported`, the student's.
        tag: recorded in the file.
        size: side of the images that it will be used at; the recipe's by default.
        license: recorded in the file.
        best: take the checkpoint with the highest k-NN AUROC in place of the last one.
    """
    from c2l_models.training.export import export_run

    print(export_run(run, out, None, teacher or None, tag, size, license, best))


def probe(
    target: Annotated[Positional[str], arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
    store: Path,
    out: Path,
    task: str = "chestxray14",
    size: int | None = None,
    floors: bool = True,
    classifier: Literal["linear", "knn"] = "linear",
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """A linear probe, or nearest neighbours, on frozen features: AUROC with patient-level intervals, beside floors."""
    from c2l_models.training.distributed import pick_device
    from c2l_models.training.evaluation.probe import probe
    from c2l_models.training.image_store import ImageStore

    place = pick_device(device).type
    images = ImageStore.open(store)
    report = probe(target, images, task, out, size, floors, seed, device=place, classifier=classifier)
    report.show()
    print(f"table, CSV, JSON and picture: {out}")


def finetune(arguments: list[str]) -> None:
    """Fine-tune a start on a task's labels: `c2l finetune TASK --store STORE --start START --out DIR`."""
    from c2l_models.training.finetuning import Settings

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
        from c2l_models.training.evaluation.predictions import Predictions
        from c2l_models.training.evaluation.result import Result
        from c2l_models.training.evaluation.tasks import load_task
        from c2l_models.training.finetuning import finetune
        from c2l_models.training.finetuning.report import report_of
        from c2l_models.training.image_store import ImageStore

        result = finetune(start, ImageStore.open(store), task, out, settings, device, resume, versus=versus)
        other = Result.read(versus) if versus else None
        report_of(result, Predictions.load(out), load_task(task), other).show()
        print(f"network, predictions, table, CSV and pictures: {out}")

    tyro.cli(run, args=arguments, prog="c2l finetune")


def detect(arguments: list[str]) -> None:
    """Fine-tune a pneumonia detector and measure it: `c2l detect rsna --start START --data DIR --out RUN`."""
    from c2l_models.training.detection.settings import Settings

    defaults = Settings()

    def rsna(
        start: Annotated[str, arg(help="a release, a .safetensors file, a run folder, imagenet, or random")],
        data: Path,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = defaults,
        avoid: tuple[Path, ...] = (),
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
                any of the compared starts has seen.
            store: folder for the decoded films; by default beside the run folder, where the next run finds it.
            workers: decoding processes; by default one a core.
            device: auto takes CUDA where there is one.
            resume: go on from the run's newest checkpoint, or begin where there is none.
        """
        from c2l_models.training.detection.detect import detect

        result = detect(
            start, data, out, settings, device=device, avoid=avoid, store=store, workers=workers, resume=resume
        )
        for name in result.figures.names:
            print(f"{name:12}{result.figures[name]}")
        print(f"report, boxes and pictures: {out}")

    description = "RetinaNet, fine-tuned and measured."
    tyro.extras.subcommand_cli_from_dict({"rsna": rsna}, prog="c2l detect", args=arguments, description=description)


def release(
    run: Positional[Path],
    tag: str,
    out: Path,
    size: int | None = None,
    license: str = "CC-BY-4.0",
    default: bool = False,
) -> None:
    """Make a run a release: export it, probe it beside the floors, write file, provenance and registry entry.

    Args:
        run: run folder.
        tag: the release is called ARCHITECTURE.TAG.
        out: folder for the probes' tables and pictures.
        size: side of the images that the release is for; the recipe's by default.
        license: of the weights.
        default: let `pretrained=True` mean this release.
    """
    from c2l_models.cli import figures
    from c2l_models.training.release import release_run

    weights = release_run(run, tag, out, size, license, default)
    print(f"{weights.name}: {weights.path()}", *figures(weights), sep="\n")


def reproduce(
    what: Annotated[Positional[str], arg(help="table1 to table5, open (this project's comparison), or release")],
    release: Annotated[Positional[str], arg(help="the release's name")] = "",
    *,
    data: tuple[str, ...],
    out: Path,
    scale: Literal["paper", "open"] | None = None,
    smoke: bool = False,
    seeds: tuple[int, ...] = (0,),
    only: tuple[str, ...] = (),
    train: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
) -> None:
    """A table, or a release's figures, from raw folders on. What is there is used; stopped, it goes on where it was.

    Args:
        data: NAME=DIR, or folders that hold data sets under their usual names.
        out: folder of stores, runs and tables.
        scale: paper, as printed, or open, for the open data sets on a CPU; by default the paper's for its tables.
        smoke: a few steps of every row: shows that all of it runs.
        seeds: of pretraining and measurement; figures are means over them.
        only: rows by name; by default all.
        train: of a release: pretrain by its recipe too.
        device: auto takes CUDA where there is one.
        workers: decoding processes; by default one a core.
    """
    import sys

    from c2l_models.training.reproduce.release import all_back, reproduce_release
    from c2l_models.training.reproduce.reproduce import reproduce_table

    if what == "release":
        checks = reproduce_release(release, data, out, train, device, workers)
        for check in checks:
            print(f"{check.name}: {check.verdict}: released {check.released}, today {check.now or check.why}")
        sys.exit(0 if all_back(checks) else 1)
    if release or train:
        raise C2LError(f"a release's name and --train are for `c2l reproduce release`; {what} has neither")
    book = reproduce_table(what, data, out, scale, smoke, seeds, only, device, workers)
    print(book.summary())
    sys.exit(1 if book.failed else 0)


def benchmark(arguments: list[str]) -> None:
    """What the pipeline costs, as ratios: `c2l benchmark step|input|prepare|peer|scaling`."""
    from c2l_models.training.benchmark.commands import COMMANDS

    description = "What the pipeline costs: ratios of things that are timed by turns in one run."
    tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="c2l benchmark", args=arguments, description=description)


def demo(out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0) -> None:
    """The whole way in a few minutes, on synthetic films or on a folder of your own."""
    from c2l_models.training.demo import run_demo

    run_demo(out, images, seconds, seed)


COMMANDS: dict[str, Callable[..., Any]] = {
    "prepare": prepare,
    "join": join,
    "pretrain": pretrain,
    "export": export,
    "probe": probe,
    "finetune": finetune,
    "detect": detect,
    "release": release,
    "reproduce": reproduce,
    "benchmark": benchmark,
    "demo": demo,
}

OWN_ARGUMENTS = ("pretrain", "finetune", "detect", "benchmark")
"""Commands that read their arguments themselves."""
