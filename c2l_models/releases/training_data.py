"""The lines of a weight file's `trained_on`: one per data set, which begins with its key.

A line about earlier weights begins with what the training did with them (`Use`), their name and license. Their own
`trained_on` can contain such lines too. Weight files hold nothing but these texts, so they are written and read here
only.
"""

import re
from typing import Literal

PHOTOGRAPHS = ("imagenet-1k",)
"""Data sets without radiographs, so without patients."""

NOT_RECORDED, UNKNOWN_IMAGES = "not recorded", "unknown images"
"""Beginnings of lines about data that nobody stated: of converted weights, and of weights without any line."""

Use = Literal["initialized from", "learned the features of", "averaged"]

_WEIGHTS = r"(?:initialized from|learned the features of|averaged, \S+ of) (.+?) \(licence: .*?\): "
_EARLIER = re.compile(f"(?:{_WEIGHTS})*")


def line_of_earlier(use: Use, name: str, license: str, line: str, share: float | None = None) -> str:
    """Return a line of earlier weights as a line of the weights that were made from them.

    `share`: the share of averaged weights.
    """
    of = use if share is None else f"{use}, {share:g} of"
    return f"{of} {name} (licence: {license}): {line}"


def names_of_earlier(line: str) -> list[str]:
    """Return the names of the earlier weights that a line of `trained_on` is about, the latest first."""
    found = _EARLIER.match(line)
    return re.findall(_WEIGHTS, found[0]) if found else []


def data_set_of(line: str) -> str:
    """Return the key of the data set that a line of `trained_on` is about, also if it is a line of earlier weights."""
    return _EARLIER.sub("", line, count=1).partition(" ")[0]
