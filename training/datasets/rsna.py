"""RSNA Pneumonia Detection Challenge 2018, stage 1 or 2, as distributed on Kaggle.

    stage_2_train_labels.csv             a row a box, or one without a box for an image without pneumonia
    stage_2_detailed_class_info.csv      patientId, class; optional
    stage_2_train_images/<patientId>.dcm, stage_2_test_images/<patientId>.dcm

Stage 1: 25,684 training images in 28,989 rows, and 1,000 test images. Stage 2: 26,684 (those of stage 1's
training and test) in 30,227 rows, and 3,000 test images. Source: Shih et al., Radiology: AI 2019.

The challenge's patientId is one of an image. The images are of ChestX-ray14, and RSNA says which:
`pneumonia-challenge-dataset-mappings_2018.json`, or a table `nih_image_index.csv` (patientId, Image Index).
With either, a patient is ChestX-ray14's, so that leakage between the two sets shows.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .dicom_header import dicom_header
from .record import Record, check_match, read_table

NAME = "rsna"
STAGES = ("stage_2", "stage_1")
CLASSES = {"Normal": 0.0, "No Lung Opacity / Not Normal": 1.0, "Lung Opacity": 1.0}
NIH_TABLE, NIH_MAPPING = "nih_image_index.csv", "pneumonia-challenge-dataset-mappings_2018.json"
IMAGE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
EXAMPLE = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
NIH_IMAGE = re.compile(r"(\d{8})_\d{3}\.png")

BOX = ("x", "y", "width", "height")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Rows:
    """What the rows of one image say: `pneumonia` 0 or 1, and the boxes."""

    pneumonia: float
    boxes: list[Box]


def records(root: Path) -> list[Record]:
    """One record an image; labels `pneumonia` and `abnormal`, 0 or 1; split "train" or "test".

    Where both stages are there, stage 2 is read. `abnormal` is that the class is not Normal, and absent without
    the class file; test images have no labels unless there is a `stage_<n>_test_labels.csv`. The view is PA or AP,
    read from each file's header (30,000 take some 10 s). The challenge split images, not patients: with the NIH
    mapping a patient may be in both splits.

    Raises DatasetError for an id of another form, rows of an image that do not agree, a box that is none, the same
    box twice, or a class file or mapping that is not of its form, or of none of the images.
    """
    stage = _stage(root)
    images = {split: _images(root, stage, split) for split in ("train", "test")}
    classes = _classes(root / f"{stage}_detailed_class_info.csv", images["train"])
    patients = _nih_patients(root, images["train"])
    found = []
    for split, labels in images.items():
        for image, known in labels.items():
            path = root / f"{stage}_{split}_images" / f"{image}.dcm"
            found.append(
                Record(
                    path=path,
                    dataset=NAME,
                    patient=patients.get(image, f"{NAME}:{image}"),
                    view=dicom_header(path).get("ViewPosition", ""),
                    split=split,
                    labels=known | classes.get(image, {}),
                    study=f"{NAME}:{image}",
                )
            )
    return found


def boxes(root: Path) -> dict[Path, list[Box]]:
    """Left, top, width and height in pixels of each box of each training image; an empty list where there is none."""
    stage = _stage(root)
    rows = _rows(root / f"{stage}_train_labels.csv")
    return {root / f"{stage}_train_images" / f"{image}.dcm": found.boxes for image, found in rows.items()}


def line_of(root: Path, path: Path, box: Box) -> str:
    """Where the labels tell of a training image's box, for a message: the file and its line."""
    table = root / f"{_stage(root)}_train_labels.csv"
    for line, row in read_table(table, ("patientId", *BOX, "Target")):
        if row["patientId"] == path.stem and _target(row, table, line)[1] == [box]:
            return f"{table}, line {line}"
    return str(table)


def _stage(root: Path) -> str:
    return next((stage for stage in STAGES if (root / f"{stage}_train_labels.csv").is_file()), STAGES[0])


