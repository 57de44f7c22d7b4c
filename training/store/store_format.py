"""Files of a store: their names, the columns of the tables, and the description `store.json`."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from PIL import features

from c2l_models.files import sync_file, sync_folder, write_atomically

IMAGES, INDEX, REFUSED, DESCRIPTION = "images.npy", "index.parquet", "refused.parquet", "store.json"
REFUSED_CSV = "refused.csv"
FORMAT = 3
FIRST_FORMAT = 2
"""The oldest format that can be read. Format 3 added the columns body_part, source and pretraining_only."""

INDEX_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "dataset", "patient", "study", "view", "split")),
        ("labels", pa.map_(pa.string(), pa.float32())),
        ("sha256", pa.string()),
        ("body_part", pa.string()),
        ("source", pa.string()),
        ("pretraining_only", pa.bool_()),
    ]
)
REFUSED_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "dataset", "reason")])

LIBRARIES = ("pillow", "pyarrow", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that determine a store's bytes: decoders, resizing, and Parquet."""
    return {
        **{f"version of {name}": _version(name) for name in LIBRARIES},
        "version of libjpeg in pillow": str(features.version("libjpeg_turbo") or features.version("jpg")),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def with_all_columns(index: pa.Table) -> pa.Table:
    """The index with the columns of the present format; columns that format 2 does not have get default values."""
    defaults = {"body_part": "", "source": index["dataset"], "pretraining_only": False}
    for name, value in defaults.items():
        if name not in index.column_names:
            column = value if isinstance(value, pa.ChunkedArray) else pa.repeat(value, len(index))
            index = index.append_column(INDEX_SCHEMA.field(name), column)
    return index


def write_tables(folder: Path, index: pa.Table, refused: pa.Table) -> None:
    """Write index.parquet and refused.parquet, and the latter's rows as CSV too, if there are any.

    The same rows produce the same bytes, even if joined from shards.
    """
    # The cast restores the names of the map's fields, which reading a table changes. PyArrow 17 writes the header of a
    # CSV file again before each chunk.
    index, refused = index.cast(INDEX_SCHEMA).combine_chunks(), refused.cast(REFUSED_SCHEMA).combine_chunks()
    pq.write_table(index, folder / INDEX)
    pq.write_table(refused, folder / REFUSED)
    if len(refused):
        pacsv.write_csv(refused, folder / REFUSED_CSV)


def write_description(
    folder: Path, plan: Mapping[str, Any], images_sha256: str, shard: tuple[int, int] | None = None
) -> None:
    """Write store.json for the array and the tables in `folder`, then flush all files to the disk.

    store.json contains the plan. The store.json of a shard contains the plan of the whole store, so that shards can be
    compared.
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
    write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
    for name in (IMAGES, INDEX, REFUSED, DESCRIPTION):
        sync_file(folder / name)
    sync_folder(folder)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_duplicates(index: pa.Table) -> int:
    """Number of images whose file has the same bytes as an earlier one."""
    hashes: Sequence[str] = index["sha256"].to_pylist()
    return len(hashes) - len(set(hashes))
