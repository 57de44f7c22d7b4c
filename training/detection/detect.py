"""`c2l detect rsna`: fine-tune a pneumonia detector from an initialization, and evaluate it (Table 5)."""

import hashlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from c2l_models.devices import check_default_dtype
from c2l_models.errors import RunError
from c2l_models.files import write_atomically
from c2l_models.hub.weight_file import FILE_NAME

from ..datasets import rsna
from ..distributed import pick_device
from ..evaluation.csv_text import csv_text
from ..evaluation.result import Result
from ..evaluation.rsna_challenge import DetectedBoxes
from ..initialization import Initialization, check_has_network, load_initialization
from ..run_files import checkpoint
from ..run_files.identity import check_same_settings
from ..run_files.run_folder import LIBRARIES, code_version, machine_name
from ..run_files.run_lock import locked_run_folder, names_in
from .box_metrics import measure_boxes
from .box_sheet import draw_boxes
from .detection_curve import draw_curve
from .detection_report import PICTURE, SETTINGS, write_report
from .detector import build_detector
from .images import DetectionImages, load_images
from .patients import EVALUATION, TRAINING, check_unseen, patients_of
from .predict import predict
from .settings import Settings
from .train import train

DETECTIONS, SPLIT = "detections.json", "split.csv"


def detect(
    spec: str,
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
    """Train a detector on the training part, and evaluate it on the test part.

    Args:
        spec: the initialization, as `load_initialization` takes it.
        data: the challenge's folder, stage 1 or 2, as distributed.
        out: the run's folder. It receives settings.json, split.csv, log.jsonl, tensorboard/, checkpoints/ during
            training, model.safetensors, detections.json, boxes.png, report.md, report.csv, figures.npz, result.json
            and, if there is a curve, curve.csv and curve.png. detections.json holds each box of the test part:
            left, top, width and height in the original image's pixels, and the confidence.
        settings: the run's settings; None: the defaults.
        device: "cpu", "cuda", or "auto": CUDA if available.
        resume: resume the run in `out`, or start it if there is none. If the run is finished, its result is read.
        progress: show progress bars.
        avoid: stores and lists, as `patients_of` takes them; their patients are never in the test part. To
            compare initializations, list for each run all patients that any of the initializations has seen.
        store: folder of the decoded images, built or reused. Default: a folder beside `out`, shared by the runs there.
        workers: decoding processes. Default: one per core.

    Raises:
        RunError: `out` exists and `resume` is not set, it holds another run or is in use, or the loss is not finite.
        RunInterrupted: SIGTERM or Ctrl-C; a checkpoint was written.
        DatasetError: as `load_images`; pretraining saw, or may have seen, a test patient; or there
            are fewer training images than one batch.
        C2LError: as `load_initialization`; or the architecture is not supported.
    """
    check_has_network(spec)
    settings = settings or Settings()
    with locked_run_folder(out, resume):
        check_default_dtype()
        used_device = pick_device(device)
        store = store or out.parent / f"{rsna.NAME}-{settings.size}"
        images = load_images(data, store, settings.size, patients_of(avoid), workers, progress)
        # Batch norm is not calibrated at `size`, because it is trained.
        init = load_initialization(spec, seed=settings.seed, device=used_device)
        evaluated = images.of(EVALUATION)
        check_unseen(init, images.patients[evaluated])
        identity = {
            "settings": settings.to_dict(),
            "start": init.name,
            "start_sha256": _fingerprint(init.network),
            "store_sha256": images.store.sha256,
            "split_sha256": hashlib.sha256(_split_csv(images)).hexdigest(),
            "device": used_device.type,
        }
        detector = build_detector(init, settings.size, settings.seed, settings.head).to(used_device)
        _open_folder(out, identity)
        write_atomically(out / SPLIT, _split_csv(images))
        if Result.is_done(out):
            return Result.read(out)
        boxes = [images.boxes[i] for i in evaluated]

        def detected(progress: bool = False) -> list[DetectedBoxes]:
            batch, precision = settings.batch_size, settings.precision
            return predict(detector, images, evaluated, batch, used_device, progress, precision)

        def point_of_curve() -> dict[str, float]:
            metrics = measure_boxes(detected(), boxes, images.patients[evaluated], bootstrap=0)
            return dict(zip(metrics.names, metrics.values.tolist(), strict=True))

        seconds = train(detector, images, settings, out, used_device, progress, point_of_curve)
        weights = safetensors.torch.save(_contiguous(detector), {"about": json.dumps(identity)})
        write_atomically(out / FILE_NAME, weights)
        began = time.monotonic()
        predictions = detected(progress)
        metrics = measure_boxes(predictions, boxes, images.patients[evaluated], settings.bootstrap)
        facts = _facts(init, images, settings) | {
            "device": machine_name(used_device),
            "seconds": round(seconds + time.monotonic() - began, 1),
            "seconds_per_step": round(seconds / settings.total_steps(len(images.of(TRAINING))), 3),
        }
        result = Result("detect", init.name, init.architecture, rsna.NAME, settings.seed, metrics, facts)
        write_atomically(out / DETECTIONS, _detections_json(images, predictions).encode())
        draw_boxes(out / PICTURE, images, evaluated, predictions, init.name)
        if settings.curve_every:
            draw_curve(out, init.name)
        write_report(out, result)
        result.write(out)
        checkpoint.remove(out)
        return result


def _open_folder(out: Path, identity: dict[str, Any]) -> None:
    """Write the settings to a new run's folder, or check that the folder holds the same run. Raises RunError.

    The versions and the code are those that the run began with.
    """
    if names_in(out):
        try:
            saved = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
            # A setting that is newer than the run has its default, which keeps what earlier versions computed.
            before = saved | Settings().to_dict() | saved["settings"]
            now = identity | identity["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{out}: expected a run of `c2l detect`, found other files; choose another folder") from None
        del now["settings"]  # its keys are in `now` one by one
        check_same_settings(out, {key: before.get(key) for key in now}, now)
        return
    versions = {library: version(library) for library in LIBRARIES}
    text = json.dumps(identity | {"versions": versions, "code": code_version()}, indent=2)
    write_atomically(out / SETTINGS, f"{text}\n".encode())


def _facts(init: Initialization, images: DetectionImages, settings: Settings) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "start": init.about,
        "patients_seen_in_pretraining": None if init.seen is None else len(init.seen),
        "settings": settings.to_dict(),
        "steps": settings.total_steps(len(images.of(TRAINING))),
    }
    for part in (TRAINING, EVALUATION):
        positions = images.of(part)
        counts = [len(images.boxes[i]) for i in positions]
        facts[part] = {
            "films": len(positions),
            "patients": len(set(images.patients[positions].tolist())),
            "films_with_boxes": sum(count > 0 for count in counts),
            "boxes": sum(counts),
        }
    return facts | {"adjusted": images.adjusted}


def _split_csv(images: DetectionImages) -> bytes:
    return csv_text([("image", "part"), *sorted(images.split)]).encode()


def _detections_json(images: DetectionImages, predictions: Sequence[DetectedBoxes]) -> str:
    """JSON with one line per image. Boxes are rounded to tenths of an original pixel."""
    lines = []
    for i, predicted in zip(images.of(EVALUATION), predictions, strict=True):
        boxes = images.squares[i].outward(predicted.boxes).round(1).tolist()
        detected = {"boxes": boxes, "scores": predicted.scores.round(4).tolist()}
        lines.append(f"  {json.dumps(images.ids[i])}: {json.dumps(detected)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _contiguous(network: nn.Module) -> dict[str, Any]:
    return {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}


def _fingerprint(network: nn.Module) -> str:
    """The sha256 of a network's weights."""
    return hashlib.sha256(safetensors.torch.save(_contiguous(network))).hexdigest()
