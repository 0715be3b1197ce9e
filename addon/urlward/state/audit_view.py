"""Views of the audit log: search, newest line first, and what its verification says in words."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.dates import time_text
from urlward.regular import MOST_LINE, open_regular
from urlward.state.audit import FILE, AuditReport, parsed_line
from urlward.state.folder import unusable
from urlward.units import counted

TOPICS: Mapping[str, tuple[str, ...]] = {
    "allows": ("allowed", "ended", "expired"),
    "objections": ("objection-granted", "objection-declined"),
    "lists": ("accepted", "rolled-back", "promoted"),
    "own": ("own-added", "own-removed", "own-revealed"),
    "configuration": ("edited",),
    "people": ("person-added", "person-removed", "person-role", "person-token"),
    "records": (
        "held",
        "released",
        "adopted",
        "formula",
        "source-deleted",
        "purge",
        "purged",
        "support-bundle",
        "events-read",
        "who",
        "file-report",
    ),
    "log": ("begun-anew", "head-anew", "taken-over"),
}
"""Actions of lines, by what they are about; those with a feed are about lists, whatever the action."""

CHAIN = frozenset({"seq", "time", "action", "who", "prev", "hash", "sign"})
"""Members that each line has; the others say what was done."""

_BLOCK = 1 << 16


class Change(NamedTuple):
    """Line of the log.

    Attributes:
        at: its first byte, in the file.
        line: its number; 0 where it is older than the chain.
        time: as the line has it, RFC 3339.
        action: in one word; empty for a line that was cut short as it was written.
        who: did it; empty for urlward by itself.
        fields: what else is known.
    """

    at: int
    line: int
    time: str
    action: str
    who: str
    fields: Mapping[str, Any]

    @property
    def topic(self) -> str:
        """What it is about; empty for what no topic has."""
        if "feed" in self.fields:  # held and released are records, too
            return "lists"
        return next((topic for topic, actions in TOPICS.items() if self.action in actions), "")


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Search for lines.

    Attributes:
        topics: of `TOPICS`; all where empty.
        who: part of the name, in any case.
        list: name of the list or feed.
        since: seconds since 1970-01-01 UTC; from then on.
        until: likewise; before then.
        before: `Change.at` of a line; those above it alone.
        limit: lines at most.
        within: bytes of the log that are looked through, about; all of it where None.
    """

    topics: tuple[str, ...] = ()
    who: str = ""
    list: str = ""
    since: float | None = None
    until: float | None = None
    before: int | None = None
    limit: int = 50
    within: int | None = None

    def takes(self, change: Change) -> bool:
        """Whether a line is one of those."""
        return (
            (not self.topics or change.topic in self.topics)
            and self.who.casefold() in change.who.casefold()
            and (not self.list or self.list in (change.fields.get("list"), change.fields.get("feed")))
            and (self.since is None or change.time >= time_text(self.since))
            and (self.until is None or change.time < time_text(self.until))
        )


def find_changes(state: Path, query: ChangeQuery) -> list[Change]:
    """Find lines, the newest first; reads no more of the log than it has to.

    Raises:
        StateError: unreadable.
    """
    return search_changes(state, query)[0]


def search_changes(state: Path, query: ChangeQuery) -> tuple[list[Change], int | None]:
    """As `find_changes`, with the `ChangeQuery.before` of what is left to look through; None for nothing.

    Raises:
        StateError: unreadable.
    """
    found: list[Change] = []
    begin = None
    try:
        with open_regular(state / FILE) as file:
            for at, line in _lines_backwards(file, query.before):
                begin = at + len(line) if begin is None else begin
                parsed = parsed_line(line)
                change = Change(at, 0, "", "", "", {}) if parsed is None else change_of(parsed, at)
                if query.takes(change):
                    found.append(change)
                is_enough = query.within is not None and begin - at >= query.within
                if len(found) >= query.limit or is_enough:
                    return found, at or None
    except FileNotFoundError:
        return [], None
    except OSError as e:
        raise unusable(state / FILE, e) from e
    return found, None


def change_of(parsed: Mapping[str, Any], at: int = 0) -> Change:
    """A line as `read_audit` has it."""
    number = parsed.get("seq")
    time, action, who = (str(parsed.get(name) or "") for name in ("time", "action", "who"))
    fields = {name: value for name, value in parsed.items() if name not in CHAIN}
    return Change(at, number if isinstance(number, int) else 0, time, action, who, fields)


def _lines_backwards(file: BufferedReader, before: int | None) -> Iterator[tuple[int, bytes]]:
    """Lines of a file from its end, or from a place in it, each with where it begins. One that is longer than
    a line can be comes in pieces."""
    size = file.seek(0, os.SEEK_END)
    at = size if before is None else min(before, size)
    rest = b""
    while at:
        read = min(_BLOCK, at)
        at -= read
        file.seek(at)
        first, *lines = (file.read(read) + rest).split(b"\n")
        # The first may begin before what has been read.
        end = at + len(first) + sum(len(line) + 1 for line in lines)
        for line in reversed(lines):
            end -= len(line)
            if line:
                yield end, line
            end -= 1
        rest = first
        if len(rest) > MOST_LINE:
            yield at, rest
            rest = b""
    if rest:
        yield 0, rest


def report_words(path: Path, report: AuditReport) -> list[str]:
    """Say what `verify` has found.

    Args:
        path: of the log.
        report: of it.
    """
    if report.broken:
        where = f"{path}:{report.broken.line}" if report.broken.line else f"{path}"
        return [f"{where}: {report.broken.reason}", *_compared(report)]
    told = [f"{path}: {counted(report.lines, 'line')}, the chain holds"]
    if report.unsigned:
        told.append(
            f"nothing vouches for its end: {report.unsigned}; whatever writes the next line signs it anew"
        )
    if report.anew:
        told.append(f"begun anew, since what was before is not known ({report.anew})")
        told.append("give --known a hash below, once you have looked")
    if report.taken:
        told.append(f"lines before line {report.taken} are of an urlward that signed none, and bound by it")
    if report.unchained:
        told.append(f"lines 1 to {report.unchained} are older than the chain, and bound by its first line")
    if report.torn:
        told.append(f"cut short as they were written: lines {', '.join(map(str, report.torn))}")
    if not report.has_known:
        told.append("no line has the hash that is known: the log was cut, or made anew")
    told += _compared(report)
    if report.head:
        told.append(f"last hash {report.head}")
    return told


def _compared(report: AuditReport) -> list[str]:
    if report.differs:
        return [report.differs]
    return [f"agrees with {counted(report.copies, 'copy')} in databases"] * bool(report.copies)
