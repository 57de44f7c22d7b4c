"""Markdown tables of all reports."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """Format a Markdown table.

    Args:
        header: names of the C columns.
        rows: C cells each, written with `str`. A "|" or a line break in a cell would end it, so they become "/" and a
            space.
        align: one letter per column, "l" (left) or "r" (right). Default: the first column left, all others right.
    """
    rule = ["---:" if side == "r" else "---" for side in align or "l".ljust(len(header), "r")]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in (header, rule, *rows))


def _cell(value: object) -> str:
    return str(value).replace("|", "/").replace("\n", " ")
