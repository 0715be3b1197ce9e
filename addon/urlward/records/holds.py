"""Holds: references whose events are kept past their days, because an operator wants them for longer; and
their evidence, the events that explain them in every store and in the outbox.

``holds.json`` in the state folder has one for each reference, with a reason and an end, until which no event
with that reference is deleted; no other makes it shorter. Who held or released one is told in the audit log.

An event says which client met what, and by which version of a list; the events of that version say what it
was. Who had the client's address is in the assignments (`urlward.assignments.retention`), and what somebody
has written of it among the objections.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.policy.reasons import reason_of
from urlward.records.event import HITS, Event, canonical_reference
from urlward.records.store import KeepingStore
from urlward.state.audit import append_in_lock
from urlward.state.folder import KeptFile, locked, made_folder

MAX_REFERENCE = 100

_LAST = 1 << 36
"""A time far from any that is meant."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold on the events of a reference.

    Attributes:
        reference: as on the block page.
        until: seconds since 1970-01-01 UTC; in force before this time.
        why: the operator's words.
        who: made it.
        created: seconds since 1970-01-01 UTC.
    """

    reference: str
    until: int
    why: str
    who: str
    created: int


def hold(state: Path, reference: str, until: int, why: str, who: str, *, now: float) -> Hold:
    """Hold the events of a reference; a hold that does not end later is replaced.

    Args:
        state: the state folder.
        reference: as on the block page, in any spelling.
        until: seconds since 1970-01-01 UTC.
        why: one line of words.
        who: makes it.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: a value is not as above, the end is past, or the reference is held for longer already:
            what one asks for is not shortened by what another does.
        StateError: the folder cannot be used.
    """
    if not 0 < len(reference) <= MAX_REFERENCE or not reference.isascii() or not reference.isprintable():
        raise UrlwardError("not a reference, as it stands on the block page")
    if until <= now:
        raise UrlwardError("until: a time to come is needed")
    if until > _LAST:
        raise UrlwardError(f"until: {time_text(_LAST)} at the latest")
    reference = canonical_reference(reference)
    made = Hold(reference, until, reason_of(why), who, int(now))
    with locked(made_folder(state)):
        found = KEPT.read(state)
        longer = next((one for one in found if one.reference == reference and one.until > until), None)
        if longer is not None:
            raise UrlwardError(
                f"{reference!r} is held until {time_text(longer.until)} already, by {longer.who}"
                f" ({longer.why}): release it to hold it for less"
            )
        # Those that are over stay in the file: a clock that is wrong for a while ends none for good.
        tell_hold(state, now, "held", made, made.why, who)
        KEPT.write(state, [*(one for one in found if one.reference != reference), made])
    return made


def release(state: Path, reference: str, why: str, who: str, *, now: float, until: int | None = None) -> Hold:
    """End a hold before its time.

    Args:
        state: the state folder.
        reference: in any spelling.
        why: one line of words.
        who: ends it.
        now: seconds since 1970-01-01 UTC.
        until: likewise, the end of one that this node made before it lost its state folder.

    Raises:
        UrlwardError: there is none of that reference, or `why` is not one line of words.
        StateError: the folder cannot be used.
    """
    why, reference = reason_of(why), canonical_reference(reference)
    with locked(made_folder(state)):
        kept = KEPT.read(state)
        released = next((one for one in kept if one.reference == reference and now < one.until), None)
        if released is None and until is not None:
            released = Hold(reference, until, "", "", 0)
        if released is None:
            raise UrlwardError(f"{reference!r} is not held")
        tell_hold(state, now, "released", released, why, who)
        KEPT.write(state, [one for one in kept if one.reference != reference])
    return released


def current_holds(state: Path, now: float) -> tuple[Hold, ...]:
    """Holds in force, in the order of making; changes nothing.

    Raises:
        UrlwardError: the record of them is damaged, so that nothing may be deleted.
        StateError: it cannot be read.
    """
    return tuple(one for one in KEPT.read(state) if now < one.until)


def held_references(state: Path, now: float) -> dict[str, int]:
    """Held references, with the ends of their holds; raises as `current_holds`."""
    found: dict[str, int] = {}
    for one in current_holds(state, now):
        found[one.reference] = max(found.get(one.reference, 0), one.until)
    return found


def _checked(made: Hold) -> Hold:
    # In the spelling of the events, however it was typed.
    made = replace(made, reference=canonical_reference(made.reference))
    texts = (made.reference, made.why, made.who)
    if not all(isinstance(text, str) for text in texts) or not isinstance(made.until, int):
        raise ValueError("not a hold")
    return made


KEPT = KeptFile(
    "holds.json", "holds", Hold, _checked, "nothing is deleted until it is whole or moved away",
    stays=True,  # in its place: without it what it holds would be deleted
)  # fmt: skip
"""All that are kept, also those that are over."""


def hold_of(content: Mapping[str, Any]) -> Hold:
    """A hold of what it says.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    return _checked(Hold(**content))


def tell_hold(state: Path, now: float, action: str, held: Hold, why: str, who: str, **more: str) -> None:
    """Add a line on a hold to the audit log; the folder is locked.

    Raises:
        StateError: not writable.
    """
    append_in_lock(
        state, who, action, now, reference=held.reference, until=time_text(held.until), why=why, **more
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence of some references: events by store.

    Attributes:
        events: by the names of stores.
        errors: of stores that cannot be read.
    """

    events: Mapping[str, list[Event]]
    errors: tuple[UrlwardError, ...]

    def of(self, reference: str) -> dict[str, list[Event]]:
        """Evidence of one reference, by the names of stores."""
        every = [event for events in self.events.values() for event in events]
        versions = {
            (event.list, event.serial)
            for event in every
            if event.reference == reference and event.kind in HITS and event.serial
        }
        found = {
            name: [
                event
                for event in events
                if event.reference == reference
                or (not event.reference and (event.list, event.serial) in versions)
            ]
            for name, events in self.events.items()
        }
        return {name: events for name, events in found.items() if events}

    def hits(self, reference: str) -> list[Event]:
        """Blocks and cuts that have a reference, each once."""
        found = {
            event.id: event
            for events in self.events.values()
            for event in events
            if event.reference == reference and event.kind in HITS
        }
        return [*found.values()]


def evidence_of(
    references: Collection[str],
    opened: Iterable[KeepingStore],
    errors: Iterable[UrlwardError],
    state: Path,
) -> Evidence:
    """Find the evidence of references.

    Args:
        references: as the records have them.
        opened: the stores that can be opened.
        errors: of those that cannot.
        state: the state folder.
    """
    from urlward.records.outbox import Outbox  # brings SQLite, to each command's start

    found: dict[str, list[Event]] = {}
    failed = [*errors]
    if references:
        for store in opened:
            try:
                found[store.name] = store.evidence(references)
            except UrlwardError as e:
                failed.append(e)
        outbox = Outbox(state, make=False)
        try:
            found[str(outbox.path)] = outbox.evidence(references)
        except UrlwardError as e:
            failed.append(e)
        finally:
            outbox.close()
    return Evidence(found, tuple(failed))
