"""Which films train a detector and which measure it: by patient, and never a patient whom a start has seen."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from c2l_models.errors import DatasetError

from ..datasets import rsna
from ..datasets.label_tables import summarize
from ..initialization import Initialization
from ..patient_splits import split_patients
from ..store.store_format import INDEX

TRAINING, EVALUATION = "training", "evaluation"
SHARE = 0.2
"""Of all patients, those in the evaluation part."""
NIH = "chestxray14:"


def evaluation_part(patients: NDArray[np.str_], avoid: frozenset[str]) -> NDArray[np.bool_]:
    """Mask, bool [N], of the evaluation part: a fifth of the patients, drawn by hash from those not to be avoided.

    All of the others where they are fewer than a fifth. Neither the order of the films nor a start changes it.

    Raises:
        DatasetError: every patient is to be avoided.
    """
    allowed = ~np.isin(patients, sorted(avoid))
    everyone, able = len(np.unique(patients)), len(np.unique(patients[allowed]))
    if not able:
        raise DatasetError(f"all {everyone:,} patients are among those to avoid; none is left to measure a detector on")
    return allowed & split_patients(patients, SHARE * everyone / able, "detection")


def patients_of(sources: Iterable[Path]) -> frozenset[str]:
    """The patients that stores or lists name, as a store names them.

    A store names all of its patients. A list is a text file with a line each: a name of an image of ChestX-ray14, as
    in its train_val_list.txt (00001336_000.png), or a patient as a store names them (chestxray14:00001336).

    Raises:
        DatasetError: neither a store nor a list, or a line that is neither.
    """
    return frozenset(patient for source in sources for patient in _patients(source))


def check_unseen(start: Initialization, patients: NDArray[np.str_]) -> None:
    """Raise DatasetError if a start was pretrained on a patient of the evaluation part, or if that cannot be told."""
    advice = "keep them out of the evaluation part, for all starts that are compared: --avoid STORE_OR_LIST"
    if start.seen is None:
        told = start.about.get("trained_on", [])
        if not told or any(NIH.rstrip(":") in line for line in told):
            raise DatasetError(
                f"{start.name} may have been pretrained on patients of ChestX-ray14, of whom RSNA's films are, and "
                "nothing tells on which; give the run folder or the release in place of a bare file, or put its "
                "provenance beside it"
            )
        return
    if shared := start.seen.intersection(patients.tolist()):
        raise DatasetError(
            f"{start.name} was pretrained on {len(shared)} of the evaluation part's patients: {summarize(shared)}; "
            f"{advice}"
        )
    unknown = sum(not patient.startswith(NIH) for patient in patients)
    if unknown and any(patient.startswith(NIH) for patient in start.seen):
        raise DatasetError(
            f"{start.name} was pretrained on patients of ChestX-ray14, and of {unknown} evaluation films nothing tells "
            f"whose they are; put RSNA's {rsna.NIH_MAPPING} or a {rsna.NIH_TABLE} beside the label file"
        )


def _patients(source: Path) -> list[str]:
    if (source / INDEX).is_file():
        found: list[str] = pq.read_table(source / INDEX, columns=["patient"])["patient"].to_pylist()
        return found
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(
            f"{source} cannot be read; wanted a folder of `c2l prepare`, or a text file with an image or patient a line"
        ) from None
    return [_patient(line.strip(), source, number) for number, line in enumerate(lines, 1) if line.strip()]


def _patient(text: str, source: Path, number: int) -> str:
    if match := rsna.NIH_IMAGE.fullmatch(text):
        return NIH + match[1]
    if ":" in text and not any(character.isspace() or character == "," for character in text):
        return text
    raise DatasetError(
        f"{source}, line {number}: neither an image of ChestX-ray14, such as 00001336_000.png, nor a patient, such as "
        f"{NIH}00001336"
    )
