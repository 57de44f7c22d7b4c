"""The `c2l` command: a thin layer of functions whose flags are their arguments.

Each command imports what it needs when it runs, so that `c2l --help` answers at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from .errors import C2LError

if TYPE_CHECKING:
    from .weights import Weights


def list_() -> None:
    """The releases: input, license, training data, figures."""
    from . import get_weights, list_weights

    for name in list_weights():
        weights = get_weights(name)
        print(f"{name}: {weights.input_size[-1]} pixels, {weights.license}", *weights.trained_on, sep="\n  trained on ")
        print(*(f"  {figure}" for figure in _figures(weights)), sep="\n")


def info(release: Positional[str]) -> None:
    """A release's record, and where it came from."""
    import json

    from . import get_weights

    weights = get_weights(release)
    record = {**weights.config, "sha256": weights.sha256, "file": str(weights.path()), "measured": _figures(weights)}
    provenance = json.loads(weights.path().with_suffix(".json").read_text())
    del provenance["release"], provenance["metrics"]
    provenance["golden_embedding"] = f"{len(provenance['golden_embedding'])} numbers"
    provenance["patients"] = {dataset: f"{len(ids)} ids" for dataset, ids in provenance["patients"].items()}
    for key, value in (record | provenance).items():
        numbers = isinstance(value, list) and all(isinstance(one, int | float) for one in value)
        print(f"{key}: {json.dumps(value, ensure_ascii=False, indent=None if numbers else 2)}")


def _figures(weights: "Weights") -> list[str]:
    """A release's figures with their 95 % intervals, a line each."""
    return [
        f"{name}: {figure['value']:.4f} ({figure['low']:.4f}–{figure['high']:.4f})"
        for name, figure in weights.metrics.items()
    ]


def verify(release: Positional[str]) -> None:
    """Check a release's bytes, and that this machine computes the features that its makers computed."""
    from . import verify

    result = verify.verify(release)
    print(
        f"{result.release}: sha256 {'as registered' if result.sha256_ok else 'WRONG'}, golden embedding off by at "
        f"most {result.max_difference:.1e}, cosine {result.cosine:.7f}: {'ok' if result.ok else 'NOT OK'}"
    )
    if not result.ok:
        sys.exit(1)


def embed(
    folder: Positional[Path], out: Path = Path("features.parquet"), model: str = "resnet18", device: str | None = None
) -> None:
    """Features of every radiograph in a folder, as Parquet; files that cannot be read are listed and left out."""
    from c2l_models.training.datasets import image_files

    from . import embedding

    if not folder.is_dir():
        raise C2LError(f"{folder} is no folder; wanted one that holds radiographs")
    films = [folder / name for name in image_files(folder)]
    embeddings = embedding.embed(films, model=model, device=device, progress=True)
    for path, reason in embeddings.errors.items():
        print(f"left out {path}: {reason}", file=sys.stderr)
    if not embeddings.paths:
        raise C2LError(f"no film in {folder} could be read; wanted PNG, JPEG, TIFF or DICOM files")
    embeddings.save(out)
    print(f"{len(embeddings.paths)} films, {embeddings.features.shape[1]} features each: {out}")


def prepare(
    source: Annotated[UseAppendAction[tuple[str, ...]], arg(help="a data set and its folder, NAME=DIR; repeat it")],
    out: Path,
    size: int = 128,
    workers: int | None = None,
) -> None:
    """Radiographs on disk -> an image store: one uint8 array and one index. Stopped, it goes on where it was.

    Data sets: chestxray14, knee_kl, folder (any folder of images, with an optional labels.csv).
    """
    from c2l_models.training.image_store import prepare

    pairs = []
    for pair in source:
        name, equals, folder = pair.partition("=")
        if not equals:
            raise C2LError(f"--source {pair}: wanted NAME=DIR, such as chestxray14=data/chestxray14")
        pairs.append((name, Path(folder)))
    report = prepare(pairs, out, size, workers)
    print(
        f"{report.images} images in {out} ({report.duplicates} of them copies of others), "
        f"{report.refused} refused (refused.parquet), {report.seconds:.0f} s"
    )


