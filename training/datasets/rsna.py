"""RSNA Pneumonia Detection Challenge 2018, stage 1 or 2, as distributed on Kaggle.

    stage_2_train_labels.csv             one row per box; one row without a box for an image without pneumonia
    stage_2_detailed_class_info.csv      patientId, class; optional
    stage_2_train_images/<patientId>.dcm, stage_2_test_images/<patientId>.dcm

Stage 1: 25,684 training images in 28,989 rows, and 1,000 test images. Stage 2: 26,684 training images (the training
and test images of stage 1) in 30,227 rows, and 3,000 test images. Source: Shih et al., Radiology: AI 2019.

Despite its name, the challenge's patientId identifies an image. The images come from ChestX-ray14. RSNA publishes the
original name of each image in `pneumonia-challenge-dataset-mappings_2018.json`. If a table `nih_image_index.csv`
(patientId, Image Index) is present, it is used instead. With either file, patients have their ChestX-ray14 ids, so that
leakage between both data sets can be detected.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from c2l_models.errors import DatasetError
from c2l_models.radiographs.listing import names_in

from .dicom_header import dicom_header
from .label_tables import check_coverage, read_table
from .record import Record

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
class ImageLabels:
    """The labels of one image: `pneumonia` 0 or 1, and its boxes."""

    pneumonia: float
    boxes: list[Box]


def records(root: Path) -> list[Record]:
    """One record per image; labels `pneumonia` and `abnormal`, 0 or 1; split "train" or "test".

    If both stages are present, stage 2 is read. `abnormal` means that the class is not Normal; it is absent if the
    class file is missing. Test images have no labels unless `stage_<n>_test_labels.csv` exists. The view is PA or AP,
    read from each file's header (about 10 s for 30,000 files). The challenge was split by image, not by patient: if
    the NIH mapping is present, a patient may be in both splits.

    Raises DatasetError for a malformed id, contradictory rows of an image, an invalid box, a duplicate box, or a
    class file or mapping that is malformed or lists none of the images.
    """
    stage = _stage(root)
    images = {split: _images(root, stage, split) for split in ("train", "test")}
    classes = _classes(root / f"{stage}_detailed_class_info.csv", images["train"])
    patients = _nih_patients(root, images["train"])
    found = []
    for split, labels in images.items():
        for image, image_labels in labels.items():
            path = root / f"{stage}_{split}_images" / f"{image}.dcm"
            found.append(
                Record(
                    path=path,
                    dataset=NAME,
                    patient=patients.get(image, f"{NAME}:{image}"),
                    view=dicom_header(path).get("ViewPosition", ""),
                    split=split,
                    labels=image_labels | classes.get(image, {}),
                    study=f"{NAME}:{image}",
                    body_part="chest",
                )
            )
    return found


def boxes(root: Path) -> dict[Path, list[Box]]:
    """The boxes of each training image: left, top, width and height in pixels; an empty list if it has none."""
    stage = _stage(root)
    rows = _rows(root / f"{stage}_train_labels.csv")
    return {root / f"{stage}_train_images" / f"{image}.dcm": found.boxes for image, found in rows.items()}


def locate_box(root: Path, path: Path, box: Box) -> str:
    """File and line of a training image's box, for a message."""
    table = root / f"{_stage(root)}_train_labels.csv"
    for line, row in read_table(table, ("patientId", *BOX, "Target")):
        if row["patientId"] == path.stem and _target_and_boxes(row, table, line)[1] == [box]:
            return f"{table}, line {line}"
    return str(table)


def _stage(root: Path) -> str:
    return next((stage for stage in STAGES if (root / f"{stage}_train_labels.csv").is_file()), STAGES[0])


def _images(root: Path, stage: str, split: str) -> dict[str, dict[str, float]]:
    """The label `pneumonia` by image; no label for an image of a split without a label file."""
    table = root / f"{stage}_{split}_labels.csv"
    if split == "train" or table.is_file():
        return {image: {"pneumonia": rows.pneumonia} for image, rows in _rows(table).items()}
    files = map(Path, names_in(root / f"{stage}_{split}_images"))
    return {file.stem: {} for file in files if IMAGE.fullmatch(file.stem) and file.suffix == ".dcm"}


