"""`c2l look`: pictures of what a network's features hold, and what is said of them."""

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
from ..evaluation.tasks import count_seen_patients
from ..initialization import Initialization, load_initialization
from ..store.image_store import ImageStore
from ..store.store_format import file_sha256
from .cam_sheet import choose_films, draw_cams
from .cams import Finetuned, boxed_films, compute_cams, load_finetuned
from .inspection_report import markdown
from .maps import draw_map, panels
from .neighbours import choose_queries, draw_neighbours, find_neighbours
from .pointing import RULES, Pointing, play
from .samples import DataSet, data_sets, extract

NEIGHBOURS, MAP, CAMS = "neighbours.png", "map.png", "cams.png"
REPORT, FACTS = "look.md", "look.json"


def look(
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
    """Draw neighbours.png, map.png and cams.png into a folder, and say in look.md and, last, look.json what they show.

    neighbours.png and cams.png show films of the store; map.png shows none. Nothing names a patient or a file.

    Args:
        target: as `load_initialization` takes it.
        store: films and labels.
        out: the folder; made where there is none.
        finetuned: folder of a finished run of `c2l finetune chestxray14`, for cams.png.
        boxes: BBox_List_2017.csv, with `finetuned`.
        size: input side in pixels, of neighbours and map; by default the weights' own.
        seed: of the films that are drawn, of the bootstrap, and of a random target.
        bootstrap: number of resamples of whole patients.

    Returns:
        What look.json holds.

    Raises:
        DatasetError: a store without labels or without test films; no box on one of them.
        C2LError: one of `finetuned` and `boxes` alone; a run of another kind, store or architecture; no such target.
    """
    began = time.perf_counter()
    if (finetuned is None) != (boxes is None):
        raise C2LError(
            "activation maps want both: --finetuned, a run of `c2l finetune chestxray14`, and --boxes, a file"
        )
    sets = data_sets(store, seed)
    train, test = (np.concatenate([getattr(films, part) for films in sets]) for part in ("train", "test"))
    chosen = load_initialization(target, size=size, seed=seed, store=store, device=device, calibrate_on=train)
    if finetuned and boxes:  # before the features, which take long
        run = load_finetuned(finetuned, store, chosen.architecture)
        boxed = boxed_films(store, boxes, run.learnt)
    known, asked = (extract(chosen, store, rows, device) for rows in (train, test))
    out.mkdir(parents=True, exist_ok=True)
    found = find_neighbours(store, known, asked, choose_queries(sets, seed))
    facts = _facts(chosen, store, sets, seed)
    facts["neighbours"] = draw_neighbours(out / NEIGHBOURS, sets, store, found)
    drawn = panels(sets, known, asked)
    draw_map(out / MAP, drawn, f"{chosen.name}: features of test films, on components of the training films' features")
    facts["map"] = {panel.plane.films: [round(float(share), 4) for share in panel.plane.shares] for panel in drawn}
    if finetuned and boxes:
        cams = compute_cams(run, store, boxed, device)
        shown = choose_films(boxed, seed)
        height, width = cams[0].map.shape
        finetuned_name = f"{run.result.initialization}, fine-tuned on {run.result.task}"
        title = f"{finetuned_name}: class-activation maps of {height} by {width} cells"
        draw_cams(out / CAMS, store, [boxed[i] for i in shown], [cams[i] for i in shown], title)
        pointing = play(boxed, cams, store.patients[[one.row for one in boxed]], bootstrap, seed)
        listed = {"file": boxes.name, "sha256": file_sha256(boxes), "boxes": len(chestxray14.boxes(boxes))}
        facts["cams"] = {
            **_about(run),
            "map": [height, width],
            "boxes": listed,
            "drawn": len(shown),
            "maps_without_a_cell_for_the_finding": sum(bool(cam.map.max() <= 0) for cam in cams),
            "bootstrap": bootstrap,
            "pointing_game": _figures(pointing),
        }
    facts["seconds"] = round(time.perf_counter() - began, 1)
    write_atomically(out / REPORT, markdown(facts).encode())
    write_atomically(out / FACTS, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    return facts


def _facts(chosen: Initialization, store: ImageStore, sets: list[DataSet], seed: int) -> dict[str, Any]:
    return {
        "target": chosen.name,
        **chosen.about,
        "size": chosen.size,
        "mean": chosen.mean,
        "std": chosen.std,
        "seed": seed,
        "store_sha256": store.sha256,
        "store_size": store.size,
        "data_sets": {
            films.name: {
                "training_films": len(films.train),
                "test_films": len(films.test),
                "test_patients": len(set(store.patients[films.test])),
                "test_patients_seen_in_pretraining": count_seen_patients(chosen.seen, store.patients[films.test]),
            }
            for films in sets
        },
        "versions": {name: version(name) for name in ("c2l-models", "torch", "timm", "scikit-learn")},
    }


def _about(run: Finetuned) -> dict[str, Any]:
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


def _figures(pointing: Pointing) -> dict[str, Any]:
    """Each finding's films, patients and metrics, as JSON knows them."""
    return {
        name: {
            "films": films,
            "patients": patients,
            **{rule: estimate_as_json(pointing.figure(name, rule)) for rule in RULES},
            **{f"map minus {rule}": estimate_as_json(pointing.gain(name, rule)) for rule in RULES[1:]},
        }
        for name, films, patients in zip(pointing.names, pointing.films, pointing.patients, strict=True)
    }
