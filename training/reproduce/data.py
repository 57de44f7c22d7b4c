"""Raw folders of data sets, and the image stores made from them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_models.errors import C2LError, DatasetError

from ..datasets.adapters import ADAPTERS, described_data_sets
from ..datasets.constants import constants
from ..datasets.description import matches
from ..store.image_store import ImageStore
from ..store.prepare import prepare
from ..store.store_format import DESCRIPTION
from .plan import known_name


class DataMissing(C2LError):
    """A row needs a data set that --data does not name."""


def find_data(given: Sequence[str]) -> dict[str, Path]:
    """Map data sets to their raw folders.

    Args:
        given: the values of --data: "NAME=DIR", or a folder that holds data sets under their usual names.

    Raises:
        C2LError: no such data set or folder, a data set given twice, or a folder without data sets.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if equals:
            here = {known_name(name, _names(), "data set"): Path(folder)}
        else:
            here = _below(Path(text))
        for name, path in here.items():
            if not path.is_dir():
                raise C2LError(f"--data {text}: expected the folder that holds {name}, but {path} is not a folder")
            if name in found:
                raise C2LError(
                    f"--data names {name} twice: {found[name]} and {path}; choose one of them with {name}=DIR"
                )
            found[name] = path
    return found


def usual_folders() -> Mapping[str, list[str]]:
    """By data set, the usual names of its folder, in lower case."""
    adapted = {name: entry["folder_names"] for name, entry in constants()["datasets"].items() if entry["folder_names"]}
    return adapted | {name: [name, name.replace("_", "-")] for name in described_data_sets()}


def _names() -> list[str]:
    """Names of all data sets with an adapter or a shipped description, in the order of a store."""
    return [*ADAPTERS, *described_data_sets()]


def _below(folder: Path) -> dict[str, Path]:
    """The data sets in a folder, found by the usual names of their folders."""
    if not folder.is_dir():
        raise C2LError(f"--data {folder}: expected a folder that holds data sets, or NAME=DIR, but it is not a folder")
    children = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    found = {}
    for name, usual in usual_folders().items():
        if paths := [children[child] for child in usual if child in children]:
            found[name] = paths[0]
    if not found:
        names = ", ".join(names[0] for names in usual_folders().values())
        raise C2LError(f"--data {folder} holds no data set; expected folders such as {names}, or NAME=DIR")
    return found


@dataclass(frozen=True)
class Stores:
    """Image stores in a folder. A store that does not exist yet is made from the raw data.

    Attributes:
        folder: holds one folder per store.
        data: raw folders by data set.
        size: side of the stored images, pixels.
        workers: decoding processes; None: one per core.
        progress: show a progress bar.
        pretraining_only: "NAME:PATTERN" of images that no labelled task may use, as for `prepare`.
    """

    folder: Path
    data: Mapping[str, Path]
    size: int
    workers: int | None = None
    progress: bool = True
    pretraining_only: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise C2LError for an entry of `pretraining_only` that names no data set."""
        for text in self.pretraining_only:
            name, colon, _ = text.partition(":")
            if not colon:
                raise C2LError(f"--pretraining-only {text}: expected NAME:PATTERN, found no colon; add the data set")
            known_name(name, _names(), "data set")

    def require(self, datasets: Collection[str]) -> None:
        """Raise DataMissing unless a store holds these data sets, or their raw folders are known."""
        if not self._covering(datasets):
            self.raw_folders(*sorted(datasets))

    def raw_folders(self, *datasets: str) -> dict[str, Path]:
        """The raw folders of data sets. Raises DataMissing if one is not known."""
        if missing := [name for name in datasets if name not in self.data]:
            raise DataMissing(f"--data does not name {', '.join(missing)}; add --data {missing[0]}=DIR")
        return {name: self.data[name] for name in datasets}

    def get(self, datasets: Collection[str], sha256: str = "") -> ImageStore:
        """Open a store that holds these data sets: the one with this sha256, else the smallest, else a new one.

        Raises:
            DataMissing: the store must be made, and a raw folder is not known.
            DatasetError: a raw folder does not have the layout of its distribution, or a finished store does not mark
                the images of `pretraining_only`.
        """
        stores = [ImageStore.open(path) for path in self._covering(datasets)]
        if stores:
            found = min(stores, key=lambda store: (store.sha256 != sha256, len(store), store.path.name))
            self._check_marks(found)
            return found
        names = [name for name in _names() if name in datasets]
        out = self.folder / f"{'+'.join(names)}-{self.size}"
        out.parent.mkdir(parents=True, exist_ok=True)
        raw = self.raw_folders(*names)
        pairs = [(name, raw[name]) for name in names]
        marked = [pattern for pattern in self.pretraining_only if pattern.partition(":")[0] in names]
        report = prepare(pairs, out, self.size, self.workers, self.progress, pretraining_only=marked)
        return ImageStore.open(report.store)

    def _check_marks(self, store: ImageStore) -> None:
        """Raise DatasetError unless a store marks the images that `pretraining_only` names among its data sets.

        A store that marks more images is accepted: it only takes images away from labelled tasks.
        """
        paths, datasets = (store.index[column].to_pylist() for column in ("path", "dataset"))
        for text in self.pretraining_only:
            name, _, pattern = text.partition(":")
            if name not in datasets:
                continue
            named = [row for row, path in enumerate(paths) if datasets[row] == name and matches(path, [pattern])]
            if not named or not store.pretraining_only[named].all():
                unmarked = sum(not marked for marked in store.pretraining_only[named])
                raise DatasetError(
                    f"--pretraining-only {text}: expected a store that marks the images of this pattern, found "
                    f"{f'{unmarked:,} that are not marked' if named else 'none that matches it'} in {store.path}; "
                    "correct the pattern, or move the store away so that it is made again"
                )

    def _covering(self, datasets: Collection[str]) -> list[Path]:
        """Finished stores of this size that hold all of these data sets."""
        found = []
        for file in self.folder.glob(f"*/{DESCRIPTION}"):
            description = json.loads(file.read_text(encoding="utf-8"))
            held = {part.partition("/")[0] for part in description.get("counts", ())}
            if description.get("size") == self.size and set(datasets) <= held and "shard" not in description:
                found.append(file.parent)
        return found
