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
    """The plan of a store with images of `size` x `size` pixels, as JSON values; it includes a hash of all records."""
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
        "data_sets": {source.name: dict(source.facts) for source in sources if source.facts},
        "records": sum(len(source.records) for source in sources),
        RECORDS_KEY: digest.hexdigest(),
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The keys in which a plan differs from the expected one, with a likely cause; empty if they agree."""
    different = [key for key in expected if found.get(key) != expected[key]]
    hint = ""
    if different == [RECORDS_KEY]:
        hint = (
            " (files, labels, images for pretraining only or the patient key changed; C2L_PATIENT_KEY must name a file "
            "with the same key in every call)"
        )
    return ", ".join(different) + hint


def shard_slice(count: int, shard: Shard | None) -> slice:
    """The contiguous part of `count` records that belongs to a shard. Lengths of shards differ by at most one.

    Raises DatasetError if the shard's number is not from 1 to the number of shards.
    """
    number, shards = shard or (1, 1)
    if not 1 <= number <= shards:
        raise DatasetError(f"expected shard K/N with K from 1 to N, such as 3/16, found {number}/{shards}")
    return slice((number - 1) * count // shards, number * count // shards)
