"""`c2l demo`: every stage in a few minutes, on synthetic films or on a folder of the user's images."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from rich.console import Console
from rich.table import Table

import c2l_models
from c2l_models.errors import C2LError, DatasetError
from c2l_models.progress import stage
from c2l_models.publishing.timm_folder import write_timm_folder
from c2l_models.radiographs.listing import image_files
from c2l_models.radiographs.phantom import write_films
from c2l_models.releases.registry import default_weights
from c2l_models.search import nearest
from c2l_models.sheets import contact_sheet

from ..batches import training_rows
from ..evaluation.tasks import Task, load_task
from ..pretrain import pretrain
from ..probing.knn_monitor import evenly_spaced
from ..probing.probe import probe
from ..recipe import Recipe
from ..recipe_files import load_recipe
from ..run_files.backbone import export_run
from ..run_files.log import of_kind, read
from ..store.image_store import ImageStore
from ..store.prepare import prepare

FILMS, SIZE = 300, 128
MIN_IMAGES = 16  # fewer do not fill a batch for contrastive learning
GALLERY = 1000  # largest number of images to search for neighbours, so that a large folder does not take hours
QUERIES, NEIGHBOURS = 5, 4

console = Console(markup=False)


def run_demo(
    out: Path = Path("demo_output"), images: Path | None = None, seconds: float = 60, seed: int = 0
) -> list[Path]:
    """Load, embed, search, pretrain, export and probe. Returns the files written, which are also printed.

    Args:
        out: folder to write to; if it is not empty, the first empty folder of OUT-2, OUT-3, … is used.
        images: a folder of radiographs, with or without a `labels.csv`; by default synthetic films are drawn.
        seconds: time limit of the pretraining.
        seed: seed of the synthetic films, the pretraining, and the random baseline network.

    Raises:
        DatasetError: fewer than 16 readable images, or a `labels.csv` that the folder adapter refuses.
    """
    if images is not None:
        check_count(images, sum(1 for _ in image_files(images)))
    out = fresh_folder(out)
    console.rule("1  The same network, loaded in three ways")
    show_loaders(folder := out / "timm_resnet18")
    console.rule("2  Radiographs")
    with stage("drawing films", show=True):
        films = images or write_films(out / "films", FILMS, seed)
    report = prepare([("folder", films)], out / "store", SIZE)
    store = ImageStore.open(report.store)
    console.print(f"{len(store)} images at {SIZE}×{SIZE} pixels, {report.refused} left out (store/refused.parquet)")
    check_count(films, len(store))
    console.rule("3  Nearest neighbours, by the default release")
    with stage("searching", show=True):
        draw_neighbours(films, store, picture := out / "neighbours.png")
    console.rule(f"4  C2L pretraining, at most {seconds:.0f} seconds")
    recipe = fit_recipe(load_recipe("smoke"), store, seed)
    run = pretrain(recipe, store, out / "run", max_seconds=seconds)
    weights = export_run(run, out / "backbone.safetensors", store)
    c2l_models.resnet18(weights=weights)
    console.print(f"Exported and loaded again: c2l_models.resnet18(weights={str(weights)!r})")
    console.rule("5  Evaluation of the features")
    if reason := why_no_probe(store) or show_probes(store, weights, seed):
        console.print(f"No linear probe: {reason}.")
        print_contrast(run)

    files = {} if images else {films: f"{FILMS} synthetic chest films and their labels.csv"}
    files |= {
        folder: "the default release in the layout of timm and the Hugging Face hub",
        store.path: "the images as one array, an index, and the refused files with reasons (refused.parquet)",
        picture: "films on the left, with the nearest films to their right",
        run / "curves.png": "loss, contrast and k-NN curves of the pretraining",
        run: "the run: recipe, log, TensorBoard files, checkpoints",
        weights: "the pretrained network, for resnet18(weights=…)",
    }
    console.rule("Files")
    for path, meaning in files.items():
        console.print(f"{path}  {meaning}", soft_wrap=True)
    return list(files)


def check_count(folder: Path, count: int) -> None:
    """Raise DatasetError if a folder holds fewer than `MIN_IMAGES` images."""
    if count < MIN_IMAGES:
        raise DatasetError(
            f"expected at least {MIN_IMAGES} readable PNG, JPEG, TIFF or DICOM files, found {count} in {folder}"
        )


def fresh_folder(out: Path) -> Path:
    """Create and return `out`, or the first of out-2, out-3, … that is empty, to keep the files of an earlier demo."""
    folder, number = out, 1
    while folder.exists() and any(folder.iterdir()):
        number += 1
        folder = out.with_name(f"{out.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def show_loaders(folder: Path) -> None:
    """Load the default release by c2l_models, timm (from `folder`, written here) and torch.hub; compare features."""
    weights = default_weights("resnet18")
    write_timm_folder(weights, folder)
    models = {"c2l_models": c2l_models.resnet18(pretrained=True)}
    try:
        models["timm, from a folder"] = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except pickle.UnpicklingError:  # timm hands the file to torch.load
        console.print(f"timm is skipped: torch.load of torch {torch.__version__} cannot read safetensors files.")
    repository = Path(c2l_models.__file__).parent.parent
    if (repository / "hubconf.py").is_file():
        models["torch.hub, local"] = torch.hub.load(str(repository), "resnet18", source="local", pretrained=True)
    else:
        console.print("torch.hub is skipped: it needs hubconf.py, which is only in the repository.")
    batch = torch.randn(4, *weights.input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = {name: model.eval()(batch) for name, model in models.items()}
    table = Table("loaded by", "features", "largest difference", title=weights.name, title_justify="left")
    for name, values in features.items():
        difference = (values - features["c2l_models"]).abs().max().item()
        table.add_row(name, str(list(values.shape)), f"{difference:.1e}")
    console.print(table)


def draw_neighbours(films: Path, store: ImageStore, picture: Path) -> None:
    """Embed films with the release; draw one film for each of the most common captions, and its nearest films."""
    rows = store.index.take(evenly_spaced(np.arange(len(store)), GALLERY)).to_pylist()
    captions = {films / row["path"]: caption(row) for row in rows}
    embeddings = c2l_models.embed(captions, progress=True)
    names = [captions[path] for path in embeddings.paths]
    queries = [names.index(name) for name, _ in Counter(names).most_common(QUERIES)]
    indices, cosines = nearest(embeddings.features, embeddings.features[queries], NEIGHBOURS, exclude=queries)
    shown = [[query, *row] for query, row in zip(queries, indices.tolist(), strict=True)]
    pictures = [[c2l_models.read_radiograph(embeddings.paths[i]) for i in row] for row in shown]
    contact_sheet(pictures, [[names[i] for i in row] for row in shown], picture, cosines)
    console.print(f"{len(shown)} of {len(names)} films with the {NEIGHBOURS} nearest films: {picture}")


def caption(row: dict[str, Any]) -> str:
    """Return the findings of an image of the index; if it has no labels, its file name."""
    known = {name: value for name, value in row["labels"] if value == value}  # not NaN
    found = [name if value == 1 else f"{name} {value:g}" for name, value in known.items() if value]
    return ", ".join(found) or ("no finding" if known else Path(row["path"]).name)


def fit_recipe(recipe: Recipe, store: ImageStore, seed: int) -> Recipe:
    """Return the recipe with a batch size that a small store can fill."""
    images = len(training_rows(recipe, store))
    batch = min(recipe.batch_size, 1 << (images.bit_length() - 1)) if images else recipe.batch_size
    return replace(recipe, seed=seed, batch_size=batch, batch_norm_group=batch // 4)


def task_of(store: ImageStore) -> Task:
    """Return the task of the demo's one data set, whose name a dataset.toml may state."""
    return load_task(store.index["dataset"][0].as_py(), store)


