"""`c2l probe`, `compare`, `few-shot` and `look`: measure and inspect frozen features.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from c2l_models.errors import C2LError
from c2l_models.files import check_file, check_folder
from c2l_models.progress import stage

from .options import COMPARED, Device, Html, Target


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
    html: Html = False,
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
        seed: seed of the tuning split and of a random network; the bootstrap does not depend on it.
    """
    check_folder(out)
    with stage("probe", show=True):
        from dataclasses import replace

        from ..distributed import pick_device
        from ..evaluation.tasks import load_task
        from ..probing.probe import probe
        from ..store.image_store import ImageStore

        images, device_type = ImageStore.open(store), pick_device(device).type
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
        if html:
            from ..probing.probe_page import probe_page

            probe_page(report, target, out).write(out / "report.html")
    report.show()
    print(f"report, metrics, predictions and plots: {out}")


def compare(
    networks: Annotated[Positional[tuple[str, ...]], arg(metavar="WEIGHTS …", help=COMPARED)],
    store: Path,
    out: Path,
    tasks: tuple[str, ...] = (),
    reference: str = "resnet18.imagenet",
    size: int = 128,
    sizes: tuple[int, ...] = (64, 96, 128, 192),
    device: Device = "auto",
    html: Html = False,
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

    check_folder(out)
    with stage("compare", show=True):
        from ..distributed import pick_device
        from ..probing.compare import NETWORKS, compare
        from ..store.image_store import ImageStore

        images, torch_device = ImageStore.open(store), pick_device(device).type
        found = compare(networks or NETWORKS, images, out, tasks, reference, size, sizes, torch_device)
        if html:
            from ..probing.comparison_page import comparison_page

            comparison_page(found).write(out / "comparison.html")
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
    html: Html = False,
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
    check_folder(out)
    with stage("few-shot", show=True):
        from ..distributed import pick_device
        from ..probing.few_shot import few_shot
        from ..store.image_store import ImageStore

        images, device_type = ImageStore.open(store), pick_device(device).type
        found = few_shot(targets, images, task, out, counts, draws, size, seed, device=device_type)
        if html:
            from ..probing.comparison_page import few_shot_page

            few_shot_page(found).write(out / "few-shot.html")
    found.show()
    print(f"curves and tables: {out}")


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
        finetuned: a finished run of `c2l finetune chestxray14` on this store; its class activation maps are drawn. By
            default none.
        boxes: BBox_List_2017.csv of ChestX-ray14; its boxes are drawn beside the activation maps; needs --finetuned.
            By default none.
        size: input side for neighbours and map, pixels; by default the weights' own.
        seed: seed of the choice of films, the bootstrap and a random network.
    """
    check_folder(out)
    with stage("look", show=True):
        from ..distributed import pick_device
        from ..inspection.inspect_features import inspect_features
        from ..store.image_store import ImageStore

        images, device_type = ImageStore.open(store), pick_device(device).type
        facts = inspect_features(target, images, out, finetuned, boxes, size, seed, device=device_type)
    print(f"neighbours.png, map.png{', cams.png' if 'cams' in facts else ''} and their description look.md: {out}")


def atlas(
    embeddings: Annotated[Positional[Path], arg(metavar="EMBEDDINGS")],
    out: Path,
    labels: Path | None = None,
    thumbnails: bool = False,
    seed: int = 0,
) -> None:
    """Draw a collection as a map in one HTML page: similar films lie close together, colours are labels.

    The page opens in a browser without a network. It contains the films' paths and labels, and with --thumbnails small
    images of them.

    Args:
        embeddings: the .parquet or .npz file that `c2l embed` wrote, of 3 to 50,000 films.
        out: the .html file.
        labels: a CSV file with a column `path`, relative to its folder, and columns to colour the points by; by
            default none.
        thumbnails: include a small image of each film.
        seed: seed of the map.
    """
    import sys

    check_file(out)
    if out.suffix != ".html":
        raise C2LError(f"expected an .html file as --out, found {out}; change its name")
    with stage("atlas", show=True):
        from c2l_models.embedding import Embeddings

        from ..inspection.atlas import write_atlas

        table = Embeddings.load(embeddings)
        left_out = write_atlas(table, out, labels, thumbnails, seed)
    for path, reason in left_out.items():
        print(f"no thumbnail of {path}: {reason}", file=sys.stderr)
    print(f"{len(table.paths):,} films: {out}")
