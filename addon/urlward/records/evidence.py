"""Evidence of references: the events that explain them, in every store and in the outbox.

An event says which client met what, and by which version of a list; the events of that version say what it
was. Who had the client's address is in the assignments (`urlward.assignments.retention`), and what
somebody has written of it among the objections.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.records.event import HITS, Event
from urlward.records.outbox import Outbox
from urlward.records.store import KeepingStore


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
