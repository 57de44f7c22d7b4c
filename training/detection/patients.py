"""Draw the challenge's test part by patient, and check that pretraining saw none of its patients."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from c2l_models.errors import DatasetError
from c2l_models.releases.training_data import NOT_RECORDED, UNKNOWN_IMAGES

from ..datasets import chestxray14, rsna
from ..datasets.label_tables import summarize
from ..initialization import Initialization
from ..patient_splits import split_patients
from ..store.store_format import INDEX

TRAINING, EVALUATION = "training", "evaluation"
"""The parts in split.csv and result.json. The second one is the test part."""
SHARE = 0.2
"""Share of all patients in the test part."""
NIH, UNMAPPED = f"{chestxray14.NAME}:", f"{rsna.NAME}:"
"""The start of the id of a patient of ChestX-ray14, and of an RSNA image whose patient is unknown."""

MAY_BE_NIH = (chestxray14.NAME, rsna.NAME, NOT_RECORDED, UNKNOWN_IMAGES)
"""Texts in `trained_on` of weights that may have seen patients of ChestX-ray14."""
_ADD_MAPPING = f"put RSNA's {rsna.NIH_MAPPING} or a {rsna.NIH_TABLE} beside the label file"


def evaluation_part(patients: NDArray[np.str_], avoid: frozenset[str]) -> NDArray[np.bool_]:
    """Draw the test part by a hash of the ids: about a fifth of all patients, chosen among those not in `avoid`.

    If fewer than a fifth of all patients are outside `avoid`, all of these are drawn. The order of the images does not
    matter.

    Args:
        patients: [N] ids, one per image.
        avoid: patients who are never in the test part.

    Returns:
        Mask, bool [N].

    Raises:
        DatasetError: all patients are in `avoid`, or some cannot be compared with it, because the patients of RSNA
            images are unknown.
    """
    _check_mapped("the patients to avoid", avoid, patients)
    unknown = _count_unmapped(patients)
    if unknown and any(patient.startswith(NIH) for patient in avoid):
        raise DatasetError(
            f"the patients to avoid are of ChestX-ray14, and the patients of {unknown} RSNA images are unknown; "
            f"{_ADD_MAPPING}"
        )
    allowed = ~np.isin(patients, sorted(avoid))
    everyone, available = len(np.unique(patients)), len(np.unique(patients[allowed]))
    if not available:
        raise DatasetError(
            f"expected patients for the test part, found all {everyone:,} among those to avoid; avoid fewer"
        )
    return allowed & split_patients(patients, SHARE * everyone / available, "detection")


def patients_of(sources: Iterable[Path]) -> frozenset[str]:
    """Read the patients of stores and lists, named as in a store.

    A store contributes all its patients. A list is a text file with one entry per line: an image of ChestX-ray14, as in
    its train_val_list.txt (00001336_000.png), or a patient as in a store (chestxray14:00001336).

    Raises:
        DatasetError: a source is neither a store nor a list, or a line is neither an image nor a patient.
    """
    return frozenset(patient for source in sources for patient in _patients(source))


def check_unseen(init: Initialization, patients: NDArray[np.str_]) -> None:
    """Raise DatasetError if pretraining saw, or may have seen, a test patient."""
    if init.seen is None:
        trained_on = init.about.get("trained_on", [])
        if not trained_on or any(text in line for line in trained_on for text in MAY_BE_NIH):
            raise DatasetError(
                f"{init.name}: expected a list of its pretraining patients, found none; it may have seen RSNA's "
                "images, or patients of ChestX-ray14, from which they are taken; pass the run folder or the release "
                "instead of a weight file, or put the file's provenance beside it; of weights trained on other images, "
                "state these with `c2l convert --trained-on`"
            )
        return
    _check_mapped(f"the pretraining patients of {init.name}", init.seen, patients)
    if shared := init.seen.intersection(patients.tolist()):
        raise DatasetError(
            f"{init.name} was pretrained on {len(shared)} of the test patients: {summarize(shared)}; exclude "
            "these patients from the test part of all compared runs: --avoid STORE_OR_LIST"
        )
    unknown = _count_unmapped(patients)
    if unknown and any(patient.startswith((NIH, UNMAPPED)) for patient in init.seen):
        raise DatasetError(
            f"{init.name} was pretrained on patients of ChestX-ray14 or RSNA, and the patients of {unknown} test "
            f"images are unknown; {_ADD_MAPPING}"
        )


def _count_unmapped(patients: Iterable[str]) -> int:
    """Number of ids of RSNA images whose patients are unknown."""
    return sum(patient.startswith(UNMAPPED) for patient in patients)


def _check_mapped(what: str, known: frozenset[str], patients: NDArray[np.str_]) -> None:
    """Raise DatasetError if `known` names RSNA images, which cannot be compared with patients of ChestX-ray14."""
    unmapped = _count_unmapped(known)
    if unmapped and any(patient.startswith(NIH) for patient in patients.tolist()):
        raise DatasetError(
            f"{what}: expected ids of ChestX-ray14 ({NIH}…), as the challenge's images have here, found {unmapped} "
            f"RSNA images of unknown patients; prepare their store again with RSNA's {rsna.NIH_MAPPING} or a "
            f"{rsna.NIH_TABLE} beside the label file"
        )


def _patients(source: Path) -> list[str]:
    if (source / INDEX).is_file():
        found: list[str] = pq.read_table(source / INDEX, columns=["patient"])["patient"].to_pylist()
        return found
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(
            f"{source} cannot be read; expected a folder of `c2l prepare`, or a text file with one image or patient "
            "per line"
        ) from None
    return [_patient(line.strip(), source, number) for number, line in enumerate(lines, 1) if line.strip()]


def _patient(text: str, source: Path, number: int) -> str:
    if match := rsna.NIH_IMAGE.fullmatch(text):
        return NIH + match[1]
    if ":" in text and not any(character.isspace() or character == "," for character in text):
        return text
    raise DatasetError(
        f"{source}, line {number}: expected an image of ChestX-ray14, such as 00001336_000.png, or a patient, such as "
        f"{NIH}00001336, found {text!r}; correct the line"
    )
