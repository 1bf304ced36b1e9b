"""Tables in Markdown."""

import math
from collections.abc import Sequence

from implicit3dmm.evaluation.statistics import Estimate


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table whose source reads as a table too.

    Args:
        header: titles of the columns.
        rows: cells of each row, as many as there are titles.
        left: so many first columns are set flush left; the others, which hold figures, flush right.
    """
    assert all(len(row) == len(header) for row in rows)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    aligned = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (aligned[0], rule, *aligned[1:]))


def plus_minus(estimate: Estimate, *, digits: int = 2) -> str:
    """The estimate as "mean ± half-width", "mean" where no interval is known, and "–" where nothing is."""
    if math.isnan(estimate.mean):
        return "–"
    if math.isnan(estimate.half_width):
        return f"{estimate.mean:.{digits}f}"
    return f"{estimate.mean:.{digits}f} ± {estimate.half_width:.{digits}f}"


def large_number(value: int | float | None) -> str:
    """A count in three digits, such as "152 M", "4.49 k" or "256"; "–" where there is none."""
    if value is None:
        return "–"
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
