"""Files of features: Parquet, and npz, npy and CSV for other programs. The name's suffix states the format."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import C2LError
from .files import atomic_file, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

STAMPS = ("size", "mtime_ns")
METADATA_KEY = "c2l"  # in the metadata of a Parquet file, and the name of an array of an npz file


class FeatureTable(NamedTuple):
    """Features, float32 [N, D], of N paths, and facts about the model, such as its sha256.

    `stamps`: size in bytes and modification time in ns of each file, int64 [N, 2], or None. Only Parquet keeps them.
    """

    features: np.ndarray
    paths: list[Path]
    source: dict[str, str]
    stamps: np.ndarray | None = None


def check_format(path: Path) -> None:
    """Raise C2LError unless the suffix names a format that can be written."""
    if path.suffix.lower() not in _WRITERS:
        raise C2LError(
            f"{path}: expected a name that ends in {', '.join(_WRITERS)}, which states the format; choose another name"
        )


def write_features(path: Path, table: FeatureTable) -> None:
    """Write a file in the format of its suffix; an existing file is replaced when the new one is complete.

    - .parquet: columns path (string) and feature (list of D float32), and size and mtime_ns (int64) if there are
      stamps. The metadata hold `source` as JSON under "c2l". If a name is not UTF-8, path holds it with escapes such as
      `\\xf6`, and a column path_bytes the bytes of the name.
    - .npz: arrays paths (text), features and c2l (`source` as JSON).
    - .npy: the features only; the order of rows is the order of the images.
    - .csv: columns path and 0 to D-1, UTF-8, with all digits of a float32.

    Raises C2LError for another suffix.
    """
    check_format(path)
    write_atomically(path, _WRITERS[path.suffix.lower()](table))


def join_features(parts: Sequence[Path], out: Path) -> None:
    """Write `out` with the rows of several Parquet files, in order; `source` is the first file's. Stamps are dropped.

    A Parquet file is written one part at a time, as one row group each, so memory for one part is enough. The other
    formats need memory for all rows. Raises C2LError for another suffix, or a part that cannot be read.
    """
    check_format(out)
    if out.suffix.lower() != ".parquet":
        tables = [read_features(part) for part in parts]
        paths = [path for table in tables for path in table.paths]
        rows = np.concatenate([table.features for table in tables])
        return write_features(out, FeatureTable(rows, paths, tables[0].source))
    import pyarrow.parquet as pq

    escaped = any("path_bytes" in pq.read_schema(part).names for part in parts)
    schema = _arrow(read_features(parts[0])._replace(stamps=None), escaped).schema
    with atomic_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            table = read_features(part)._replace(stamps=None)
            writer.write(_arrow(table, escaped).replace_schema_metadata(schema.metadata))
    return None


def read_features(path: Path) -> FeatureTable:
    """Read a .parquet or .npz file that `write_features` wrote. Raises C2LError for any other file."""
    if not path.is_file():
        raise C2LError(f"{path}: expected a file that c2l embed wrote, found no such file; correct the path")
    try:
        table = _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except Exception as error:  # on damaged files zipfile, NumPy and Arrow raise errors of many types
        raise C2LError(
            f"{path}: expected a Parquet or npz file with paths and features, found another file "
            f"({type(error).__name__}); make one with c2l embed"
        ) from None
    if table.features.ndim != 2 or len(table.features) != len(table.paths):
        raise C2LError(
            f"{path}: expected one row of features per path, found features of shape {list(table.features.shape)} and "
            f"{len(table.paths):,} paths; make the file again with c2l embed"
        )
    return table


def _parquet(table: FeatureTable) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(_arrow(table, any(readable(path) != str(path) for path in table.paths)), buffer)
    return buffer.getvalue()


def _arrow(table: FeatureTable, escaped: bool) -> "pa.Table":
    """The columns of a Parquet file. `escaped`: with path_bytes, because a name is not UTF-8."""
    import pyarrow as pa

    features = pa.FixedSizeListArray.from_arrays(pa.array(table.features.ravel()), table.features.shape[1])
    columns = {"path": pa.array(map(readable, table.paths), pa.string()), "feature": features}
    if escaped:
        columns["path_bytes"] = pa.array(map(os.fsencode, table.paths), pa.binary())
    if table.stamps is not None:
        columns |= {name: pa.array(table.stamps[:, i]) for i, name in enumerate(STAMPS)}
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(table.source)})


def _read_parquet(path: Path) -> FeatureTable:
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(path).names if name in ("path", "path_bytes", "feature", *STAMPS)]
    table = pq.read_table(path, columns=names).combine_chunks()
    rows = table["feature"].chunk(0) if len(table) else table["feature"].combine_chunks()
    features = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    width = table.schema.field("feature").type.list_size
    source = dict(json.loads((table.schema.metadata or {}).get(METADATA_KEY.encode(), "{}")))
    written = map(os.fsdecode, table["path_bytes" if "path_bytes" in names else "path"].to_pylist())
    stamps = np.stack([table[name].to_numpy() for name in STAMPS], 1) if {*STAMPS} <= {*names} else None
    return FeatureTable(features.reshape(len(table), width), [Path(name) for name in written], source, stamps)


def _npz(table: FeatureTable) -> bytes:
    buffer = io.BytesIO()
    paths = np.array([str(path) for path in table.paths], dtype=str)
    np.savez(buffer, paths=paths, features=table.features, c2l=np.array(json.dumps(table.source)))
    return buffer.getvalue()


def _read_npz(path: Path) -> FeatureTable:
    with np.load(path, allow_pickle=False) as arrays:
        paths = [Path(name) for name in arrays["paths"].tolist()]
        features = arrays["features"].astype(np.float32, copy=False)
        return FeatureTable(features, paths, dict(json.loads(str(arrays[METADATA_KEY]))))


def _npy(table: FeatureTable) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table.features)
    return buffer.getvalue()


def _csv(table: FeatureTable) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *range(table.features.shape[1])])
    for path, row in zip(table.paths, table.features, strict=True):
        writer.writerow([readable(path), *map(str, row)])
    return text.getvalue().encode()


def readable(path: Path) -> str:
    r"""A path as UTF-8 text: a byte that is not UTF-8 becomes an escape such as `\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_WRITERS: dict[str, Callable[[FeatureTable], bytes]] = {
    ".parquet": _parquet,
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv,
}
