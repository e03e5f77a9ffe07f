"""Plain-text tables."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int = 1) -> str:
    """Columns in line, separated by two spaces; the columns from number ``right`` on are aligned right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def join(line: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if column >= right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([join(lines[0]), "  ".join("-" * width for width in widths), *map(join, lines[1:])])
