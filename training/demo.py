"""`c2l demo`: the whole way in a few minutes, on synthetic films or on a folder of one's own images."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import c2l_models
from c2l_models.errors import C2LError, DatasetError
from c2l_models.phantom import write_films
from c2l_models.search import contact_sheet, nearest
from c2l_models.timm_folder import write_timm_folder
from c2l_models.weights import Weights, default_weights

from .datasets import image_files
from .evaluation.metrics import paired_difference
from .evaluation.monitor import spread_over
from .evaluation.probe import probe
from .evaluation.report import ProbeReport
from .evaluation.tasks import load_task
from .export import export_run
from .image_store import ImageStore, prepare
from .log import read
from .pretrain import pretrain, training_rows
from .recipe import Recipe, load_recipe

FILMS, SIZE = 300, 128
FEWEST = 16  # images: below that there is no batch to contrast, and no neighbour worth looking at
GALLERY = 1000  # images that the nearest are searched among, so that a large folder takes no hour
QUERIES, NEIGHBOURS = 5, 4

Files = dict[Path, str]
console = Console()


def run_demo(
    out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0
) -> list[Path]:
    """Load, embed, search, pretrain, export and probe; gives the files written, named at the end.

    Args:
        out: folder to write into; where it holds something already, out-2, out-3, … is taken.
        images: a folder of radiographs, with a `labels.csv` or without; None: synthetic films.
        seconds: of pretraining.
        seed: of the films, the pretraining and the random network that it is compared with.

    Raises:
        DatasetError: fewer than 16 images, or a `labels.csv` that is not as the folder adapter wants it.
    """
    if images is not None:
        check_images(images)
    out = fresh_folder(out)
    files: Files = {}

    console.rule("1  One network, loaded in three ways")
    show_three_loaders(default_weights("resnet18"), out, files)

    console.rule("2  Radiographs")
    films = images or write_films(out / "films", FILMS, seed)
    if images is None:
        files[films] = f"{FILMS} synthetic chest films and their labels.csv"
    store = prepare_store(films, out, files)

    console.rule("3  Nearest neighbours, by the embedded release")
    draw_neighbours(films, store, out / "neighbours.png", files)

    console.rule(f"4  C2L pretraining, {seconds:.0f} seconds of it")
    recipe = fit_recipe(load_recipe("smoke"), len(training_rows(load_recipe("smoke"), store)), seed)
    run = pretrain(recipe, store, out / "run", max_seconds=seconds)
    weights = export_run(run, out / "backbone.safetensors", store)
    parameters = sum(p.numel() for p in c2l_models.resnet18(weights=weights).parameters())
    console.print(
        f"exported, and loaded back: c2l_models.resnet18(weights={str(weights)!r}), {parameters:,} parameters"
    )
    files[run / "curves.png"] = "the run's loss, contrast and k-NN curves"
    files[run] = "the run: recipe, log, TensorBoard files, checkpoint"
    files[weights] = "the network just pretrained, ready for resnet18(weights=…)"

    console.rule("5  What the features know")
    if reason := why_no_probe(store):
        console.print(f"No linear probe: {reason}.")
        tell_contrast(run)
    else:
        show_probes(store, weights, seed)

    console.rule("Written")
    table = Table(show_header=False, box=None)
    for path, meaning in files.items():
        table.add_row(str(path), meaning)
    console.print(table)
    return list(files)


def check_images(folder: Path) -> None:
    """Raises DatasetError where a folder holds too few images to do anything with."""
    found = len(list(image_files(folder))) if folder.is_dir() else 0
    if found < FEWEST:
        raise DatasetError(
            f"{folder} holds {found} images; wanted a folder of at least {FEWEST} PNG, JPEG, TIFF or DICOM"
        )


def fresh_folder(out: Path) -> Path:
    """`out`, or the first of out-2, out-3, … that holds nothing: what an earlier demo wrote is kept."""
    folder, number = out, 1
    while folder.exists() and any(folder.iterdir()):
        number += 1
        folder = out.with_name(f"{out.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def show_three_loaders(weights: Weights, out: Path, files: Files) -> None:
    """The same features from c2l_models, torch.hub and timm, on the same batch."""
    folder = write_timm_folder(weights, out / "timm_resnet18")
    files[folder] = "the release as timm and the Hugging Face hub want it"
    models = {
        "c2l_models.resnet18(pretrained=True)": c2l_models.resnet18(pretrained=True),
        'timm.create_model("local-dir:…", pretrained=True)': timm.create_model(
            f"local-dir:{folder}", pretrained=True
        ),
    }
    repository = Path(c2l_models.__file__).parent.parent
    if (repository / "hubconf.py").is_file():
        hub = torch.hub.load(str(repository), "resnet18", source="local", pretrained=True)
        models['torch.hub.load(…, "resnet18", source="local", pretrained=True)'] = hub
    else:
        console.print(
            "No torch.hub here: hubconf.py lies in the repository, and this is an installed package."
        )
    batch = torch.randn(4, *weights.input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = {call: model.eval()(batch) for call, model in models.items()}
    reference = next(iter(features.values()))
    table = Table(
        "call", "features", "largest difference from the first", title=weights.name, title_justify="left"
    )
    for call, values in features.items():
        table.add_row(call, str(list(values.shape)), f"{(values - reference).abs().max().item():.1e}")
    console.print(table)


def prepare_store(films: Path, out: Path, files: Files) -> ImageStore:
    """Decode every film once. Raises DatasetError where too few can be read."""
    report = prepare([("folder", films)], out / "store", SIZE)
    console.print(f"{report.images} images from {films} at {SIZE}×{SIZE} pixels, {report.refused} refused")
    if report.images < FEWEST:
        raise DatasetError(
            f"{report.images} images of {films} could be read, wanted at least {FEWEST}; "
            f"{report.store / 'refused.parquet'} says why the others could not"
        )
    files[report.store] = (
        "all images as one array and an index; refused.parquet: which were left out, and why"
    )
    return ImageStore.open(report.store)


def draw_neighbours(films: Path, store: ImageStore, path: Path, files: Files) -> None:
    """Embed films with the release and draw, for one of each of the commonest descriptions, the nearest."""
    index = store.index.take(spread_over(np.arange(len(store)), GALLERY)).to_pylist()
    captions = {films / row["path"]: describe(row) for row in index}
    embeddings = c2l_models.embed(captions, progress=True)
    names = [captions[film] for film in embeddings.paths]
    queries = [names.index(name) for name, _ in Counter(names).most_common(QUERIES)]
    indices, cosines = nearest(embeddings.features, embeddings.features[queries], NEIGHBOURS, exclude=queries)
    rows = [[query, *row] for query, row in zip(queries, indices.tolist(), strict=True)]
    pictures = [[open_film(embeddings.paths[i]) for i in row] for row in rows]
    contact_sheet(pictures, [[names[i] for i in row] for row in rows], path, cosines)
    files[path] = (
        f"{len(rows)} films at the left, the {NEIGHBOURS} nearest of {len(names)} to the right of each"
    )


def describe(row: dict) -> str:
    """What is known of an image: its positive labels, or else its file's name."""
    known = [
        name if value == 1 else f"{name} {value:g}"
        for name, value in row["labels"]
        if value and value == value
    ]
    return ", ".join(known) or ("no finding" if row["labels"] else Path(row["path"]).name)


