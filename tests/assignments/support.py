"""Assignments for tests: small hours of a day in November 2026."""

from pathlib import Path

from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import Imported, import_file
from urlward.assignments.interval import FOREVER, Interval, Sighting, SightingKind, place_of
from urlward.assignments.merging import Merger
from urlward.assignments.store import AssignmentStore

START = 1_795_000_000_000
SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000


def at(seconds: float) -> int:
    """Milliseconds, so many seconds after the start."""
    return START + round(seconds * 1000)


def sighting(
    network: str,
    start: float,
    end: float | None,
    subscriber: str,
    said: SightingKind = SightingKind.HELD,
    *,
    session: str = "",
    ports: tuple[int, int] = (0, 65_535),
    seen: float | None = None,
) -> Sighting:
    until = FOREVER if end is None else at(end)
    told = (
        (until if said in (SightingKind.ENDED, SightingKind.STOPPED) else at(start))
        if seen is None
        else at(seen)
    )
    return (*place_of(network), *ports, at(start), until, told, subscriber, session, int(said))


def taken(
    store: AssignmentStore, *sightings: Sighting, name: str = "test", batch: int = 100, now: int = START
) -> None:
    """Have a source say things."""
    source = store.source(name, "csv", "test.csv")
    merger = Merger(store, source.id, source.format)
    for first in range(0, len(sightings), batch):
        merger.take(sightings[first : first + batch])
        store.write(source, merger.finished(), now)


def held(store: AssignmentStore, address: str, seconds: float, port: int | None = None) -> list[str]:
    """Subscribers with an address at a time."""
    return [one.subscriber for one in store.find(address, port, at(seconds), at(seconds))]


def intervals(store: AssignmentStore, address: str) -> list[tuple[str, float, float | None, str]]:
    """Subscriber, start and end in seconds after the start, and how the end is known."""
    return [_shown(one) for one in store.find(address, None, START - DAY, START + 400 * DAY)]


def _shown(one: Interval) -> tuple[str, float, float | None, str]:
    end = None if one.end == FOREVER else (one.end - START) / 1000
    return one.subscriber, (one.start - START) / 1000, end, one.ending.name


def read(store: AssignmentStore, format_: str, path: Path, options: ReadOptions | None = None) -> Imported:
    """Import a file."""
    source = store.source(format_, format_, str(path))
    return import_file(store, source, path, options or ReadOptions(), lambda: START / 1000)
