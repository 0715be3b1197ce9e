"""``urlward events``."""

import argparse
import csv
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from urlward.commands.arguments import DONE, WRONG, Command, add_state_arguments, caller, recorded
from urlward.config import SYSTEM
from urlward.config.tables import join_address
from urlward.engine.dates import parse_time, time_text_ms
from urlward.engine.errors import UrlwardError
from urlward.lines import quoted
from urlward.options import given_number
from urlward.records.event import FIELDS, KINDS, Event, as_json, csv_cells, parse_reference
from urlward.records.privacy import digests_of, kept_client
from urlward.records.reading import Readings
from urlward.records.store import EventQuery
from urlward.records.stores import searchable
from urlward.state.folder import kept_key
from urlward.units import DAY_MS, seconds

if TYPE_CHECKING:
    from urlward.records.database import Database

SHOWN = 100
"""Events shown where no number is given and they are for people."""

BEFORE = 10
"""Events shown where no number is given, before those that come."""

PAGE = 1_000
LOOK = 1.0
"""Seconds between two looks for new events."""

LONG_AGO = 10 * 366 * DAY_MS
"""Milliseconds in which are all events that are searched for a client's digests of each day."""

OVERLAP = 5_000
"""Numbers looked at again: in PostgreSQL one that was given earlier may be there only later."""

_SAID = tuple(
    name for name in FIELDS if name not in ("id", "time", "kind", "client_port", "destination_port")
)
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]@")

_EQUAL = (
    ("list", "L", "name of the list"),
    ("category", "C", "of the entry"),
    ("client", "A", "address, as the privacy level leaves it"),
    ("entry", "ID", "of the entry"),
    ("group", "NAME", "that the client is in"),
    ("reference", "R", "as it stands on the block page"),
)


def add_events_commands(command: Command) -> None:
    """Declare ``urlward events``; what it needs is imported when it runs."""
    events = command("events", _events, "Show what was recorded, the newest first.")
    events.add_argument("--since", metavar="T", help="a date, a time (RFC 3339), or 2h for that long ago")
    events.add_argument("--until", metavar="T", help="likewise; a date is until its end")
    events.add_argument(
        "--kind", action="append", choices=sorted(KINDS), metavar="K", help=", ".join(sorted(KINDS))
    )
    for name, metavar, help_text in _EQUAL:
        events.add_argument(f"--{name}", metavar=metavar, help=help_text)
    events.add_argument(
        "--limit", type=given_number, metavar="N", help=f"how many ({SHOWN}; all with --json or --csv)"
    )
    events.add_argument("--follow", action="store_true", help="some, then what comes, the newest last")
    form = events.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON Lines")
    form.add_argument("--csv", action="store_true", help="as CSV, with a head")
    add_state_arguments(events)


def _events(args: argparse.Namespace) -> int:
    now = time.time()
    state, database, query = _asked(args, _query(args, now), round(now * 1000))
    write = _told_first(_writer(args, sys.stdout), lambda: Readings(state).tell(caller(), query, _form(args)))
    try:
        if args.follow:
            _follow(database, query, args.limit, write)
        else:
            limit = args.limit or (None if args.json or args.csv else SHOWN)
            found = False
            for event in islice(pages(database, query), limit):
                write(event)
                found = True
            if query.reference and not found:
                print(f"urlward: no event has the reference {query.reference}", file=sys.stderr)
                return WRONG
    except KeyboardInterrupt:
        return DONE
    finally:
        database.close()
    return DONE


def _follow(
    database: "Database", query: EventQuery, limit: int | None, write: Callable[[Event], None]
) -> None:
    seen = database.last()
    shown = [*islice(pages(database, query), limit or BEFORE)][::-1]
    for event in shown:
        write(event)
    sys.stdout.flush()
    known = {event.id for event in shown}
    for event in followed(database, query, seen):
        if event.id not in known:
            write(event)
            sys.stdout.flush()


def _query(args: argparse.Namespace, now: float) -> EventQuery:
    if args.limit is not None and not 1 <= args.limit <= sys.maxsize:
        raise UrlwardError(f"--limit: a number from 1 to {sys.maxsize} is needed")
    if args.follow and args.until:
        raise UrlwardError("--follow goes on for ever: without --until")
    equal = {name: getattr(args, name) for name, _, _ in _EQUAL}
    for name, value in equal.items():
        if value == "":
            # Such as of a variable that is not set: without it, it would be everybody's events.
            raise UrlwardError(f"--{name}: is empty")
        if value and not value.isprintable():  # bytes that are no text, which no store takes
            raise UrlwardError(f"--{name}: {value!r}: no event has that")
    if args.client is not None:
        try:
            equal["client"] = kept_client(args.client)
        except ValueError as e:
            raise UrlwardError(f"--client: {args.client!r}: {e}") from None
    if args.reference is not None:
        equal["reference"] = parse_reference(args.reference)
    since, until = read_span(args.since, args.until, now)
    return EventQuery(
        kinds=tuple(args.kind or ()),
        since=since,
        until=until,
        limit=PAGE,
        **equal,
    )


