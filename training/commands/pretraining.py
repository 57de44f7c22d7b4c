"""`c2l pretrain`, `slim`, `average`, `curves` and `release`: from an image store to released weights.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from c2l_models.architectures import loading_call
from c2l_models.errors import C2LError
from c2l_models.files import check_folder
from c2l_models.progress import stage

from .options import Html


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


def curves(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN …")],
    out: Path,
    earlier: tuple[Path, ...] = (),
    html: Html = False,
) -> None:
    """Compare runs over their hours: the k-NN AUROC that each run logged, as a picture and a table.

    Args:
        runs: run folders of `c2l pretrain`, finished or not.
        out: folder for curves.png and curves.csv, and curves.html with --html.
        earlier: files curves.csv of other calls, whose runs are drawn too.
    """
    check_folder(out)
    if not runs:
        raise C2LError("expected at least one run folder of `c2l pretrain`, found none; name it after the command")
    with stage("curves", show=True):
        from ..run_files.compared_curves import compare_curves, named

        rows = compare_curves(runs, out, earlier)
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
