"""``urlward who``: who had an address at a time, also of the client that met a block, by its reference; and
``urlward report``.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urlward.assignments.interval import LAST_PORT, MOST_APART, AssignmentError, place_of, to_ms
from urlward.commands.arguments import DONE, WRONG, Command, caller, subcommand
from urlward.commands.assignments import add_database_arguments, assignments_of, open_assignments
from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.options import given_path
from urlward.policy.own import LEARNED, own_entries
from urlward.policy.reasons import reason_of
from urlward.records.event import HITS, Event, parse_reference
from urlward.records.store import EventQuery
from urlward.records.stores import searchable
from urlward.state.audit import append
from urlward.units import whole

if TYPE_CHECKING:
    from urlward.assignments.who import WhoAnswer

ONE, NOT_ONE = 0, 1

_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)?").fullmatch
_UNITS = {"ms": 1, "s": 1000, None: 1000, "m": 60_000, "h": 3_600_000}


class Seen(NamedTuple):
    """Client as an event has it: address, source port (0 where it is not known), time in ms."""

    address: str
    port: int
    at: int


type FindEvents = Callable[[Config, Path, str], Sequence[Seen]]
"""The clients that a reference is of, by the configuration and the state folder."""


def add_who_command(command: Command, find_events: FindEvents | None = None) -> None:
    """Declare ``urlward who``; what it needs is imported when it runs.

    Args:
        command: declares a command.
        find_events: finds events by reference; `seen_by` where not given.
    """
    asking = command(
        "who", lambda args: _who(args, find_events or seen_by), "Tell who had an address at a time."
    )
    asking.add_argument("address", nargs="?", metavar="ADDRESS[:PORT]", help="or [ADDRESS]:PORT for IPv6")
    asking.add_argument("--at", metavar="TIME", help="such as 2026-11-24T12:00:03Z")
    asking.add_argument("--reference", metavar="R", help="of a block, instead of an address and a time")
    asking.add_argument(
        "--why", required=True, metavar="TEXT", help="for the audit log, such as a case's number"
    )
    asking.add_argument(
        "--tolerance",
        default="0s",
        metavar="TIME",
        help="that clocks may be apart, up to 1h: 5s, 500ms, 2m (0s)",
    )
    asking.add_argument("--json", action="store_true", help="as a JSON object")
    add_database_arguments(asking)


def split_address(text: str) -> tuple[str, int | None]:
    """Parse address and port of ``192.0.2.7``, ``192.0.2.7:443``, ``2001:db8::7`` or ``[2001:db8::7]:443``.

    Raises:
        AssignmentError: none of these.
    """
    address, colon, port = text, "", ""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1] or ("" if bracket else "["), rest[1:]
    elif text.count(":") == 1:
        address, colon, port = text.partition(":")
    try:
        canonical = place_of(address)[1]
        number = whole(port, LAST_PORT) if colon else None
        if colon not in ("", ":") or "/" in canonical or number == 0:
            raise ValueError
    except ValueError:
        raise AssignmentError(
            f"{text[:80]!r} is not an address such as 192.0.2.7:40213 or [2001:db8::7]:40213"
        ) from None
    return canonical, number


def read_tolerance(text: str) -> int:
    """Parse milliseconds of ``5s``, ``500ms``, ``2m`` or ``1h``, which is the most.

    Raises:
        AssignmentError: none of these, or more.
    """
    match = _DURATION(text)
    if match is None:
        raise AssignmentError(f"tolerance: {text!r} is not a time such as 5s or 500ms")
    found = round(float(match[1]) * _UNITS[match[2]])
    if found > MOST_APART:
        raise AssignmentError(f"tolerance: {text!r} is more than an hour, the most that clocks may be apart")
    return found


def read_time(text: str) -> int:
    """Parse an RFC 3339 time; it has to say its offset, since an hour off is another subscriber.
    Milliseconds.

    Raises:
        AssignmentError: none.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return to_ms(at)
    except ValueError:
        raise AssignmentError(
            f"at: {text!r} is not a time with its offset, such as 2026-11-24T12:00:03Z"
        ) from None


def _who(args: argparse.Namespace, find_events: FindEvents) -> int:
    from urlward.assignments.who import WhoQuestion, answer_fields, who

    why = reason_of(args.why)
    reference = None if args.reference is None else parse_reference(args.reference)
    tolerance = read_tolerance(args.tolerance)
    if (reference is None) == (args.address is None):
        raise AssignmentError("give an address and --at TIME, or --reference R")
    if (args.address is None) != (args.at is None):
        raise AssignmentError("--at TIME goes with an address")
    named = [] if reference else [WhoQuestion(*split_address(args.address), read_time(args.at), tolerance)]
    asked = {
        "why": why,
        **({"reference": reference} if reference else {"address": args.address, "at": args.at}),
    }
    config, state = assignments_of(args)
    try:
        with open_assignments(args, config, state) as store:
            found = find_events(config, state, reference) if reference else ()
            if reference and not found:
                append(state, caller(), "who", time.time(), **asked, answer="none")
                print(f"urlward: no event has the reference {reference}", file=sys.stderr)
                return NOT_ONE
            questions = named or [WhoQuestion(*split_address_of(seen), tolerance) for seen in found]
            answers = [who(store, question) for question in questions]
    except UrlwardError:
        append(state, caller(), "who", time.time(), **asked, answer="error")
        raise
    for answer in answers:
        # Told first: where it cannot be written down, nothing is answered.
        append(state, caller(), "who", time.time(), **{**asked, **answer_fields(answer)})
    _show(answers, as_json=args.json)
    return ONE if len(answers) == 1 and answers[0].verdict == "one" else NOT_ONE


