"""Status of feeds: their alarms, what an operator sees of them, and what an operator accepts.

An alarm is a fault that has lasted so long that somebody should look. A candidate that is refused because its
list has shrunk or grown too much can be accepted, once.
"""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from urlward.engine.artifact import Header
from urlward.engine.dates import age_or_none, time_or_none, time_text
from urlward.engine.errors import ArtifactError
from urlward.feeds.store import Accepted, Facts, FeedStore, Refused
from urlward.lines import columns
from urlward.lists.trust import check_dates
from urlward.state.audit import append
from urlward.units import counted, in_words

if TYPE_CHECKING:
    from urlward.config import FeedTable

_COLUMNS = ("feed", "entries", "serial", "last success", "change", "next run", "state")
_NUMBERS = ("entries", "serial")


def status(feed: "FeedTable", state: Path, now: float) -> dict[str, Any]:
    """Status of a feed, by names that scripts rely on; times as RFC 3339 has them, None for never.

    ``state`` is as `state_of` has it.

    Raises:
        StateError: the state folder cannot be used.
    """
    store = FeedStore(state, feed.name)
    facts, header, in_force = store.facts(), store.header(), store.in_force()
    found = alarms(feed, facts, header, now)
    return {
        "name": feed.name,
        "state": state_of(feed, facts, found, has_list=in_force is not None),
        "entries": in_force.entries if in_force else 0,
        "serial": in_force.header.serial if in_force else 0,
        "valid_until": time_or_none(in_force.header.valid_until if in_force else 0),
        "last_attempt": time_or_none(facts.last_attempt),
        "last_success": time_or_none(facts.last_success),
        "last_change": time_or_none(facts.last_change),
        "age": age_or_none(facts.last_success, now),
        "added": facts.added,
        "removed": facts.removed,
        "bad": facts.bad,
        "unsupported": facts.unsupported,
        "next_run": None if resting(feed, facts) else time_or_none(facts.next_run),
        "failures": facts.failures,
        "reason": facts.reason,
        "error": facts.error,
        "refused": asdict(facts.refused) | {"content": None} if facts.refused else None,
        "accepted": facts.accepted is not None,
        "paused": feed.paused,
        "held": asdict(facts.held) | {"at": time_or_none(facts.held.at)} if facts.held else None,
        "alarms": found,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Format lines for a terminal: one a feed, and one for each thing that is wrong with it."""
    head, *lines = columns([_COLUMNS, *map(_cells, rows)], _NUMBERS)
    pairs = zip(rows, lines, strict=True)
    return [head, *(text for row, line in pairs for text in (line, *(f"  {one}" for one in _wrong(row))))]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    success = f"{row['last_success']} ({in_words(row['age'])} ago)" if row["last_success"] else "never"
    return (
        row["name"],
        str(row["entries"]),
        str(row["serial"]),
        success,
        f"+{row['added']} -{row['removed']}",
        row["next_run"] or "-",
        row["state"],
    )


def _wrong(row: dict[str, Any]) -> list[str]:
    lines = [f"{kind}: {text}" for kind, text in row["alarms"].items()]
    if row["reason"]:
        times = f" ({row['failures']} times)" if row["failures"] > 1 else ""
        lines.append(f"{row['reason']}: {row['error']}{times}")
    if row["held"]:
        lines.append(
            f"held at serial {row['held']['serial']} since {row['held']['at']} ({row['held']['why']}); "
            f"urlward feeds release {row['name']} --why TEXT"
        )
    if row["refused"]:
        said = (
            "accepted, the next refresh takes it"
            if row["accepted"]
            else f"urlward feeds accept {row['name']} --why TEXT"
        )
        lines.append(f"refused: {counted(row['refused']['entries'], 'entry')}; {said}")
    return lines


def resting(feed: "FeedTable", facts: Facts) -> str:
    """Why nothing is fetched, as an operator has said; empty where something is."""
    if feed.paused:
        return "paused: nothing is fetched, and the last list stays in force"
    if facts.held is not None:
        return (
            f"held at serial {facts.held.serial} by {facts.held.who}: nothing is fetched until it is released"
        )
    return ""


State = Literal["ok", "waiting", "failed", "alarm", "paused", "held"]
STATES: tuple[State, ...] = get_args(State)


def state_of(feed: "FeedTable", facts: Facts, found: Collection[str], *, has_list: bool) -> State:
    """State of a feed in a word: ``ok``; ``waiting`` where nothing has been fetched yet; ``failed`` where the
    last attempt was none; ``alarm`` where that, or something else, has lasted too long; ``paused`` or
    ``held`` where an operator has said that nothing is fetched.

    Args:
        feed: which.
        facts: what is remembered of it.
        found: its alarms.
        has_list: whether one is in force.
    """
    if found:
        return "alarm"
    if feed.paused:
        return "paused"
    if facts.held is not None:
        return "held"
    if facts.reason:
        return "failed"
    return "ok" if has_list else "waiting"


def alarms(feed: "FeedTable", facts: Facts, header: Header | None, now: float) -> dict[str, str]:
    """Alarms of a feed.

    Args:
        feed: which.
        facts: what is remembered of it.
        header: of the artifact in force, None where there is none.
        now: seconds since 1970-01-01 UTC.

    Returns:
        A sentence by kind: ``missing``, ``stale``, ``expiring``, ``expired``.
    """
    found = {}
    if header is None and (facts.since or facts.last_attempt):
        found["missing"] = "no list is in force: nothing on it is blocked"
    last = facts.last_success or facts.since
    if last and now - last > feed.stale_limit and not resting(feed, facts):
        since = f"since {time_text(last)}" if facts.last_success else "yet"
        found["stale"] = (
            f"no successful refresh {since}, for {in_words(now - last)}; "
            f"the limit is {in_words(feed.stale_limit)}"
        )
    if header is not None and header.valid_until:
        found.update(_dates(header, now, feed.grace))
    return found


def _dates(header: Header, now: float, grace: float) -> dict[str, str]:
    try:
        validity = check_dates(header, now=now, grace=grace)
    except ArtifactError as e:
        return {"expired": str(e)} if e.reason == "expired" else {}
    return {validity.state: validity.message} if validity.message else {}


def accept(
    feed: "FeedTable", state: Path, *, why: str, who: str, now: float, like: Accepted | None = None
) -> Refused | None:
    """Accept the candidate that was refused, once; where none was, the next that would be.

    Args:
        feed: whose.
        state: the state folder.
        why: one line, for the record.
        who: says so.
        now: seconds since 1970-01-01 UTC.
        like: what is accepted, in place of what was refused here.

    Returns:
        What was refused.

    Raises:
        StateError: it cannot be written down.
    """
    store = FeedStore(state, feed.name)
    with store.locked():
        facts = store.facts()
        refused = facts.refused
        # Told first: whatever fails between the two, nothing is accepted that the record does not have.
        append(
            state, who, "accepted", now,
            feed=feed.name, why=why,
            entries=like.entries if like else refused.entries if refused else None,
            before=refused.before if refused else facts.entries,
        )  # fmt: skip
        facts.accepted = like or Accepted(
            refused.content if refused else "", refused.entries if refused else 0, now
        )
        store.write_facts(facts)
    return refused
