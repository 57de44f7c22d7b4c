"""The plan of a store: the settings and records it is built from. Parts built from different plans are not mixed."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from c2l_models.errors import DatasetError

from ..datasets.record import relative_path
from .sources import Source
from .store_format import FORMAT

Shard = tuple[int, int]
"""(k, n): the k-th of n parts of the work, counted from 1."""

RECORDS_KEY = "sha256 of the records"


def make_plan(sources: Sequence[Source], size: int) -> dict[str, Any]:
    """The plan of a store with images of `size` pixels: format, package version, data sets, hash of all records."""
    digest = hashlib.sha256()
    for source in sources:
        for record in source.records:
            row = vars(record) | {"path": relative_path(record.path, source.root), "labels": dict(record.labels)}
            digest.update(json.dumps(row, sort_keys=True).encode())
    return {
        "format": FORMAT,
        "version": version("c2l-models"),
        "size": size,
        "sources": [source.name for source in sources],
        "records": sum(len(source.records) for source in sources),
        RECORDS_KEY: digest.hexdigest(),
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The keys in which a plan differs from the expected one, with a likely cause; empty if they agree."""
    different = [key for key in expected if found.get(key) != expected[key]]
    hint = ""
    if different == [RECORDS_KEY]:
        hint = (
            " (files or labels changed, or the patient key is another one: C2L_PATIENT_KEY must name the same key "
            "everywhere)"
        )
    return ", ".join(different) + hint


def shard_slice(count: int, shard: Shard | None) -> slice:
    """The part of `count` records that belongs to a shard: contiguous; shard lengths differ by at most one.

    Raises DatasetError if the shard's number is not from 1 to the number of shards.
    """
    number, of = shard or (1, 1)
    if not 1 <= number <= of:
        raise DatasetError(f"expected shard K/N with K from 1 to N, such as 3/16, found {number}/{of}")
    return slice((number - 1) * count // of, number * count // of)
