"""The audit log at the dashboard: rows of its lines, as far as a role may see them, and whether it holds."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from urlward.dashboard.live_sources import Remembered
from urlward.dashboard.sources import Row
from urlward.state.audit import FILE, HEAD, verify
from urlward.state.audit_view import (
    TOPICS,
    Change,
    ChangeQuery,
    find_changes,
    report_words,
    search_changes,
)
from urlward.state.people import Role
from urlward.state.watch import Signature

BENEATH = 5
"""Lines beneath an action's page."""

WITHIN = 16 << 20
"""Bytes of the log that one search looks through: a second's work, so that many of them at a time, for what
hardly any line has, leave threads for all else."""

KNOWN_FOR = 3_600.0
"""Seconds that what is known of the log is good while it stays as it is."""

FOR_VIEWERS = frozenset(
    {
        "allow", "before", "entries", "entry", "feed", "file", "id", "keys", "kind", "lines", "list", "name",
        "reference", "role", "serial", "table", "until", "version", "why",
    }
)  # fmt: skip
"""What viewers see of a line beside time, action and who; others may name a client, as those of ``who``."""


class Verification(NamedTuple):
    """Result of a verification.

    Attributes:
        holds: whether the log is as it was written.
        words: what there is to say of it, a line each.
    """

    holds: bool
    words: list[str]


class AuditTrail:
    """Audit log of a state folder. Thread-safe; its methods may take their time.

    Args:
        state: the folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._verified = Remembered[Verification](KNOWN_FOR)
        self._latest = {topic: Remembered[list[Change]](KNOWN_FOR) for topic in TOPICS}

    def find(self, query: ChangeQuery, role: Role) -> tuple[list[Row], str]:
        """Find lines, the newest first, and the ``before`` of the next page; empty where there is none.

        A page may have fewer lines than were asked for: no more than `WITHIN` is looked through at a time.

        Returns:
            Rows with ``line`` (number, 0 for what is older than the chain), ``time`` (RFC 3339), ``action``
            (empty for a line that was cut short), ``topic``, ``who`` and ``detail`` (the other fields).

        Raises:
            StateError: unreadable.
        """
        found, left = search_changes(self._state, replace(query, within=WITHIN))
        return [_row(change, role) for change in found], str(left or "")

    def latest(self, topic: str, role: Role, now: float) -> list[Row]:
        """The last lines about a topic, for the foot of the page where it is acted upon.

        Args:
            topic: of `TOPICS`.
            role: of who sees them.
            now: seconds.

        Raises:
            StateError: unreadable.
        """
        query = ChangeQuery(topics=(topic,), limit=BENEATH, within=WITHIN)
        found = self._latest[topic].get(self._seen(), now, lambda: find_changes(self._state, query))
        return [_row(change, role) for change in found]

    def verified(self, now: float) -> Verification:
        """Whether the chain holds, as `urlward.state.audit.verify`, without copies elsewhere.

        Raises:
            StateError: unreadable.
        """
        return self._verified.get(self._seen(), now, self._verify)

    def _seen(self) -> list[Signature | None]:
        return [Signature.of(self._state / name) for name in (FILE, HEAD)]

    def _verify(self) -> Verification:
        report = verify(self._state)
        return Verification(report.holds, report_words(self._state / FILE, report))


def _row(change: Change, role: Role) -> Row:
    detail = {
        name: value for name, value in change.fields.items() if role == "operator" or name in FOR_VIEWERS
    }
    return {
        "line": change.line,
        "time": change.time,
        "action": change.action,
        "topic": change.topic,
        "who": change.who,
        "detail": detail,
    }


def shown_detail(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of a line's further fields, for people."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in detail.items()
        if value not in (None, "", [], {})
    ]