def _rows(table: Path) -> dict[str, ImageLabels]:
    """Labels and boxes by image."""
    images: dict[str, ImageLabels] = {}
    for line, row in read_table(table, ("patientId", *BOX, "Target")):
        if not IMAGE.fullmatch(row["patientId"]):
            raise DatasetError(
                f"{table}, line {line}: expected a patientId of the form {EXAMPLE}; download the file again"
            )
        target, boxes_of_row = _target_and_boxes(row, table, line)
        known = images.get(row["patientId"])
        if known is None:
            images[row["patientId"]] = ImageLabels(target, boxes_of_row)
        elif known.pneumonia != target:
            raise DatasetError(
                f"{table}, line {line}: Target differs from an earlier row of this image; correct the line"
            )
        elif not boxes_of_row or boxes_of_row[0] in known.boxes:
            raise DatasetError(f"{table}, line {line}: duplicate row; keep one")
        else:
            known.boxes.extend(boxes_of_row)
    return images


def _target_and_boxes(row: Mapping[str, str], table: Path, line: int) -> tuple[float, list[Box]]:
    """Target of a row, and a list with the row's box, or an empty list."""
    fields = [row[name].strip() for name in BOX]
    if row["Target"] == "0" and not any(fields):
        return 0.0, []
    try:
        x, y, width, height = (float(field) for field in fields)
        if row["Target"] == "1" and width > 0 and height > 0:
            return 1.0, [(x, y, width, height)]
    except ValueError:
        pass
    raise DatasetError(
        f"{table}, line {line}: expected Target 1 with a box, or Target 0 without a box; download the file again"
    )


def _classes(table: Path, images: Collection[str]) -> dict[str, dict[str, float]]:
    """The label `abnormal` by image; empty if the table is missing."""
    classes: dict[str, str] = {}
    for line, row in read_table(table, ("patientId", "class")) if table.is_file() else ():
        if row["class"] not in CLASSES:
            raise DatasetError(
                f"{table}, line {line}: expected class {', '.join(CLASSES)}, found {row['class']!r}; "
                "download the file again"
            )
        if classes.setdefault(row["patientId"], row["class"]) != row["class"]:
            raise DatasetError(
                f"{table}, line {line}: class differs from an earlier row of this image; correct the line"
            )
    if table.is_file():
        check_coverage(table, classes, images)
    return {image: {"abnormal": CLASSES[name]} for image, name in classes.items()}


def _nih_patients(root: Path, images: Collection[str]) -> dict[str, str]:
    """ChestX-ray14 patient by image, from the table or the mapping; empty if neither exists."""
    source = next((root / name for name in (NIH_TABLE, NIH_MAPPING) if (root / name).is_file()), None)
    if source is None:
        return {}
    pairs = _pairs(source)
    check_coverage(source, pairs, images)
    return {image: _nih_patient(nih, source) for image, nih in pairs.items()}


def _pairs(source: Path) -> dict[str, str]:
    """ChestX-ray14 file name by image."""
    if source.suffix == ".csv":
        return {row["patientId"]: row["Image Index"] for _, row in read_table(source, ("patientId", "Image Index"))}
    try:
        return {entry["subset_img_id"]: entry["img_id"] for entry in json.loads(source.read_bytes())}
    except (ValueError, TypeError, KeyError):
        raise DatasetError(
            f"{source}: expected a JSON list of entries with subset_img_id and img_id; download the file again"
        ) from None


def _nih_patient(image: str, source: Path) -> str:
    match = NIH_IMAGE.fullmatch(str(image))
    if not match:
        raise DatasetError(
            f"{source}: expected ChestX-ray14 file names such as 00001336_000.png, found {image!r}; "
            "download the file again"
        )
    return f"chestxray14:{match[1]}"