def split_address_of(seen: Seen) -> tuple[str, int | None, int]:
    """A question's address, port and time; an event without a port has 0.

    Raises:
        AssignmentError: its address was shortened or replaced for privacy.
    """
    try:
        address = place_of(seen.address)[1]
        if "/" in address:
            raise ValueError
    except ValueError:
        raise AssignmentError("the event does not have the client's whole address") from None
    return address, seen.port or None, seen.at


def _show(answers: "Sequence[WhoAnswer]", *, as_json: bool) -> None:
    from urlward.assignments.who import answer_fields, answer_lines

    for answer in answers:
        print(json.dumps(answer_fields(answer)) if as_json else "\n".join(answer_lines(answer)))


def seen_by(config: Config, state: Path, reference: str) -> list[Seen]:
    """Find the clients of a reference.

    Raises:
        UrlwardError: as `events_by`, or addresses are not kept whole.
    """
    return [*map(seen_in, events_by(config, state, reference, *sorted(HITS)))]


def events_by(config: Config, state: Path, reference: str, *kinds: str) -> list[Event]:
    """Find the events of a reference, in the first store that can be searched.

    Raises:
        UrlwardError: there is no such store.
        StoreError: it cannot be read.
    """
    # It brings SQLAlchemy, half a second of each command's start.
    from urlward.records.database import open_database

    if (table := searchable(config.records)) is None:
        raise UrlwardError("reference: no store of events that can be searched is configured ([records])")
    with closing(open_database(table, state, make=False)) as store:
        return store.find(EventQuery(reference=reference, kinds=kinds))


def seen_in(event: Event) -> Seen:
    """The client of an event.

    Raises:
        UrlwardError: its address is not kept whole.
    """
    try:
        ip_address(event.client)
    except ValueError as e:
        raise UrlwardError("reference: the records keep no whole address of clients (privacy)") from e
    return Seen(event.client, event.client_port, event.time)


PRIVATE = 0o600
"""Mode of a report's files, which may tell of a person."""


def add_report_commands(command: Command) -> None:
    """Declare ``urlward report``; what it needs is imported when it runs."""
    of_report = command("report", None, "Reports for hotlines and authorities.").add_subparsers(
        required=True, metavar="COMMAND"
    )
    on_file = subcommand(of_report, "file", _file, "Write what is known of a known file that was met.")
    on_file.add_argument("reference", metavar="REFERENCE", help="as the event and the block page have it")
    on_file.add_argument(
        "-o",
        "--output",
        required=True,
        type=given_path,
        metavar="DIR",
        help="a new one, for report.html, report.json",
    )
    on_file.add_argument("--why", required=True, metavar="TEXT", help="whom or what for; audited")
    on_file.add_argument(
        "--order", metavar="TEXT", help="that asks who had the client's address, such as a court's; audited"
    )
    on_file.add_argument(
        "--tolerance", default="0s", metavar="TIME", help="with --order: that clocks may be apart (0s)"
    )
    add_database_arguments(on_file)


def _file(args: argparse.Namespace) -> int:
    from urlward.report.document import check_folder, write_report
    from urlward.report.known_file import Prepared, report_of

    why, reference = reason_of(args.why), parse_reference(args.reference)
    order = "" if args.order is None else reason_of(args.order)
    tolerance = read_tolerance(args.tolerance)
    config, state = assignments_of(args)
    check_folder(args.output, replaces=False)  # somebody has told of that one, too
    asked = {"reference": reference, "why": why} | ({"order": order} if order else {})
    try:
        events = events_by(config, state, reference, "file")
        answers = _who_of(args, config, state, events, tolerance) if order else []
        learned = [one for one in own_entries(state) if one.who == LEARNED and reference in one.note]
    except UrlwardError:
        _tell(state, asked, "error")
        raise
    # Told first: where it cannot be written down, nothing is exported.
    _tell(state, asked, "one" if events else "none", answers)
    if not events:
        print(f"urlward: no known file has the reference {reference}", file=sys.stderr)
        return WRONG
    node = events[0].node or (config.records.node if config.records is not None else "")
    prepared = Prepared(caller(), int(time.time() * 1000), why, node, order)
    made = report_of(reference, events, prepared, learned, answers)
    page = write_report(args.output, made, PRIVATE, replaces=False)
    print(f"{page}: what is known of it; {page.with_suffix('.json').name} beside it is for programs")
    return DONE


def _who_of(
    args: argparse.Namespace, config: Config, state: Path, events: Sequence[Event], tolerance: int
) -> "list[WhoAnswer]":
    """Who had the addresses of some events' clients."""
    from urlward.assignments.who import WhoQuestion, who

    with open_assignments(args, config, state) as store:
        questions = [WhoQuestion(*split_address_of(seen_in(event)), tolerance) for event in events]
        return [who(store, question) for question in questions]


def _tell(state: Path, asked: Mapping[str, str], answer: str, answers: "Sequence[WhoAnswer]" = ()) -> None:
    """Add lines to the audit log: of the report, and of each question that it asks, as `urlward who` does."""
    from urlward.assignments.who import answer_fields

    now = time.time()
    append(state, caller(), "file-report", now, **asked, answer=answer)
    for each in answers:
        append(state, caller(), "who", now, **{**asked, **answer_fields(each)})