def open_film(path: Path) -> Image.Image:
    return c2l_models.read_radiograph(path)


def fit_recipe(recipe: Recipe, images: int, seed: int) -> Recipe:
    """The recipe with a batch that a small folder can fill."""
    batch = min(recipe.batch_size, 1 << (images.bit_length() - 1))
    return replace(recipe, seed=seed, batch_size=batch, batch_norm_group=min(recipe.batch_norm_group, batch))


def why_no_probe(store: ImageStore) -> str:
    """Why these images allow no linear probe; empty where they do."""
    task = load_task("folder")
    if not task.columns(store):
        return "it needs labels, a labels.csv beside the images with columns of 0 and 1"
    try:
        task.train_rows(store), task.test_rows(store)
    except DatasetError:
        return "it needs images in both splits, a column split with train and test in labels.csv"
    return ""


def tell_contrast(run: Path) -> None:
    """What a run without labels can say of itself: from the first and the last line of its log."""
    steps = [line for line in read(run) if line["kind"] == "train"]
    first, last = steps[0], steps[-1]
    console.print(
        f"After {last['step']} steps the network tells a film's other view from the queue's in {last['top1']:.0%} "
        f"of the cases (at the start {first['top1']:.0%}); the loss went from {first['loss']:.2f} to {last['loss']:.2f}.\n"
        "That it tells films apart is no proof that it knows findings: look at the neighbours, or add labels."
    )


def show_probes(store: ImageStore, weights: Path, seed: int) -> None:
    """Linear-probe AUROC before and after the pretraining, and of the embedded release."""
    targets = {
        "before (random)": "random",
        "after": str(weights),
        "embedded release": default_weights("resnet18").name,
    }
    reports: dict[str, ProbeReport] = {}
    for name, target in targets.items():
        try:
            reports[name] = probe(target, store, "folder", floors=False, seed=seed, progress=False)
        except C2LError as error:  # a person's few labels may not suffice to fit or to tune a probe
            console.print(f"No linear probe of {target}: {error}")
            return
    before, after = reports["before (random)"], reports["after"]
    facts = after.facts
    table = Table(
        "label", "positives", *reports, title="Linear probe, AUROC (95 % interval)", title_justify="left"
    )
    for (name, mask), *_ in zip(after.rows(), strict=True):
        figures = [str(report.target.auroc.mean_of(mask)) for report in reports.values()]
        table.add_row(name, "", *figures)
    console.print(table)
    gain = paired_difference(after.target.auroc, before.target.auroc)
    console.print(
        f"On {facts['test_images']} images of {facts['test_patients']} patients that no step of this run has seen. "
        f"After minus before, paired: {gain}."
    )
