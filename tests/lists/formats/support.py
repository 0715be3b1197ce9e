"""What the tests of formats share: text converted to lines of the grammar, and what was not taken."""

import io
from collections.abc import Mapping
from pathlib import Path

from urlward.lists.formats import FormatOptions, Skipped, convert

DATA = Path(__file__).parents[2] / "data" / "formats"


def read(
    kind: str,
    text: str | bytes,
    columns: Mapping[str, str] | None = None,
    delimiter: str = ",",
    category: str = "",
) -> tuple[list[str], list[Skipped]]:
    """Lines, and what was skipped."""
    data = text.encode() if isinstance(text, str) else text
    options = FormatOptions(columns or {}, delimiter, category)
    found = list(convert(kind, io.BytesIO(data), options))
    return [f for f in found if isinstance(f, str)], [f for f in found if isinstance(f, Skipped)]


def lines(kind: str, text: str | bytes, category: str = "") -> list[str]:
    """Lines of a source of which all can be taken."""
    found, skipped = read(kind, text, category=category)
    assert not skipped
    return found


def refused(kind: str, text: str | bytes) -> Skipped:
    """Why a source of one line gives nothing."""
    found, [skipped] = read(kind, text)
    assert not found
    return skipped
