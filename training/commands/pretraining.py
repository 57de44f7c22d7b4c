"""`c2l prepare`, `join`, `pretrain`, `slim` and `release`: from radiographs on disk to released weights.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.architectures import loading_call
from c2l_models.errors import C2LError
from c2l_models.files import check_folder
from c2l_models.progress import stage
from c2l_models.ray_engine import check_address

from .options import Html

if TYPE_CHECKING:
    from ..store.finished_store import PrepareReport

PRETRAINING_ONLY = (
    "NAME:PATTERN, images that pretraining may use and labelled tasks may not, by their paths in the data set's "
    "folder, such as 'chestxray14:images_002/*'; can be repeated"
)


def prepare(
    source: Annotated[UseAppendAction[tuple[str, ...]], arg(help="NAME=DIR, a data set's folder; can be repeated")],
    out: Path,
    size: int = 128,
    workers: int | None = None,
    shard: str | None = None,
    pretraining_only: Annotated[UseAppendAction[tuple[str, ...]], arg(help=PRETRAINING_ONLY)] = (),
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> None:
    """Decode radiographs on disk into an image store: one uint8 array and one index.

    An interrupted call resumes if it is repeated. Data sets: chestxray14, chexpert, mimic_cxr, mura, rsna, knee_kl,
    fracatlas, shoulder_implants, and folder (any folder of images, with an optional labels.csv). A folder with a
    dataset.toml has the name that this file states; NAME can also be the path of a .toml file that describes DIR.

    Args:
        out: the store's folder; must not exist.
        size: side of the stored images, pixels.
        workers: number of decoding processes; by default one per core.
        shard: K/N: write part K of N. Several machines can each write one part; `c2l join` joins the parts. By
            default all is written.
        engine: local decodes on this machine; ray on a Ray cluster, one worker per core (extra [ray]).
        address: the Ray cluster, such as auto or HOST:6379; by default RAY_ADDRESS, a cluster that runs on this
            machine, or a new one with its cores.
    """
    check_folder(out)
    if engine == "ray" and (workers or shard):
        raise C2LError("--engine ray makes its own shards, one worker per core; leave out --workers and --shard")
    check_address(engine, address)
    with stage("prepare", show=True):
        pairs = []
        for pair in source:
            name, equals, folder = pair.partition("=")
            if not equals:
                raise C2LError(f"--source: expected NAME=DIR, such as chestxray14=data/chestxray14; found {pair}")
            pairs.append((name, Path(folder)))
        if engine == "ray":
            from ..store.ray_prepare import prepare_on_ray

            report = prepare_on_ray(pairs, out, size, pretraining_only, address)
        else:
            from ..store.prepare import prepare

            part = _shard(shard) if shard else None
            report = prepare(pairs, out, size, workers, shard=part, pretraining_only=pretraining_only)
    _print_report(report)


def join(
    shards: Annotated[Positional[tuple[Path, ...]], arg(metavar="SHARD …")],
    out: Path,
) -> None:
    """Join the shards that `c2l prepare --shard` wrote into one image store.

    The store holds the same bytes as a store that one machine wrote.

    Args:
        shards: the folders of all shards, in any order.
        out: the store's folder; must not exist.
    """
    check_folder(out)
    with stage("join", show=True):
        from ..store.shards import join_shards

        report = join_shards(shards, out)
    _print_report(report)


def _print_report(report: "PrepareReport") -> None:
    """Print the refused files and the counts, and the summary as the last line."""
    import json

    import pyarrow.parquet as pq
    from rich.console import Console

    from c2l_models.radiographs.listing import left_out_count, left_out_lines

    from ..datasets import corpus
    from ..store.store_format import REFUSED, REFUSED_CSV

    if report.refused:
        rows = pq.read_table(report.store / REFUSED).to_pylist()
        print(*left_out_lines([(row["path"], row["reason"]) for row in rows]), sep="\n")
        print(f"all files left out, with reasons: {report.store / REFUSED_CSV}")
    if not report.shard:
        counts = json.loads((report.store / "store.json").read_text(encoding="utf-8"))["counts"]
        if parts := corpus.compare_with_paper({tuple(part.split("/")): count for part, count in counts.items()}):
            Console().print(corpus.table(parts))
        index = pq.read_table(report.store / "index.parquet", columns=["patient", "dataset", "split"])
        for shared in corpus.shared_patients(index):
            patients = f"{shared.part} and {shared.other} share {shared.patients} patients"
            print(f"{patients}: {shared.images} images of {shared.part}")
        print(*_untested(report.store, counts), sep="\n", end="\n" * bool(counts))
    print(
        f"{report.images} images in {report.store} ({report.duplicates} are copies of earlier ones), "
        f"{report.seconds:.0f} s{left_out_count(report.refused)}"
    )


def _untested(store: Path, counts: dict[str, int]) -> list[str]:
    """A line for each labelled data set without a test part, such as a labels.csv without a column split."""
    from ..evaluation.tasks import load_tasks
    from ..store.image_store import ImageStore

    datasets = {part.split("/")[0] for part in counts}
    if not any(f"{dataset}/test" not in counts for dataset in datasets):
        return []
    images = ImageStore.open(store)
    return [
        f"{task.dataset} has labels, but no images in split {' or '.join(task.test)}, which `c2l probe` and `finetune` "
        "test on; to set it, add a column split to the table (train, val or test)"
        for task in load_tasks(images)
        if task.test and not any(f"{task.dataset}/{split}" in counts for split in task.test)
    ]


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise C2LError(f"--shard: expected K/N with 1 <= K <= N, such as 3/16; found {text}")
    return int(number), int(count)


def pretrain(arguments: list[str]) -> None:
    """Pretrain a network: `c2l pretrain RECIPE --store STORE --out RUN`.

    Every key of the recipe is a flag: `--recipe.KEY VALUE`. `--help` after the recipe shows the common ones,
    `--help-all` all.
    """
    from ..recipe import Recipe
    from ..recipe_files import load_recipe, recipe_table
    from .recipe_help import common_settings

    if not arguments or arguments[0] in ("-h", "--help", "--list-recipes"):
        from rich.console import Console

        print("usage: c2l pretrain RECIPE --store STORE --out RUN [--resume] [--recipe.KEY VALUE …]\n")
        print("RECIPE is a .toml file or one of:")
        Console().print(recipe_table())
        print("\n`c2l pretrain RECIPE --help` shows the common settings of a recipe, --help-all all of them.")
        return
    name, *options = arguments
    recipe = load_recipe(name)
    if "--help-all" in options:
        options = ["--help"]
    elif not {"-h", "--help"}.isdisjoint(options):
        recipe, options = common_settings(recipe), ["--help"]

    def run(
        store: Path,
        out: Path,
        recipe: Recipe = recipe,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        resume: bool = False,
        max_seconds: float | None = None,
        fit_seconds: float | None = None,
        plan: bool = False,
    ) -> None:
        """Pretrain a network by a recipe.

        Each setting of the recipe can be changed: --help shows the common ones, --help-all all. docs/pretraining.md
        explains them.

        Args:
            store: folder that `c2l prepare` wrote.
            out: run folder; must not exist, except with --resume.
            recipe: the recipe's settings.
            device: auto uses CUDA if available.
            resume: resume from the newest intact checkpoint in the run folder; start a new run if it has none.
            max_seconds: stop after about this many seconds and export the network; --resume continues the run. By
                default the run has no limit.
            fit_seconds: choose the number of steps so that the whole run, warm-up and cosine included, takes about
                this many seconds on this machine; by default the recipe's number.
            plan: measure a few steps; print the run's steps, hours and memory; plot its schedule in OUT.plan.png; and
                do not train.
        """
        check_folder(out)
        with stage("pretrain", show=True):
            from ..distributed import is_main_process, pick_device
            from ..pretrain import pretrain
            from ..run_files.backbone import export_run
            from ..run_plan import fit_steps, plan_run
            from ..store.image_store import ImageStore

            images = ImageStore.open(store)
            if fit_seconds is not None:
                recipe = fit_steps(recipe, images, pick_device(device), fit_seconds, out if resume else None)
            if plan:
                planned = plan_run(recipe, images, pick_device(device))
                picture = planned.draw(out.with_name(f"{out.name}.plan.png"))
            else:
                pretrain(recipe, images, out, device, resume, max_seconds)
                file, where = out / "backbone.safetensors", pick_device(device)
                weights = export_run(out, file, images, device=where) if is_main_process() else None
        if plan:
            print(*planned.lines(), picture, sep="\n")
        elif weights:
            print(f"{weights}: load it with {loading_call(recipe.architecture, weights)}")

    tyro.cli(run, args=options, prog=f"c2l pretrain {name}")


def slim(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    out: Path,
    best: bool = False,
    half: bool = False,
) -> None:
    """Copy a run without teacher, queue and optimizer, to carry it elsewhere: 45 MB for a ResNet-18.

    The copy can be probed, exported and released (`c2l release OUT --store STORE`), but not resumed.

    Args:
        run: a run folder.
        out: the new folder; must not exist.
        best: take the checkpoint with the best probe, not the newest.
        half: store float16, as a release does: 22 MB.
    """
    check_folder(out)
    with stage("slim", show=True):
        from ..run_files.slim import slim_run

        copied = slim_run(run, out, best, half)
    print(copied)


def average(
    shares: Annotated[Positional[Path], arg(metavar="SHARES.toml")], out: Path, store: Path | None = None
) -> None:
    """Average the weights of a run with other weights of its architecture, as a run that can be released.

    Args:
        shares: a TOML file with a table `shares`: a share for each run folder, release or .safetensors file. The first
            is a run folder, and the sum is 1.
        out: the new folder; must not exist.
        store: the store that the first run trained on; by default where it was then.
    """
    check_folder(out)
    with stage("average", show=True):
        from ..releasing.average import average_run, read_shares

        averaged = average_run(read_shares(shares), out, store)
    print(averaged)


def curves(runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN …")], out: Path, html: Html = False) -> None:
    """Compare runs over their hours: the k-NN AUROC that each run logged, as a picture and a table.

    Args:
        runs: run folders of `c2l pretrain`, finished or not.
        out: folder for curves.png and curves.csv, and curves.html with --html.
    """
    check_folder(out)
    if not runs:
        raise C2LError("expected at least one run folder of `c2l pretrain`, found none; name it after the command")
    with stage("curves", show=True):
        from ..run_files.compared_curves import compare_curves, named

        rows = compare_curves(runs, out)
        if html:
            from ..run_files.curves_page import curves_page

            curves_page(named(runs), rows).write(out / "curves.html")
    print(out / "curves.png")


def release(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    tag: str,
    out: Path,
    size: int | None = None,
    license: str = "CC-BY-4.0",
    default: bool = False,
    store: Path | None = None,
    baselines: bool = True,
) -> None:
    """Turn a run into a release: export it, probe it, write its file, provenance and registry entry.

    Args:
        run: a run folder.
        tag: the release is named ARCHITECTURE.TAG.
        out: folder for the probes' tables and plots.
        size: side of the images that the release is meant for, pixels; by default the recipe's size.
        license: license of the weights.
        default: make this release the one that `pretrained=True` loads.
        store: the store that the run trained on; by default where it was then.
        baselines: probe untrained networks and pixels beside the run, which takes most of the time.
    """
    check_folder(out)
    with stage("release", show=True):
        from c2l_models.releases.info import metric_lines

        from ..releasing.release import release_run

        weights = release_run(run, tag, out, size, license, default, store, baselines)
    print(f"{weights.name}: {weights.path()}", *metric_lines(weights), sep="\n")
