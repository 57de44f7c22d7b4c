"""The files of a store beside its array: the index, the list of what was refused, and the description."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import features

from .crash_safe_array import sync

IMAGES, INDEX, REFUSED, STORE = "images.npy", "index.parquet", "refused.parquet", "store.json"
FORMAT = 2

INDEX_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "dataset", "patient", "study", "view", "split")),
        ("labels", pa.map_(pa.string(), pa.float32())),
        ("sha256", pa.string()),
    ]
)
REFUSED_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "dataset", "reason")])

LIBRARIES = ("pillow", "pyarrow", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")


def libraries() -> dict[str, str]:
    """Versions of what a store's bytes depend on: what decodes and resizes films, and what writes tables."""
    return {
        **{f"version of {name}": _version(name) for name in LIBRARIES},
        "version of libjpeg in pillow": str(features.version("libjpeg_turbo") or features.version("jpg")),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def write_tables(folder: Path, index: pa.Table, refused: pa.Table) -> None:
    """Write index.parquet and refused.parquet; the same rows give the same bytes, also when read from shards."""
    for table, schema, name in ((index, INDEX_SCHEMA, INDEX), (refused, REFUSED_SCHEMA, REFUSED)):
        pq.write_table(table.cast(schema).combine_chunks(), folder / name)  # read tables name a map's fields otherwise


def write_description(
    folder: Path, plan: Mapping[str, Any], images_sha256: str, shard: tuple[int, int] | None = None
) -> None:
    """Write store.json for the array and the tables that are in `folder`, and have all of them on the disk.

    It has the plan; a shard's is that of the whole, to which those of the others must be equal.
    """
    index, refused = pq.read_table(folder / INDEX), pq.read_metadata(folder / REFUSED)
    counts = Counter(zip(index["dataset"].to_pylist(), index["split"].to_pylist(), strict=True))
    description = {
        "format": FORMAT,
        "version": version("c2l-models"),
        "size": plan["size"],
        "sources": plan["sources"],
        "images": len(index),
        "refused": refused.num_rows,
        "counts": {f"{dataset}/{split}": count for (dataset, split), count in sorted(counts.items())},
        "images_sha256": images_sha256,
        "index_sha256": file_sha256(folder / INDEX),
        "refused_sha256": file_sha256(folder / REFUSED),
        "plan": dict(plan),
    }
    if shard:
        description["shard"] = {"number": shard[0], "of": shard[1]}
    (folder / STORE).write_text(json.dumps(description, indent=2) + "\n")
    for path in (folder / IMAGES, folder / INDEX, folder / REFUSED, folder / STORE, folder):
        sync(path)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_duplicates(index: pa.Table) -> int:
    """Images whose file is byte for byte that of an earlier one."""
    hashes: Sequence[str] = index["sha256"].to_pylist()
    return len(hashes) - len(set(hashes))
