"""`c2l look`: draw pictures that show how a network's features represent radiographs."""

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from c2l_models.errors import C2LError
from c2l_models.files import write_atomically

from ..datasets import chestxray14
from ..evaluation.result import estimate_as_json
from ..initialization import Initialization, load_initialization
from ..store.image_store import ImageStore
from ..store.store_format import file_sha256
from .cam_sheet import choose_findings, draw_cams
from .cams import FinetunedRun, compute_cams, find_boxed_findings, load_finetuned
from .inspection_report import markdown
from .neighbours import choose_queries, draw_neighbours, find_neighbours
from .pca_map import draw_map, make_panels
from .pointing_game import RULES, HitRates, play_pointing_game
from .samples import DataSetSample, extract, sample_data_sets

NEIGHBOURS, MAP, CAMS = "neighbours.png", "map.png", "cams.png"
REPORT, FACTS = "look.md", "look.json"


def inspect_features(
    target: str,
    store: ImageStore,
    out: Path,
    finetuned: Path | None = None,
    boxes: Path | None = None,
    size: int | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    device: str = "cpu",
) -> dict[str, Any]:
    """Draw neighbours.png, map.png and cams.png, then write look.md, which explains them, and look.json.

    neighbours.png and cams.png show images of the store; map.png shows none. No output names a patient or a file.

    Args:
        target: network, in a form that `load_initialization` accepts.
        store: images and labels.
        out: output folder; created if necessary.
        finetuned: folder of a finished run of `c2l finetune chestxray14`, for cams.png.
        boxes: BBox_List_2017.csv; required with `finetuned`.
        size: input side in pixels for neighbours and map; default: the input size of the weights.
        seed: seed of the drawn images, of the bootstrap, and of a random target.
        bootstrap: number of resamples of whole patients.
        device: torch device.

    Returns:
        The content of look.json.

    Raises:
        DatasetError: a store without labels or without test images, or no box on a test image.
        C2LError: only one of `finetuned` and `boxes`; a run of another kind, store or architecture; unknown target.
    """
    started = time.perf_counter()
    if (finetuned is None) != (boxes is None):
        raise C2LError(
            "activation maps need both --finetuned (a run of `c2l finetune chestxray14`) and --boxes "
            "(BBox_List_2017.csv); expected both or neither"
        )
    samples = sample_data_sets(store, seed)
    train, test = (np.concatenate([getattr(sample, part) for sample in samples]) for part in ("train", "test"))
    init = load_initialization(target, size=size, seed=seed, store=store, device=device, calibrate_on=train)
    if finetuned and boxes:  # before the slow extraction of features, so that errors are raised early
        run = load_finetuned(finetuned, store, init.architecture)
        boxed = find_boxed_findings(store, boxes, run.learned)
    train_features, test_features = (extract(init, store, rows, device) for rows in (train, test))
    out.mkdir(parents=True, exist_ok=True)
    neighbours = find_neighbours(store, train_features, test_features, choose_queries(samples, seed))
    facts = _facts(init, store, samples, seed)
    facts["neighbours"] = draw_neighbours(out / NEIGHBOURS, samples, store, neighbours)
    panels = make_panels(samples, train_features, test_features)
    draw_map(out / MAP, panels, f"{init.name}: test films on the principal components of the training films' features")
    facts["map"] = {panel.plane.name: [round(float(share), 4) for share in panel.plane.shares] for panel in panels}
    if finetuned and boxes:
        cams = compute_cams(run, store, boxed, device)
        shown = choose_findings(boxed, seed)
        height, width = cams[0].map.shape
        finetuned_name = f"{run.result.initialization}, fine-tuned on {run.result.task}"
        title = f"{finetuned_name}: class-activation maps of {height} by {width} cells"
        draw_cams(out / CAMS, store, [boxed[i] for i in shown], [cams[i] for i in shown], title)
        rates = play_pointing_game(boxed, cams, store.patients[[one.row for one in boxed]], bootstrap, seed)
        listed = {"file": boxes.name, "sha256": file_sha256(boxes), "boxes": len(chestxray14.boxes(boxes))}
        facts["cams"] = {
            **_run_facts(run),
            "map": [height, width],
            "boxes": listed,
            "drawn": len(shown),
            "maps_without_positive_cell": sum(bool(cam.map.max() <= 0) for cam in cams),
            "bootstrap": bootstrap,
            "pointing_game": _hit_rates(rates),
        }
    facts["seconds"] = round(time.perf_counter() - started, 1)
    write_atomically(out / REPORT, markdown(facts).encode())
    write_atomically(out / FACTS, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    return facts


def _facts(init: Initialization, store: ImageStore, samples: list[DataSetSample], seed: int) -> dict[str, Any]:
    return {
        "target": init.name,
        **init.about,
        "size": init.size,
        "mean": init.mean,
        "std": init.std,
        "seed": seed,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "data_sets": {
            sample.name: {
                "training_films": len(sample.train),
                "test_films": len(sample.test),
                "test_patients": len(set(store.patients[sample.test])),
                "test_patients_seen_in_pretraining": init.count_seen(store.patients[sample.test]),
            }
            for sample in samples
        },
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm", "scikit-learn")},
    }


def _run_facts(run: FinetunedRun) -> dict[str, Any]:
    facts = run.result.facts
    return {
        "start": run.result.initialization,
        "architecture": run.result.architecture,
        "weights_sha256": run.about["sha256"],
        "size": run.about["size"],
        "epoch": facts["epoch"],
        "mean_auroc": estimate_as_json(run.result.metrics["mean"]),
        "test_patients_seen_in_pretraining": facts["test_patients_seen_in_pretraining"],
    }


def _hit_rates(rates: HitRates) -> dict[str, Any]:
    """Number of films and patients, and hit rates, of each finding, as JSON values."""
    return {
        name: {
            "films": images,
            "patients": patients,
            **{rule: estimate_as_json(rates.rate(name, rule)) for rule in RULES},
            **{f"map_minus_{rule}": estimate_as_json(rates.map_minus(name, rule)) for rule in RULES[1:]},
        }
        for name, images, patients in zip(rates.names, rates.images, rates.patients, strict=True)
    }
