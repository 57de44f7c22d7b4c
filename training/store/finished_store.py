"""A finished store: the check that it was built from the expected plan, and its summary."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from c2l_models.errors import DatasetError

from .build_plan import Shard, differences
from .store_format import DESCRIPTION, INDEX, count_duplicates


@dataclass(frozen=True)
class PrepareReport:
    """Summary of a finished store or shard.

    Attributes:
        store: its folder.
        images: number of images.
        refused: number of rows of refused.parquet.
        duplicates: images whose file has the same bytes as an earlier one; they are kept.
        seconds: duration of the call.
        shard: (k, n) of a shard; None for a store.
    """

    store: Path
    images: int
    refused: int
    duplicates: int
    seconds: float
    shard: Shard | None = None


def check_same_plan(out: Path, plan: dict[str, Any], shard: Shard | None) -> None:
    """Raise DatasetError unless the store or shard `out` was built from this plan."""
    try:
        description = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
        found = description["plan"] | {"shard": description.get("shard")}
    except (ValueError, KeyError, TypeError, OSError):
        found = {}
    expected = plan | {"shard": shard and {"number": shard[0], "of": shard[1]}}
    if different := differences(found, expected):
        raise DatasetError(
            f"{out} already exists and is not overwritten: it was built with other settings: {different}; remove it, "
            "or choose another folder"
        )


def summarize_store(out: Path, shard: Shard | None, started: float) -> PrepareReport:
    """Summary of a finished store or shard; `started` is the call's start by `time.monotonic`."""
    description = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
    duplicates = count_duplicates(pq.read_table(out / INDEX, columns=["sha256"]))
    seconds = time.monotonic() - started
    return PrepareReport(out, description["images"], description["refused"], duplicates, seconds, shard)
