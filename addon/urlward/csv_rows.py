"""Rows of CSV (RFC 4180), of which a quote that is out of place spoils its own line alone.

For the standard library's reader a quote that nobody closes goes on to the next one, or to the end: what
stands between is in one field, and no row.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator

MOST_LINES = 20
"""Lines that a row may have; with more, a quote does not end."""


class _Given:
    """Iterator over lines as they are given; it ends where there is none, and goes on with the next."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.lines:
            raise StopIteration
        return self.lines.popleft()


def csv_rows(
    lines: Iterable[str], delimiter: str = ",", most_lines: int = MOST_LINES
) -> Iterator[tuple[int, list[str] | None]]:
    """Iterate over rows, each with the number of its last line from 1; None in place of a line that cannot
    be read, after which it goes on with the next.

    Args:
        lines: with or without their ends.
        delimiter: between columns.
        most_lines: that a row may have.
    """
    source, given, ahead = iter(lines), _Given(), deque[str]()
    reader = csv.reader(given, delimiter=delimiter, strict=True)
    number = 0
    while (line := ahead.popleft() if ahead else next(source, None)) is not None:
        number += 1
        given.lines.append(line)
        row: list[str] | None
        try:
            row = next(reader)
        except csv.Error:
            while len(ahead) < most_lines - 1 and (after := next(source, None)) is not None:
                ahead.append(after)
            wider = csv.reader((line, *ahead), delimiter=delimiter, strict=True)
            try:
                row = next(wider)
            except csv.Error:
                row = None
            else:
                for _ in range(wider.line_num - 1):
                    ahead.popleft()
                number += wider.line_num - 1
        yield number, row
