"""`Record`: one image of a data set, with its patient, study, view, split and labels."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from c2l_models.errors import DatasetError


@dataclass(frozen=True)
class Record:
    """One image of a data set, as the distribution describes it.

    Attributes:
        path: the file, under the data set's root; it may be missing on disk.
        dataset: the data set's name.
        patient: a public id, such as "chestxray14:00001336", or a keyed hash.
        view: a view code of `datasets.toml`, or empty.
        split: a split name of `datasets.toml`.
        labels: value by label name; a label that is NaN or absent is unknown.
        study: the study's id, public or hashed like `patient`, or empty.
        name: replaces the path in a store's index if the path contains private patient numbers. If empty, the index
            shows the path.
        body_part: a code of `datasets.toml`, or empty.
        source: where the image comes from, such as a hospital of the data set; if empty, the data set's name.
        pretraining_only: whether the image is for pretraining without labels only, never for a labelled task.
    """

    path: Path
    dataset: str
    patient: str
    view: str
    split: str
    labels: Mapping[str, float]
    study: str = ""
    name: str = ""
    body_part: str = ""
    source: str = ""
    pretraining_only: bool = False


def relative_path(path: Path, root: Path) -> str:
    """The path relative to the root, with `/` (much faster than pathlib's `relative_to`).

    Raises DatasetError, which names only the root, if the path is outside it.
    """
    inside = str(path).removeprefix(_prefix(root))
    if os.path.isabs(inside) or ".." in inside.split(os.sep):  # noqa: PTH117, PTH206 - called for a million paths
        raise DatasetError(
            f"{root}: a label file names a file outside this folder; correct the label file or download it again"
        )
    return inside.replace(os.sep, "/")


@cache
def _prefix(root: Path) -> str:
    return str(root / "_")[:-1]  # ends with a separator; empty for the working directory
