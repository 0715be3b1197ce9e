"""Issue of a list: serial, dates and signing key of an artifact."""

from dataclasses import dataclass

from urlward.engine.dates import parse_time
from urlward.engine.errors import UrlwardError
from urlward.engine.rotation import MAX_SERIAL
from urlward.engine.signing import SigningKey


class IssueError(UrlwardError):
    """A serial or date that no issue can have."""


@dataclass(frozen=True, slots=True)
class Issue:
    """Issue of a list.

    Attributes:
        serial: higher than that of any issue before; None for the clock's seconds, or that of an artifact
            which is there already.
        valid_from: seconds since 1970-01-01 UTC, 0 for always; None for always, or likewise.
        valid_until: likewise.
        key: to sign with.

    Raises:
        IssueError: out of range, or it ends before it begins.
    """

    serial: int | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    key: SigningKey | None = None

    def __post_init__(self) -> None:
        if self.serial is not None and not 0 <= self.serial <= MAX_SERIAL:
            raise IssueError(f"serial: {self.serial} is not a number from 0 to {MAX_SERIAL}")
        if self.valid_until and (self.valid_from or 0) >= self.valid_until:
            raise IssueError("valid-until: not after valid-from")


ISSUE = Issue()
"""Serial by the clock, always valid, unsigned."""


def read_issue(serial: str | None, valid_from: str | None, valid_until: str | None) -> Issue:
    """Make an issue from the command line's texts, unsigned.

    Args:
        serial: a number.
        valid_from: a date, which is its beginning, or a time (`parse_time`).
        valid_until: likewise, but a date is its end.

    Raises:
        IssueError: one of them is none, or they contradict each other.
    """
    return Issue(
        read_serial("serial", serial),
        read_date("valid-from", valid_from),
        read_date("valid-until", valid_until, whole_day=True),
    )


def read_serial(name: str, text: str | None) -> int | None:
    """Parse a serial; None from None.

    Args:
        name: of the option, for the message.
        text: a number.

    Raises:
        IssueError: not one in range.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= MAX_SERIAL):
        raise IssueError(f"{name}: {text[:40]!r} is not a number from 0 to {MAX_SERIAL}")
    return int(text)


def read_date(name: str, text: str | None, *, whole_day: bool = False) -> int | None:
    """Parse a time (`parse_time`); None from None.

    Raises:
        IssueError: neither a date nor a time.
    """
    if text is None:
        return None
    try:
        return parse_time(text, whole_day=whole_day)
    except ValueError as e:
        raise IssueError(f"{name}: {text[:40]!r} is {e}") from e
