"""One adapter a data set: a module with `records(root) -> list[Record]`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from c2l_models.radiographs.listing import as_utf8, image_files, list_images

from . import chestxray14, chexpert, folder, knee_kl, mimic_cxr, mura, rsna
from .record import Record, below, constants, label_names

__all__ = [
    "ADAPTERS",
    "NUMBERED_PATHS",
    "PUBLIC",
    "Record",
    "as_utf8",
    "below",
    "image_files",
    "label_names",
    "list_images",
]

ADAPTERS: Mapping[str, Callable[[Path], list[Record]]] = {
    "chestxray14": chestxray14.records,
    "chexpert": chexpert.records,
    "mimic_cxr": mimic_cxr.records,
    "mura": mura.records,
    "rsna": rsna.records,
    "knee_kl": knee_kl.records,
    "folder": folder.records,
}

PUBLIC = frozenset(constants()["public"])
"""Data sets whose patient ids are public."""

NUMBERED_PATHS = frozenset(constants()["numbered_paths"])
"""Data sets whose paths hold numbers of patients that are not public: no message or store may show one."""
