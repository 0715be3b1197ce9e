"""Result of a look at a feed: unchanged, or a candidate for the list in force."""

from collections.abc import Callable
from typing import NamedTuple

from urlward.engine.artifact import Header
from urlward.feeds.source import Validators


class Said(NamedTuple):
    """Response metadata that comes with a body.

    Attributes:
        validators: what it calls the body; None where it has not said.
        fresh_for: seconds that it calls it fresh.
        rotation: fetches the statement that lies beside the body; None where it has none.
    """

    validators: Validators | None = None
    fresh_for: float | None = None
    rotation: Callable[[], bytes | None] = lambda: None


NOTHING_SAID = Said()


class Unchanged(NamedTuple):
    """Result of a look: the list in force is what the feed has.

    Attributes:
        content: of the body.
        validators: what the server calls it; None where it has not said.
        fresh_for: seconds that it calls it fresh.
    """

    content: str
    validators: Validators | None
    fresh_for: float | None = None


class Candidate(NamedTuple):
    """Candidate: another list than the one in force; all checked but for its number of entries.

    Attributes:
        data: the artifact.
        header, entries: of it.
        kind: of the body: ``text`` or ``artifact``.
        content, validators, fresh_for: as for `Unchanged`.
        counts: entries added and removed; None where nobody has counted.
        bad, unsupported, first, format: of a text; see `Compiled`.
        note: for the log.
    """

    data: bytes
    header: Header
    entries: int
    kind: str
    content: str
    validators: Validators | None
    fresh_for: float | None = None
    counts: tuple[int, int] | None = None
    bad: int = 0
    unsupported: int = 0
    first: str = ""
    format: str = ""
    note: str = ""
