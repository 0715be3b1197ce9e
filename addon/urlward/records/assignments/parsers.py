"""What the formats of files have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import NamedTuple, Protocol

from urlward.records.assignments.interval import AssignmentError, Sighting

MOST = 255
"""Characters of a subscriber's or session's name."""


class Parsed(NamedTuple):
    """What a parser makes of lines.

    Attributes:
        sightings: in order.
        rows: that were there.
        skipped: of them, not understood.
        pending: how many lines at the end are of a record that is not all there yet.
    """

    sightings: list[Sighting]
    rows: int
    skipped: int
    pending: int = 0


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a source.

    Attributes:
        columns: the source's names (or numbers, from 1) of what is called ``subscriber`` and so on here.
        delimiter: between columns.
        zone: of times that do not say theirs.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","
    zone: tzinfo = UTC

    def only(self, *names: str) -> None:
        """Refuse columns of other names.

        Raises:
            AssignmentError: there is one.
        """
        for name in self.columns:
            if name not in names:
                raise AssignmentError(f"column: {name!r} is none of {', '.join(names)}")


class Parser(Protocol):
    """Reads one format; it keeps nothing of the lines but what the header says."""

    has_header: bool
    """Whether a file's first line is one."""
    ends_whole: bool
    """Whether a last line without an end is one, when the file is not followed."""

    def begin(self, header: str) -> None:
        """Read the header.

        Raises:
            AssignmentError: a column is missing.
        """

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read lines, without their ends."""


type MakeParser = Callable[[ReadOptions], Parser]


def name_of(text: str) -> str:
    """A subscriber's or session's name, as it can be kept and shown."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text[:MOST]
