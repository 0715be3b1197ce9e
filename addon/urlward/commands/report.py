"""``urlward report``."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.commands.arguments import DONE, WRONG, Command, caller, subcommand
from urlward.commands.assignments import add_database_arguments, assignments_of, open_assignments
from urlward.commands.who import events_by, read_tolerance, seen_in, split_address_of
from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.options import given_path
from urlward.policy.own import LEARNED, own_entries
from urlward.policy.reasons import reason_of
from urlward.records.event import Event, parse_reference
from urlward.state.audit import append

if TYPE_CHECKING:
    from urlward.assignments.who import WhoAnswer

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
        answers = _who(args, config, state, events, tolerance) if order else []
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


def _who(
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
