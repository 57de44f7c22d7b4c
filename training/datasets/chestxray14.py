"""NIH ChestX-ray14 as distributed: label file, official lists, `images/` or `images_001/images/` …."""

from pathlib import Path

from c2l_models.errors import DatasetError

from .record import Record, label_names, named, read_table, refuse_duplicates, refuse_shared_patients

NAME = "chestxray14"
TABLE = "Data_Entry_2017_v2020.csv"
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}


def records(root: Path) -> list[Record]:
    """One record a row of the label file: all 14 labels 0 or 1, view PA or AP, split "train_val" or "test".

    112,120 images of 30,805 patients, 86,524 of them in train_val; a study is a patient's follow-up number.
    An image that is not on disk still gets a record, at `root/images`. Raises DatasetError if the label file
    and the two official lists do not name the same images once each, if a patient is in both lists, or if a
    finding is unknown.
    """
    table = root / TABLE
    columns = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    rows = dict(read_table(table, columns))
    refuse_duplicates((row["Image Index"] for row in rows.values()), table)
    splits = _splits(root, {row["Image Index"] for row in rows.values()})
    files = _files(root)
    found = []
    for line, row in rows.items():
        image = row["Image Index"]
        patient = f"{NAME}:{_patient(row['Patient ID'], table, line)}"
        found.append(
            Record(
                path=files.get(image, root / "images" / image),
                dataset=NAME,
                patient=patient,
                view=row["View Position"] if row["View Position"] in ("PA", "AP") else "",
                split=splits[image],
                labels=_labels(row["Finding Labels"], table, line),
                study=f"{patient}/{row['Follow-up #']}" if row.get("Follow-up #") else "",
            )
        )
    refuse_shared_patients(found, root)
    return found


def _files(root: Path) -> dict[str, Path]:
    folders = [root / "images", *sorted(root.glob("images_[0-9]*/images"))]
    return {path.name: path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())}


def _splits(root: Path, images: set[str]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, name in LISTS.items():
        if not (root / name).is_file():
            raise DatasetError(f"{root / name} is missing; the official lists belong to the distribution")
        listed = set((root / name).read_text(encoding="utf-8").split())
        if both := listed & splits.keys():
            raise DatasetError(f"{root}: images in both official lists: {named(both)}; fetch the lists again")
        splits.update(dict.fromkeys(listed, split))
    if neither := images - splits.keys():
        raise DatasetError(f"{root / TABLE}: in neither official list: {named(neither)}; fetch them again")
    if unknown := splits.keys() - images:
        raise DatasetError(f"{root}: listed, but not in {TABLE}: {named(unknown)}; fetch it again")
    return splits


def _patient(text: str, table: Path, line: int) -> str:
    if not text.isdecimal():
        raise DatasetError(f"{table}, line {line}: Patient ID {text!r} is no number; fetch the file again")
    return f"{int(text):08d}"


def _labels(findings: str, table: Path, line: int) -> dict[str, float]:
    names = label_names(NAME)
    present = set(findings.split("|")) - {"No Finding"}
    if unknown := present - set(names):
        raise DatasetError(f"{table}, line {line}: unknown finding {named(unknown)}; wanted: {', '.join(names)}")
    return {name: float(name in present) for name in names}
