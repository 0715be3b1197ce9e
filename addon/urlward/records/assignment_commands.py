"""``urlward assignments``."""

import argparse
import json
import logging
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from urlward.config import Config, configured
from urlward.lists.arguments import DONE, Command, add_state_arguments, subcommand
from urlward.lists.progress import progress_bar
from urlward.lists.state import made_folder, state_folder
from urlward.records.assignments.formats import DETERMINISTIC, FORMATS, RADACCT
from urlward.records.assignments.interval import FOREVER, AssignmentError
from urlward.records.assignments.parsers import ReadOptions
from urlward.records.assignments.times import ms_text, to_ms

if TYPE_CHECKING:
    from urlward.records.assignments.store import AssignmentStore

_PAUSE = 1.0
_PAUSE_SQL = 30.0
_TAB = ("\\t", "tab")


def add_assignment_commands(command: Command) -> None:
    """Declare them; what they need is imported when they run."""
    top = command("assignments", None, "Who had an address when: leases, accounting, translators' logs.")
    of_it = top.add_subparsers(required=True, metavar="COMMAND")
    formats = ", ".join([*FORMATS, RADACCT])

    taking = _sub(of_it, "import", _import, "Read files, or go on where reading them ended.")
    taking.add_argument("format", choices=[*FORMATS, RADACCT], metavar="FORMAT", help=formats)
    taking.add_argument(
        "files", nargs="+", metavar="FILE", help=f"for {RADACCT}: file with the database's URL"
    )
    _reading_arguments(taking)

    following = _sub(of_it, "follow", _follow, "Read what is written to a file, until stopped.")
    following.add_argument("format", choices=[*FORMATS, RADACCT], metavar="FORMAT", help=formats)
    following.add_argument(
        "files", nargs=1, metavar="FILE", help=f"for {RADACCT}: file with the database's URL"
    )
    _reading_arguments(following)

    formula = _sub(of_it, "formula", _formula, "Say how a translator maps (RFC 7422): sequentially.")
    formula.add_argument("inside", metavar="INSIDE", help="the subscribers' network, such as 100.64.0.0/22")
    formula.add_argument("outside", metavar="OUTSIDE", help="the public one, such as 198.51.100.0/28")
    formula.add_argument("--ports", type=int, required=True, metavar="N", help="of each subscriber")
    formula.add_argument("--first-port", type=int, default=1024, metavar="N", help="the first of all (1024)")
    formula.add_argument("--from", dest="start", metavar="TIME", help="since when (always)")
    formula.add_argument("--to", dest="end", metavar="TIME", help="until when (still)")
    formula.add_argument("--source", metavar="NAME", required=True, help="name of the translator")

    status = _sub(of_it, "status", _status, "Show what was read, and how far.")
    status.add_argument("--json", action="store_true", help="as a JSON object")


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where assignments are; `open_assignments` opens them."""
    add_state_arguments(parser)
    parser.add_argument(
        "--database",
        type=Path,
        metavar="FILE",
        help="file with a postgresql:// URL (as configured, or SQLite in the state folder)",
    )


def open_assignments(args: argparse.Namespace) -> "tuple[AssignmentStore, Config, Path]":
    """The store as it was said, the configuration, and the state folder.

    Raises:
        AssignmentError: the database cannot be opened.
        ConfigError: the configuration cannot be used.
        StateError: nor the state folder.
    """
    from urlward.records.assignments.configured import database_of
    from urlward.records.assignments.store import AssignmentStore

    config = configured(args.config)[1]
    state = state_folder(args.state or config.state)
    database = _url_in(args.database) if args.database else database_of(config.records, made_folder(state))
    return AssignmentStore(database), config, state


def _sub(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    sub = subcommand(commands, name, function, help_text)
    add_database_arguments(sub)
    return sub


def _reading_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", metavar="NAME", help="to tell it from others of the format (the format's)"
    )
    parser.add_argument(
        "--column", action="append", default=[], metavar="FIELD=NAME",
        help="column, attribute or statement with subscriber; for csv and ports also address, from, to, "
        "first_port, last_port, ports, session, event, by name or number",
    )  # fmt: skip
    parser.add_argument("--delimiter", metavar="CHARACTER", default=",", help="between columns (,)")
    parser.add_argument("--zone", metavar="NAME", default="UTC", help="of times that do not say theirs (UTC)")


def _options(args: argparse.Namespace) -> ReadOptions:
    columns: dict[str, str] = {}
    for said in args.column:
        field, equals, name = said.partition("=")
        if not equals or not name or field in columns:
            raise AssignmentError(f"column: {said!r} is not FIELD=NAME, once for each field")
        columns[field] = name
    delimiter = "\t" if args.delimiter in _TAB else args.delimiter
    if len(delimiter) != 1:
        raise AssignmentError("delimiter: one character")
    try:
        zone = ZoneInfo(args.zone)
    except (ValueError, OSError) as e:
        raise AssignmentError(f"zone: {args.zone!r} is none, such as Europe/Berlin") from e
    except KeyError as e:
        raise AssignmentError(f"zone: {args.zone!r} is not known") from e
    return ReadOptions(columns, delimiter, zone)


def _import(args: argparse.Namespace) -> int:
    from urlward.records.assignments.importing import import_file

    options = _options(args)
    store, _, _ = open_assignments(args)
    try:
        for name in args.files:
            if args.format == RADACCT:
                print(_radacct(store, Path(name), args, options))
                continue
            source = store.source(args.source or args.format, args.format, name)
            begun = time.monotonic()
            with progress_bar() as progress:
                done = import_file(store, source, Path(name), options, time.time, progress)
            resumed = f", after {done.resumed} bytes that were read before" if done.resumed else ""
            seconds = max(time.monotonic() - begun, 0.001)
            print(
                f"{name}: {done.rows} rows, {done.skipped} not understood{resumed}, {seconds:.1f} s",
                flush=True,
            )
    finally:
        store.close()
    return DONE


def _follow(args: argparse.Namespace) -> int:
    from urlward.records.assignments.following import follow

    options = _options(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    store, _, _ = open_assignments(args)
    (name,) = args.files
    try:
        if args.format == RADACCT:
            while True:
                print(_radacct(store, Path(name), args, options), flush=True)
                time.sleep(_PAUSE_SQL)
        source = store.source(args.source or args.format, args.format, name)
        told = -1
        for state in follow(store, source, Path(name), options, pause=_wait):
            if state.rows != told:
                told = state.rows
                print(f"{name}: {state.rows} rows, {state.skipped} not understood", flush=True)
    finally:
        store.close()
    return DONE


def _wait() -> bool:
    time.sleep(_PAUSE)
    return True


def _radacct(store: "AssignmentStore", file: Path, args: argparse.Namespace, options: ReadOptions) -> str:
    from urlward.records.assignments.radacct import import_radacct, shown_url

    url = _url_in(file)
    source = store.source(args.source or RADACCT, RADACCT, shown_url(url))
    done = import_radacct(store, source, url, options, time.time())
    return f"{source.path}: {done.rows} rows, {done.skipped} not understood"


def _url_in(file: Path) -> str:
    """A URL has a password in it, which the command line would show to all."""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = getattr(e, "strerror", None) or "not text"
        raise AssignmentError(f"{file}: {reason}: needed, a file with the database's URL") from e


def _formula(args: argparse.Namespace) -> int:
    from urlward.records.assignments.deterministic import Formula, set_formula

    try:
        formula = Formula(
            IPv4Network(args.inside), IPv4Network(args.outside), args.ports, args.first_port,
            to_ms(args.start) if args.start else 0, to_ms(args.end) if args.end else FOREVER,
        )  # fmt: skip
    except ValueError as e:
        raise AssignmentError(f"formula: {e}") from e
    store, _, _ = open_assignments(args)
    try:
        source = store.source(args.source, DETERMINISTIC, f"{formula.inside} to {formula.outside}")
        set_formula(store, source, formula)
    finally:
        store.close()
    print(f"{args.source}: {formula.per_address} subscribers an address, {formula.ports} ports each")
    return DONE


def _status(args: argparse.Namespace) -> int:
    from urlward.records.assignments.retention import oldest_assignment

    store, _, _ = open_assignments(args)
    try:
        shown = store.status()
        oldest = oldest_assignment(store)
    finally:
        store.close()
    if args.json:
        print(json.dumps({"oldest": ms_text(oldest) if oldest else None, "sources": shown}, indent=1))
        return DONE
    print(f"oldest assignment {ms_text(oldest)}" if oldest else "no assignments")
    for source in shown:
        read = source["read"] or "never"
        print(
            f"{source['name']}: {source['format']}, {source['rows']} rows, {source['skipped']} not understood"
            f", last read {read}, {source['path']}"
        )
        for file in source["files"]:
            print(f"  {file['path']}: read to byte {file['offset']} of {file['size']}")
    return DONE
