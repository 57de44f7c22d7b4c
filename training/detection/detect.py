"""`c2l detect rsna`: a start fine-tuned to find pneumonia, and how well it does (table 5)."""

import csv
import hashlib
import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from c2l_models.errors import RunError
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import FILE_NAME

from ..datasets import rsna
from ..distributed import pick_device
from ..evaluation.result import Result
from ..evaluation.rsna_challenge import DetectedBoxes
from ..initialization import Initialization, load_initialization
from ..run_files import checkpoint
from ..run_files.run_folder import LIBRARIES, code_version, machine_name
from .box_metrics import measure_boxes
from .box_sheet import draw_boxes
from .detection_report import write_report
from .detector import build_detector
from .images import Films, load_films
from .patients import EVALUATION, TRAINING, check_unseen, patients_of
from .predict import predict
from .settings import Settings
from .train import train

SETTINGS, DETECTIONS, SPLIT, PICTURE = "settings.json", "detections.json", "split.csv", "boxes.png"


def detect(
    start: str,
    data: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
    avoid: Sequence[Path] = (),
    store: Path | None = None,
    workers: int | None = None,
) -> Result:
    """Fine-tune a detector from a start on the training part, and measure it on the evaluation part.

    Args:
        start: as `load_initialization` takes it.
        data: the challenge's folder, stage 1 or 2, as distributed.
        out: run folder, which is made; gets settings.json, split.csv, log.jsonl, tensorboard/, checkpoints/ while it
            trains, model.safetensors, detections.json (of the evaluation part: left, top, width and height in the
            film's own pixels, and confidence), boxes.png, report.md, report.csv, figures.npz and result.json.
        settings: the defaults where None.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        resume: go on with the run in `out`, or begin where there is none; a finished one is read.
        progress: show bars.
        avoid: stores and lists, as `split.patients_of` takes them: their patients are never in the evaluation part.
            For starts to be compared, give each run all that any of them has seen.
        store: folder for the decoded films, made or taken; by default one beside `out`, for runs beside it to share.
        workers: decoding processes; by default one a core.

    Raises:
        RunError: `out` exists and `resume` is not set, or is of another run; the loss is not finite.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint is written.
        DatasetError: see `load_films`; or the start has seen a patient of the evaluation part.
        C2LError: see `load_initialization`; an architecture that detection is not made for.
    """
    settings = settings or Settings()
    if out.exists() and not resume:
        raise RunError(f"{out} exists; choose another folder, or go on with that run: --resume")
    place = pick_device(device)
    store = store or out.parent / f"{rsna.NAME}-{settings.size}"
    films = load_films(data, store, settings.size, patients_of(avoid), workers, progress)
    begun = load_initialization(
        start, seed=settings.seed, device=place
    )  # its batch norm is trained on: no calibration at `size`
    evaluated = films.of(EVALUATION)
    check_unseen(begun, films.patients[evaluated])
    description = {
        "settings": asdict(settings),
        "start": begun.name,
        "start_sha256": _fingerprint(begun.network),
        "store_sha256": films.store.sha256,
        "split_sha256": hashlib.sha256(_split(films)).hexdigest(),
        "device": place.type,
    }
    detector = build_detector(begun, settings.size, settings.seed).to(place)
    _begin(out, description)
    write_atomically(out / SPLIT, _split(films))
    if Result.is_done(out):
        return Result.read(out)
    seconds = train(detector, films, settings, out, place, progress)
    write_atomically(out / FILE_NAME, safetensors.torch.save(_contiguous(detector), {"about": json.dumps(description)}))
    began = time.monotonic()
    predictions = predict(detector, films, evaluated, settings.batch_size, place, progress)
    boxes = [films.boxes[i] for i in evaluated]
    metrics = measure_boxes(predictions, boxes, films.patients[evaluated], settings.bootstrap)
    facts = _facts(begun, films, settings) | {
        "device": machine_name(place),
        "seconds": round(seconds + time.monotonic() - began, 1),
        "seconds a step": round(seconds / settings.total_steps(len(films.of(TRAINING))), 3),
    }
    result = Result("detect", begun.name, begun.architecture, rsna.NAME, settings.seed, metrics, facts)
    write_atomically(out / DETECTIONS, _detections(films, predictions).encode())
    draw_boxes(out / PICTURE, films, evaluated, predictions, begun.name)
    write_report(out, result)
    result.write(out)
    shutil.rmtree(out / checkpoint.FOLDER, ignore_errors=True)  # hundreds of megabytes that nothing needs any more
    return result


def _begin(out: Path, description: dict[str, Any]) -> None:
    """Make the run folder, or see that the one that is there is of the same run."""
    if not out.exists():
        out.mkdir(parents=True)
    elif any(out.iterdir()):
        try:
            began = json.loads((out / SETTINGS).read_text())
            before, now = began | began["settings"], description | description["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{out} is no run of `c2l detect`; choose another folder") from None
        differing = [key for key in now if key != "settings" and before.get(key) != now[key]]
        if differing:
            listed = "; ".join(f"{key}: began with {before.get(key)!r}, now {now[key]!r}" for key in differing)
            raise RunError(f"this run cannot go on, it would be another run: {listed}")
    versions = {library: version(library) for library in LIBRARIES}
    text = json.dumps(description | {"versions": versions, "code": code_version()}, indent=2)
    write_atomically(out / SETTINGS, f"{text}\n".encode())


def _facts(start: Initialization, films: Films, settings: Settings) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "start": start.about,
        "patients that the start is known to have seen": None if start.seen is None else len(start.seen),
        "settings": asdict(settings),
        "steps": settings.total_steps(len(films.of(TRAINING))),
    }
    for part in (TRAINING, EVALUATION):
        positions = films.of(part)
        counts = [len(films.boxes[i]) for i in positions]
        facts[part] = {
            "films": len(positions),
            "patients": len(set(films.patients[positions].tolist())),
            "films with boxes": sum(count > 0 for count in counts),
            "boxes": sum(counts),
        }
    return facts | {"not as they were": films.counts}


def _split(films: Films) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "part"])
    writer.writerows(sorted(films.split))
    return text.getvalue().encode()


def _detections(films: Films, predictions: Sequence[DetectedBoxes]) -> str:
    """A line an image, in JSON; tenths of a pixel of the film."""
    lines = []
    for i, predicted in zip(films.of(EVALUATION), predictions, strict=True):
        boxes = films.squares[i].outward(predicted.boxes).round(1).tolist()
        found = {"boxes": boxes, "scores": predicted.scores.round(4).tolist()}
        lines.append(f"  {json.dumps(films.ids[i])}: {json.dumps(found)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _contiguous(network: nn.Module) -> dict[str, Any]:
    return {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}


def _fingerprint(network: nn.Module) -> str:
    """The sha256 of a network's weights."""
    return hashlib.sha256(safetensors.torch.save(_contiguous(network))).hexdigest()
