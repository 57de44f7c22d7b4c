"""One adapter a data set: a module with `records(root) -> list[Record]`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from . import chestxray14, chexpert, folder, knee_kl, mimic_cxr, mura, rsna
from .folder import image_files
from .record import Record, constants, label_names

__all__ = ["ADAPTERS", "PUBLIC", "Record", "image_files", "label_names"]

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
