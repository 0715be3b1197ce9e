"""Parser interface and options that all file formats share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from hashlib import blake2b
from typing import NamedTuple, Protocol

from urlward.assignments.interval import AssignmentError, Sighting

MOST = 255
"""Characters of a subscriber's or session's name."""
_DIGEST = 8


class RowError(ValueError):
    """A row that cannot be understood; the message names nobody and may be shown."""


class Fault(NamedTuple):
    """A row that was not understood.

    Attributes:
        line: its index among the lines; of a record over several lines, of one of them.
        reason: why, without any of its values.
    """

    line: int
    reason: str


def reason_of(error: Exception) -> str:
    """Why a row was not understood, from what reading it raised."""
    if isinstance(error, RowError):
        return str(error)
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    if isinstance(error, IndexError):
        return "fewer columns than it needs"
    return "an address, a number or a time that is none"


class Parsed(NamedTuple):
    """Parsed lines: sightings, and the lines that were not understood.

    Attributes:
        sightings: in order.
        rows: that were there.
        faults: of them, not understood.
        pending: how many lines at the end are of a record that is not all there yet.
        other: indices of lines of no row and of nothing else that the format has.
    """

    sightings: list[Sighting]
    rows: int
    faults: list[Fault]
    pending: int = 0
    other: Sequence[int] = ()

    @property
    def skipped(self) -> int:
        """Number of rows that were not understood."""
        return len(self.faults)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a source.

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
    """Parser of one format; it keeps nothing of the lines but what the header says."""

    has_header: bool
    """Whether a file's first line is one."""

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
    if len(text) > MOST:
        # Two that begin alike are two all the same.
        digest = blake2b(text.encode(), digest_size=_DIGEST).hexdigest()
        text = f"{text[: MOST - len(digest) - 1]}…{digest}"
    return text
