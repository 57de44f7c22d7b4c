"""The reader of each data set: an adapter module, or a description of a folder."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from c2l_models.errors import DatasetError

from .constants import PUBLIC, constants
from .description import DESCRIPTIONS, FILE, Description, load_description
from .record import Record

ADAPTERS: Mapping[str, Callable[[Path], list[Record]]] = {
    name: import_module(f"{__package__}.{name}").records for name in constants()["datasets"]
}
"""The adapter of each data set in `datasets.toml`: the function `records` of the module with the data set's name."""


def described_data_sets() -> list[str]:
    """Names of the data sets in `descriptions/`, sorted."""
    return sorted(path.stem for path in DESCRIPTIONS.glob("*.toml"))


def public_data_sets() -> frozenset[str]:
    """Data sets with an adapter or a shipped description whose patient ids are public."""
    described = (load_description(DESCRIPTIONS / f"{name}.toml") for name in described_data_sets())
    return PUBLIC | {description.name for description in described if description.public_patient_ids}


def find_description(name: str, root: Path) -> Description | None:
    """The description of a data set that no adapter reads; None for an adapter's data set and an undescribed folder.

    Args:
        name: a data set of `descriptions/`; a path of a `.toml` file; or the name in `root/dataset.toml`, for which
            "folder" may stand.
        root: the data set's folder.

    Raises DatasetError if the name is unknown, if `root/dataset.toml` has another name, if a description has the name
    of another data set, or as `load_description`.
    """
    shipped = described_data_sets()
    names = [*ADAPTERS, *shipped]
    if name in ADAPTERS and name != "folder":
        return None
    if name in shipped:
        return load_description(DESCRIPTIONS / f"{name}.toml")
    if name.endswith(".toml"):
        file = Path(name)
    elif (root / FILE).is_file():
        file = root / FILE
    elif name == "folder":
        return None
    else:
        raise DatasetError(
            f"unknown data set {name}; choose from {', '.join(names)}, or describe the folder in {root / FILE}"
        )
    description = load_description(file)
    if description.name in names:
        raise DatasetError(f"{file}: name: {description.name} is another data set's name; choose another name")
    if not name.endswith(".toml") and name not in ("folder", description.name):
        raise DatasetError(f"{file}: name: expected {name}, found {description.name}; give {description.name}={root}")
    return description