def read_span(since: str | None, until: str | None, now: float) -> tuple[int | None, int | None]:
    """Parse ``--since`` and ``--until``; milliseconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: one is no time, or the second is not after the first.
    """
    begin, end = read_time("--since", since, now), read_time("--until", until, now, whole_day=True)
    if begin is not None and end is not None and end <= begin:
        raise UrlwardError("--until: it ends before --since begins")
    return begin, end


def read_time(name: str, text: str | None, now: float, *, whole_day: bool = False) -> int | None:
    """Parse a date, a time, or a length of time before now; milliseconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: it is none of these.
    """
    if text is None:
        return None
    try:
        ago = seconds(text)
        assert isinstance(ago, float)
        return int((now - ago) * 1000)
    except ValueError:
        pass
    try:
        return parse_time(text, whole_day=whole_day) * 1000
    except ValueError as e:
        raise UrlwardError(f"{name}: {text!r}: {e}, nor a length of time such as 2h") from None


def _asked(args: argparse.Namespace, query: EventQuery, now: int) -> "tuple[Path, Database, EventQuery]":
    """The state folder, the database, and the query as its events may have the client: by its digests, too.

    Args:
        args: of the command.
        query: as it is given.
        now: milliseconds since 1970-01-01 UTC.
    """
    from urlward.records.database import open_database

    records, state = recorded(args)
    if (table := searchable(records)) is None:
        where = args.config or SYSTEM
        raise UrlwardError(f"{where}: no store of kind sqlite or postgresql, which alone can be asked")
    if query.client and "/" not in query.client and not query.client.isalnum():
        # What was kept before goes by the level that was then.
        if key := kept_key(state):
            span = max(query.since or 0, now - LONG_AGO), min(query.until or sys.maxsize, now + LONG_AGO)
            query = replace(query, digests=digests_of(query.client, key.secret, *span))
        if records.privacy != "full" and not (records.privacy == "digest" and query.digests):
            # That nothing is found is not to be taken for that there is nothing of whoever asks.
            what = f'privacy = "{records.privacy}": events have no whole address of a client'
            print(f"urlward: {what}; how one is found is in urlward help retention", file=sys.stderr)
    return state, open_database(table, state, make=False), query


def pages(database: "Database", query: EventQuery) -> Iterator[Event]:
    """All events of a query, the newest first, a page of its limit at a time.

    Raises:
        StoreError: they cannot be read.
    """
    while page := database.find(query):
        yield from page
        query = replace(query, before=page[-1].id)


def followed(
    database: "Database", query: EventQuery, seen: int, wait: Callable[[float], None] = time.sleep
) -> Iterator[Event]:
    """Follow the events of a query that come after a number; it never ends.

    Args:
        database: where they come.
        query: its `limit` is of one look.
        seen: number of the last that is not wanted.
        wait: waits that many seconds.

    Raises:
        StoreError: they cannot be read.
    """
    first, known = seen, OrderedDict[int, None]()
    again = OVERLAP if database.engine.dialect.name == "postgresql" else 0
    while True:
        database.check()
        position, count = max(first, seen - again), len(known)
        while found := database.came_after(position, query):
            for position, event in found:
                if position not in known:
                    known[position] = None
                    seen = max(seen, position)
                    yield event
        if len(known) == count:
            wait(LOOK)
        while len(known) > 2 * OVERLAP:
            known.popitem(last=False)


def _form(args: argparse.Namespace) -> str:
    return "csv" if args.csv else "json" if args.json else "text"


def _told_first(write: Callable[[Event], None], tell: Callable[[], None]) -> Callable[[Event], None]:
    """Write events, and tell of it before the first that has a client."""
    is_told = False

    def written(event: Event) -> None:
        nonlocal is_told
        if event.client and not is_told:
            tell()
            is_told = True
        write(event)

    return written


def _writer(args: argparse.Namespace, stream: TextIO) -> Callable[[Event], None]:
    if args.csv:
        rows = csv.writer(stream, lineterminator="\r\n")
        rows.writerow(FIELDS)
        return lambda event: rows.writerow(csv_cells(event))
    if args.json:
        return lambda event: print(json.dumps(as_json(event)), file=stream)
    return lambda event: print(line(event), file=stream)


def line(event: Event) -> str:
    """Format an event as one line, for people; what does not apply is left out."""
    said = {name: str(value) for name in _SAID if (value := getattr(event, name))}
    for name, port in (("client", event.client_port), ("destination", event.destination_port)):
        if name in said and port:
            said[name] = join_address(said[name], port)
    detail = said.pop("detail", "")
    words = [f"{name}={value if _BARE.issuperset(value) else quoted(value)}" for name, value in said.items()]
    more = quoted(json.loads(detail)) if detail else ""  # written by who objects, among others
    return " ".join(filter(None, [time_text_ms(event.time), event.kind, *words, more]))