def why_no_probe(store: ImageStore) -> str:
    """Return why a linear probe is impossible on these images; empty if it is possible."""
    if not task_of(store).label_names(store):
        return "it needs labels: columns of 0 and 1 in a labels.csv beside the images"
    if not 0 < len(store.select(split="test")) < len(store):
        return "it needs a column `split` in labels.csv with train or test for each patient"
    return ""


def show_probes(store: ImageStore, weights: Path, seed: int) -> str:
    """Print linear-probe AUROCs before and after pretraining, and the release's. Returns the reason if it fails."""
    targets = {"before (random)": "random", "after": str(weights), "release": default_weights("resnet18").name}
    try:
        task = task_of(store)
        reports = {name: probe(to, store, task, baselines=False, seed=seed) for name, to in targets.items()}
    except C2LError as error:  # a user's few labels may not suffice to tune and fit a probe
        return str(error)
    before, after, _ = reports.values()
    columns = [f"{name}, {report.facts['size']} px" for name, report in reports.items()]
    table = Table("label", *columns, title="Linear probe: AUROC (95 % interval)", title_justify="left")
    for name in after.target.metrics.names:
        table.add_row(name, *(str(report.target.metrics[name]) for report in reports.values()))
    console.print(table)
    gain = after.difference(before.target, after.headline)
    console.print(
        f"Measured on {after.facts['test_images']} images of {after.facts['test_patients']} patients that were not in "
        f"this pretraining. After minus before, paired: {gain}. Only one random network "
        "was measured; other seeds give other values."
    )
    if note := after.few_cases():
        console.print(note)
    return ""


def print_contrast(run: Path) -> None:
    """Print how loss and contrastive accuracy changed, which needs no labels."""
    lines = of_kind(read(run), "train")
    if not lines:
        console.print("The pretraining stopped before its first line of log: allow more seconds.")
        return
    first, last = lines[0], lines[-1]
    console.print(
        f"In {last['step']} steps the loss went from {first['loss']:.2f} to {last['loss']:.2f}. The share of films "
        f"whose other view was nearer than every queue entry went from {first['top1']:.0%} to {last['top1']:.0%}. The "
        "queue first holds random vectors, which are easy to distinguish from films, and later films. A minute is too "
        "short for a judgement, and a network that distinguishes films need not recognise findings: look at the "
        "neighbours, or add labels."
    )
