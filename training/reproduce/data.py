"""Where the raw data sets are, and the stores that are made of them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_models.errors import C2LError

from ..datasets import ADAPTERS
from ..store.image_store import ImageStore
from ..store.prepare import prepare
from ..store.store_files import STORE
from .plan import pick, usual_folders


class DataMissing(C2LError):
    """A data set that a row needs was not given."""


def find_data(given: Sequence[str]) -> dict[str, Path]:
    """Data sets by name, from "NAME=DIR" and from folders that hold data sets under their usual names.

    Raises:
        C2LError: no such data set or folder, a data set given twice, or a folder that holds none.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if equals:
            here = {pick(name, ADAPTERS, "data set"): Path(folder)}
        else:
            here = _usual(Path(text))
        for name, path in here.items():
            if not path.is_dir():
                raise C2LError(f"--data {text}: {path} is no folder; wanted the one that holds {name}")
            if name in found:
                raise C2LError(f"--data gives {name} twice: {found[name]} and {path}; give one of them as {name}=DIR")
            found[name] = path
    return found


def _usual(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise C2LError(f"--data {folder} is no folder; wanted one that holds data sets, or NAME=DIR")
    children = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    found = {}
    for name, usual in usual_folders().items():
        if here := [children[known] for known in usual if known in children]:
            found[name] = here[0]
    if not found:
        names = ", ".join(names[0] for names in usual_folders().values())
        raise C2LError(f"--data {folder} holds no data set; wanted folders such as {names}, or NAME=DIR")
    return found


@dataclass(frozen=True)
class Stores:
    """The stores below a folder, made where there is none yet.

    Attributes:
        folder: of the stores.
        data: raw folders by data set.
        size: side of the stored images, pixels.
        workers: decoding processes; None: one a core.
        progress: show a bar.
    """

    folder: Path
    data: Mapping[str, Path]
    size: int
    workers: int | None = None
    progress: bool = True

    def need(self, datasets: Collection[str]) -> None:
        """Raise DataMissing unless these data sets were given, or are in a store."""
        if not self._covering(datasets):
            self.raw(*sorted(datasets))

    def raw(self, *datasets: str) -> dict[str, Path]:
        """The raw folders of data sets. Raises DataMissing for those that were not given."""
        if missing := [name for name in datasets if name not in self.data]:
            raise DataMissing(f"no {', '.join(missing)} among the data given: --data {missing[0]}=DIR")
        return {name: self.data[name] for name in datasets}

    def get(self, datasets: Collection[str], sha256: str = "") -> ImageStore:
        """A store that holds these data sets: that of this sha256, or else the smallest there is, or else a new one.

        Raises:
            DataMissing: it has to be made, and a data set was not given.
            DatasetError: a data set is not as its distribution lays it out.
        """
        stores = [ImageStore.open(path) for path in self._covering(datasets)]
        for store in sorted(stores, key=lambda store: (store.sha256 != sha256, len(store), store.path.name)):
            return store
        names = [name for name in ADAPTERS if name in datasets]
        out = self.folder / f"{'+'.join(names)}-{self.size}"
        out.parent.mkdir(parents=True, exist_ok=True)
        raw = self.raw(*names)
        return ImageStore.open(
            prepare([(name, raw[name]) for name in names], out, self.size, self.workers, self.progress).store
        )

    def _covering(self, datasets: Collection[str]) -> list[Path]:
        """The finished stores of this size that hold all of these data sets."""
        found = []
        for file in self.folder.glob(f"*/{STORE}"):
            description = json.loads(file.read_text())
            held = {part.partition("/")[0] for part in description.get("counts", ())}
            if description.get("size") == self.size and set(datasets) <= held and "shard" not in description:
                found.append(file.parent)
        return found