def pretrain(arguments: list[str]) -> None:
    """Pretrain by a recipe: `c2l pretrain RECIPE --store STORE --out RUN`; every key of the recipe is a flag."""
    from c2l_models.training.recipe import Recipe, list_recipes, load_recipe

    if not arguments or arguments[0] in ("-h", "--help", "--list-recipes"):
        print("usage: c2l pretrain RECIPE --store STORE --out RUN [--resume] [--recipe.KEY VALUE …] [--help]\n")
        print("RECIPE is a .toml file or one of:")
        for name in list_recipes():
            print(f"  {name:<20} {load_recipe(name).description}")
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
            resume: go on from the run's checkpoint.
            max_seconds: stop after about so long, ready to go on.
        """
        from c2l_models.training.export import export_run
        from c2l_models.training.image_store import ImageStore
        from c2l_models.training.pretrain import pretrain

        images = ImageStore.open(store)
        pretrain(recipe, images, out, device, resume, max_seconds)
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
) -> None:
    """A run's network as a .safetensors file that loads in one line.

    Args:
        run: run folder.
        out: the file to write.
        teacher: take the teacher's weights in place of the student's.
        tag: recorded in the file.
        size: side of the images that it will be used at; the recipe's by default.
        license: recorded in the file.
    """
    from c2l_models.training.export import export_run

    print(export_run(run, out, None, teacher, tag, size, license))


def probe(
    target: Annotated[Positional[str], arg(help="a release, a .safetensors file, a run folder, or random")],
    store: Path,
    out: Path,
    task: str = "chestxray14",
    size: int | None = None,
    floors: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Linear probe on frozen features: AUROC with patient-level intervals, beside the floors."""
    from c2l_models.training.evaluation.probe import probe
    from c2l_models.training.image_store import ImageStore
    from c2l_models.training.pretrain import pick_device

    place = pick_device(device).type
    report = probe(target, ImageStore.open(store), task, out=out, size=size, floors=floors, device=place)
    report.show()
    print(f"table, CSV, JSON and picture: {out}")


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
    from c2l_models.training.release import release_run

    weights = release_run(run, tag, out, size, license, default)
    print(f"{weights.name}: {weights.path()}", *_figures(weights), sep="\n")


def benchmark(
    what: Positional[Literal["step"]],
    recipe: str = "open15k-resnet18",
    batch_size: int = 64,
    size: int = 128,
    precision: Literal["float32", "bfloat16"] | None = None,
    repeats: int = 7,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path | None = None,
) -> None:
    """What a pretraining step costs beside its bare networks: ratios from one run.

    Args:
        what: step, a whole pretraining step.
        recipe: a recipe's name or .toml file.
        batch_size: in place of the recipe's.
        size: in place of the recipe's, pixels.
        precision: in place of the recipe's.
        repeats: rounds; the figures are medians.
        device: auto takes CUDA where there is one.
        out: a .json file for every round's figures.
    """
    import dataclasses

    from rich.console import Console

    from c2l_models.training import benchmark
    from c2l_models.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    if precision:
        chosen = dataclasses.replace(chosen, precision=precision)
    result = benchmark.step(chosen, batch_size, size, repeats, device)
    Console().print(result)
    if out:
        result.save(out)


def demo(out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0) -> None:
    """The whole way in a few minutes, on synthetic films or on a folder of your own."""
    from c2l_models.training.demo import run_demo

    run_demo(out, images, seconds, seed)


COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_,
    "info": info,
    "verify": verify,
    "embed": embed,
    "prepare": prepare,
    "pretrain": pretrain,
    "export": export,
    "probe": probe,
    "release": release,
    "benchmark": benchmark,
    "demo": demo,
}


TRAINING_LIBRARIES = {"matplotlib", "sklearn", "tensorboard"}


def _fail(message: str) -> NoReturn:
    print(f"c2l: {message}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; an error of ours is one line on stderr and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["pretrain"]:
            pretrain(arguments[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="c2l", args=arguments, description=__doc__)
    except C2LError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_LIBRARIES:
            raise
        _fail(f"this command needs {error.name}: pip install 'c2l-models[train]'")
    except KeyboardInterrupt:
        sys.exit(130)
