"""Markdown tables of all reports."""

import re
from collections.abc import Iterable, Sequence

SIGNS = re.compile(r"[\\|`*$<>\[\]]|^_|_$")
"""Signs that Markdown, or GitHub's formulas, give a meaning within a cell."""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """Format a Markdown table.

    Args:
        header: names of the C columns.
        rows: C cells each, written with `str` and shown as they are: see `escaped`.
        align: one letter per column, "l" (left) or "r" (right). Default: the first column left, all others right.
    """
    rule = ["---:" if side == "r" else "---" for side in align or "l".ljust(len(header), "r")]
    return "\n".join("| " + " | ".join(map(escaped, cells)) + " |" for cells in (header, rule, *rows))


def escaped(value: object) -> str:
    r"""A text that Markdown shows as it is, in a table too: "\|" for "|", "<br>" for a line break.

    "_" is kept, because within a word it means nothing.
    """
    return SIGNS.sub(r"\\\g<0>", str(value)).replace("\r\n", "\n").replace("\n", "<br>")