def _images(root: Path, stage: str, split: str) -> dict[str, dict[str, float]]:
    """The label `pneumonia` of each image of a split, where there is one."""
    table = root / f"{stage}_{split}_labels.csv"
    if split == "train" or table.is_file():
        return {image: {"pneumonia": rows.pneumonia} for image, rows in _rows(table).items()}
    files = map(Path, names_in(root / f"{stage}_{split}_images"))
    return {file.stem: {} for file in files if IMAGE.fullmatch(file.stem) and file.suffix == ".dcm"}


def _rows(table: Path) -> dict[str, Rows]:
    """The rows of each image."""
    images: dict[str, Rows] = {}
    for line, row in read_table(table, ("patientId", *BOX, "Target")):
        if not IMAGE.fullmatch(row["patientId"]):
            raise DatasetError(f"{table}, line {line}: patientId is not of the form of {EXAMPLE}; fetch the file again")
        target, box = _target(row, table, line)
        known = images.get(row["patientId"])
        if known is None:
            images[row["patientId"]] = Rows(target, box)
        elif known.pneumonia != target:
            raise DatasetError(f"{table}, line {line}: Target is not that of the image's row before; mend it")
        elif not box or box[0] in known.boxes:
            raise DatasetError(f"{table}, line {line}: the same row again; keep one")
        else:
            known.boxes.extend(box)
    return images


def _target(row: Mapping[str, str], table: Path, line: int) -> tuple[float, list[Box]]:
    """Target, and the row's box where it has one."""
    fields = [row[name].strip() for name in BOX]
    if row["Target"] == "0" and not any(fields):
        return 0.0, []
    try:
        x, y, width, height = (float(field) for field in fields)
        if row["Target"] == "1" and width > 0 and height > 0:
            return 1.0, [(x, y, width, height)]
    except ValueError:
        pass
    raise DatasetError(f"{table}, line {line}: wanted Target 1 and a box, or Target 0 and none; fetch the file again")


def _classes(table: Path, images: Collection[str]) -> dict[str, dict[str, float]]:
    """The label `abnormal` of each image; none without the table."""
    classes: dict[str, str] = {}
    for line, row in read_table(table, ("patientId", "class")) if table.is_file() else ():
        if row["class"] not in CLASSES:
            raise DatasetError(f"{table}, line {line}: class {row['class']!r} is none of {', '.join(CLASSES)}")
        if classes.setdefault(row["patientId"], row["class"]) != row["class"]:
            raise DatasetError(f"{table}, line {line}: class is not that of the image's row before; mend it")
    if table.is_file():
        check_match(table, classes, images)
    return {image: {"abnormal": CLASSES[name]} for image, name in classes.items()}


def _nih_patients(root: Path, images: Collection[str]) -> dict[str, str]:
    """ChestX-ray14's patient of each image, by whichever mapping there is."""
    source = next((root / name for name in (NIH_TABLE, NIH_MAPPING) if (root / name).is_file()), None)
    if source is None:
        return {}
    pairs = _pairs(source)
    check_match(source, pairs, images)
    return {image: _nih_patient(nih, source) for image, nih in pairs.items()}


def _pairs(source: Path) -> dict[str, str]:
    """ChestX-ray14's name of each image."""
    if source.suffix == ".csv":
        return {row["patientId"]: row["Image Index"] for _, row in read_table(source, ("patientId", "Image Index"))}
    try:
        return {entry["subset_img_id"]: entry["img_id"] for entry in json.loads(source.read_bytes())}
    except (ValueError, TypeError, KeyError):
        raise DatasetError(
            f"{source} is no JSON list of entries with subset_img_id and img_id; fetch it again"
        ) from None


def _nih_patient(image: str, source: Path) -> str:
    match = NIH_IMAGE.fullmatch(str(image))
    if not match:
        raise DatasetError(f"{source}: {image!r} is no image of ChestX-ray14, such as 00001336_000.png")
    return f"chestxray14:{match[1]}"
