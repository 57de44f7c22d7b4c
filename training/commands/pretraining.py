"""The part of the `c2l` command that makes weights: a thin layer of functions whose flags are their arguments.

Each command imports what it needs when it runs, so that `c2l --help` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.errors import C2LError

from . import downstream as downstream_commands

if TYPE_CHECKING:
    from ..store.finished_store import PrepareReport


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
    from ..store.prepare import prepare

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
    from ..store.shards import join_shards

    _tell(join_shards(shards, out))


def _tell(report: "PrepareReport") -> None:
    import json

    import pyarrow.parquet as pq
    from rich.console import Console

    from ..datasets import corpus

    print(
        f"{report.images} images in {report.store} ({report.duplicates} of them copies of others), "
        f"{report.refused} refused (refused.parquet), {report.seconds:.0f} s"
    )
    if report.shard:
        return
    counts = json.loads((report.store / "store.json").read_text())["counts"]
    if rows := corpus.compare_with_paper({tuple(part.split("/")): count for part, count in counts.items()}):
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
    from ..recipe import Recipe, load_recipe, recipe_table

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
        from ..distributed import is_main_process
        from ..pretrain import pretrain
        from ..run_files.backbone import export_run
        from ..store.image_store import ImageStore

        images = ImageStore.open(store)
        pretrain(recipe, images, out, device, resume, max_seconds)
        if not is_main_process():
            return
        weights = export_run(out, out / "backbone.safetensors", images)
        print(f"{weights}: load it with c2l_models.{recipe.architecture}(weights={str(weights)!r})")

    tyro.cli(run, args=arguments[1:], prog=f"c2l pretrain {arguments[0]}")


def export(
    target: Annotated[Positional[str], arg(help="a run folder, a release, or a .safetensors file")],
    out: Path,
    format: Literal["safetensors", "onnx", "pt2"] | None = None,
    teacher: bool = False,
    tag: str = "custom",
    size: int | None = None,
    license: str = "unknown",
    best: bool = False,
) -> None:
    """A run's network as a .safetensors file that loads in one line; a run's, release's or file's as ONNX or .pt2.

    ONNX and .pt2 (torch.export) take [B, 1, S, S], say inside how images are to be prepared, and are written only
    where they give the network's features.

    Args:
        out: the file to write.
        format: by default what the file's name ends in.
        teacher: of a run: take the teacher's weights; by default the recipe's `exported`, the student's.
        tag: of a run: recorded in the file.
        size: of a run: side of the images that it will be used at; the recipe's by default.
        license: of a run: recorded in the file.
        best: of a run: take the checkpoint with the highest k-NN AUROC in place of the last one.
    """
    from tempfile import TemporaryDirectory

    from c2l_models.publishing.export import FORMATS, export_weights, is_run_folder

    chosen = format or out.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise C2LError(f"--out {out}: wanted a name that ends in .{', .'.join(FORMATS)}, or --format")
    if is_run_folder(target):
        from ..run_files.backbone import export_run

        options = (None, teacher or None, tag, size, license, best)
        if chosen == "safetensors":
            print(export_run(Path(target), out, *options))
            return
        with TemporaryDirectory() as folder:
            file = export_run(Path(target), Path(folder) / "run.safetensors", *options)
            done = export_weights(file, out, chosen)
    else:
        if teacher or best or (tag, size, license) != ("custom", None, "unknown"):
            raise C2LError(
                f"{target} is no run folder: its weights are what they are, so no --teacher, --best, --tag, "
                "--size or --license"
            )
        done = export_weights(target, out, chosen)
    print(f"{done.path}: features differ from the network's by at most {done.difference:.1e} of the largest")


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
    from c2l_models.cli import metrics

    from ..releasing.release import release_run

    weights = release_run(run, tag, out, size, license, default)
    print(f"{weights.name}: {weights.path()}", *metrics(weights), sep="\n")


def benchmark(arguments: list[str]) -> None:
    """What the pipeline costs, as ratios: `c2l benchmark step|input|prepare|embed|peer|scaling`."""
    from .benchmarks import COMMANDS

    description = "What the pipeline costs: ratios of things that are timed by turns in one run."
    tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="c2l benchmark", args=arguments, description=description)


def demo(out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0) -> None:
    """The whole way in a few minutes, on synthetic films or on a folder of your own."""
    from .demo import run_demo

    run_demo(out, images, seconds, seed)


COMMANDS: dict[str, Callable[..., Any]] = {
    "prepare": prepare,
    "join": join,
    "pretrain": pretrain,
    "export": export,
    "release": release,
    "benchmark": benchmark,
    "demo": demo,
    **downstream_commands.COMMANDS,
}

OWN_ARGUMENTS = ("pretrain", "benchmark", *downstream_commands.OWN_ARGUMENTS)
"""Commands that read their arguments themselves."""
