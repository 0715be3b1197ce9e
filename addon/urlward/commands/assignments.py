"""``urlward assignments``."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from urlward.assignments.formats import DETERMINISTIC, FORMATS, LEASES, RADACCT, ReadOptions
from urlward.assignments.interval import FOREVER, AssignmentError, ms_text, to_ms
from urlward.commands.arguments import DONE, Command, add_state_arguments, caller, subcommand
from urlward.config import SYSTEM, Config, configured
from urlward.config.records import no_days_of_assignments
from urlward.lines import plain
from urlward.lists.source import ErrorBudget, read_budget
from urlward.options import given_number, given_path
from urlward.policy.reasons import reason_of
from urlward.progress import progress_bar
from urlward.state.audit import append
from urlward.state.folder import found_folder, made_folder, state_folder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from urlward.assignments.importing import Imported, Judge
    from urlward.assignments.interval import SightingSource
    from urlward.assignments.store import AssignmentStore, KeepingNode

_PAUSE_SQL = 30.0
_TAB = ("\\t", "tab")


def add_assignment_commands(command: Command) -> None:
    """Declare ``urlward assignments``; what it needs is imported when it runs."""
    top = command("assignments", None, "Who had an address when: leases, accounting, translators' logs.")
    of_it = top.add_subparsers(required=True, metavar="COMMAND")
    formats = ", ".join([*FORMATS, RADACCT])

    taking = _sub(of_it, "import", _import, "Read files, or go on where reading them ended.")
    taking.add_argument("format", choices=[*FORMATS, RADACCT], metavar="FORMAT", help=formats)
    taking.add_argument(
        "files", nargs="+", metavar="FILE", help=f"for {RADACCT}: file with the database's URL"
    )
    _reading_arguments(taking)
    taking.add_argument("--max-errors", metavar="N|N%", default="1%", help="rows not understood (1%%)")

    following = _sub(of_it, "follow", _follow, "Read what is written to a file, until stopped.")
    following.add_argument("format", choices=[*FORMATS, RADACCT], metavar="FORMAT", help=formats)
    following.add_argument(
        "files", nargs=1, metavar="FILE", help=f"for {RADACCT}: file with the database's URL"
    )
    _reading_arguments(following)

    formula = _sub(of_it, "formula", _formula, "Say how a translator maps (RFC 7422): sequentially.")
    formula.add_argument("inside", metavar="INSIDE", help="the subscribers' network, such as 100.64.0.0/22")
    formula.add_argument("outside", metavar="OUTSIDE", help="the public one, such as 198.51.100.0/28")
    formula.add_argument("--ports", type=given_number, required=True, metavar="N", help="of each subscriber")
    formula.add_argument(
        "--first-port", type=given_number, default=1024, metavar="N", help="the first of all (1024)"
    )
    formula.add_argument("--from", dest="start", metavar="TIME", help="since when (always; UTC if not said)")
    formula.add_argument("--to", dest="end", metavar="TIME", help="until when (still; likewise)")
    formula.add_argument(
        "--replace", action="store_true", help="in place of what is known of its addresses in its time"
    )
    formula.add_argument("--source", metavar="NAME", required=True, help="name of the translator")

    deleting = _sub(of_it, "delete", _delete, "Take back all that was imported from a source.")
    deleting.add_argument("--source", metavar="NAME", required=True, help="that status shows")
    deleting.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")

    status = _sub(of_it, "status", _status, "Show what was read, and how far.")
    status.add_argument("--json", action="store_true", help="as a JSON object")


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where assignments are; `open_assignments` opens them."""
    add_state_arguments(parser)
    parser.add_argument(
        "--database",
        type=given_path,
        metavar="FILE",
        help="file with a postgresql:// URL (as configured, or SQLite in the state folder)",
    )


def assignments_of(args: argparse.Namespace) -> tuple[Config, Path]:
    """The configuration and the state folder that say whose assignments are meant.

    Raises:
        AssignmentError: nothing does.
        ConfigError: the configuration cannot be used.
        StateError: nor the state folder.
    """
    path, config = configured(args.config)
    if path is None and args.state is None and args.database is None:
        raise AssignmentError(
            f"no --config given, and there is no {SYSTEM} either: which filter's? give its own with "
            "--config, or its state folder with --state"
        )
    return config, state_folder(args.state or config.state)


def open_assignments(
    args: argparse.Namespace, config: Config, state: Path, *, make: bool = False
) -> "AssignmentStore":
    """Open the store as given.

    Args:
        args: of the command.
        config: the configuration.
        state: the state folder.
        make: whether a file that is not there is made.

    Raises:
        AssignmentError: the database cannot be opened, or nothing was ever imported into it.
        StateError: the state folder cannot be used.
    """
    from urlward.assignments.retention import database_of
    from urlward.assignments.store import AssignmentStore

    folder = made_folder if make else found_folder
    database = _url_in(args.database) if args.database else database_of(config.records, folder(state))
    if not make and isinstance(database, Path) and not database.exists():
        # An empty one of our own making would answer "nobody".
        raise AssignmentError(f"{database}: not there: no assignments were ever imported here")
    return AssignmentStore(database)


def _open_to_take(args: argparse.Namespace) -> "tuple[AssignmentStore, KeepingNode | None]":
    """Open the store for an import as `open_assignments`, with the node whose sources are read; the
    configuration has to say for how long assignments are kept.

    Raises:
        ConfigError: it does not; or as `open_assignments`.
    """
    config = configured(args.config)[1]
    if config.records is None or config.records.days.assignments is None:
        raise config.refused(no_days_of_assignments())
    from urlward.assignments.retention import keeper_of

    state = state_folder(args.state or config.state)
    store = open_assignments(args, config, state, make=True)
    return store, keeper_of(config.records, state, store)


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
        "first_port, last_port, ports, session, event, protocol, by name or number",
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
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise AssignmentError("delimiter: one character, and no quote or line break")
    try:
        zone = UTC if args.zone == "UTC" else ZoneInfo(args.zone)
    except (ValueError, OSError) as e:
        raise AssignmentError(f"zone: {args.zone!r} is none, such as Europe/Berlin") from e
    except KeyError as e:
        raise AssignmentError(f"zone: {args.zone!r} is not known") from e
    return ReadOptions(columns, delimiter, zone)


def _import(args: argparse.Namespace) -> int:
    from urlward.assignments.importing import (
        earlier_files,
        gone_meanwhile,
        import_file,
        in_order,
    )

    options = _options(args)
    budget = read_budget(args.max_errors, "max-errors")
    store, keeper = _open_to_take(args)
    wrong = []
    started = time.time()
    with store:
        paths = [*map(Path, args.files)]
        if args.format != RADACCT and len(paths) > 1:
            paths = in_order(store, args.format, paths, options)
        for path in paths:
            begun = time.monotonic()

            def judge(done: "Imported") -> str:
                return _fault(args.format, done, budget)

            def tell(where: str, done: "Imported") -> None:
                nonlocal begun
                _tell(where, args.format, done, time.monotonic() - begun)
                begun = time.monotonic()
                if done.refused:
                    wrong.append(f"{where}: {done.refused}")

            def read(source: "SightingSource", path: Path) -> "Imported":
                with progress_bar() as progress:
                    return import_file(store, source, path, options, time.time, progress, judge, started)

            if args.format == RADACCT:
                tell(*_radacct(store, keeper, path, args, options, judge))
                continue
            with _importing(store, args, str(path), keeper) as source:
                for one in earlier_files(store, source, path):
                    with gone_meanwhile(one):
                        tell(str(one), read(replace(source, path=str(one)), one))
                tell(str(path), read(source, path))
    if wrong:
        raise AssignmentError("; ".join(wrong))
    return DONE


def _importing(
    store: "AssignmentStore", args: argparse.Namespace, path: str, keeper: "KeepingNode | None"
) -> "AbstractContextManager[SightingSource]":
    """The source that is read: of the name that was given, or of the format's where no other node has it."""
    name, takes_over = args.source or args.format, args.source is not None
    return store.importing(name, args.format, path, keeper, takes_over=takes_over)


def _tell(where: str, format_: str, done: "Imported", seconds: float) -> None:
    """Print what was read, and what of it was not understood."""
    where = plain(where)
    resumed = f", after {done.resumed} bytes that were read before" if done.resumed else ""
    resumed = resumed if format_ != RADACCT else ""
    print(f"{where}: {done.rows} rows, {done.faulty} not understood{resumed}, {seconds:.1f} s", flush=True)
    line = f"{where}: row " if format_ == RADACCT else f"{where}:"
    _tell_faults(line, done.faults, done.faulty)
    if done.refused and not done.rows:
        _tell_faults(line, [(number, f"not of the format {format_}") for number in done.others], done.other)
    if done.pending and not done.refused:
        print(
            f"{where}: its last {done.pending} bytes are no whole row, and left for the next time:"
            " where nothing more is written to it, end its last line",
            file=sys.stderr,
            flush=True,
        )
    if not done.refused:
        _tell_left(where, format_, done)
    if ends := done.skipped - done.faulty:
        print(f"{where}: {ends} ends without a known beginning", file=sys.stderr, flush=True)


def _tell_left(where: str, format_: str, done: "Imported") -> None:
    """Print that a log was rotated, or a file of leases written anew, while nobody read it."""
    if done.left:
        what = (
            "written anew, with the last of each address, since it was last read at"
            f" {ms_text(done.left)}: who had one only meanwhile is not in it; have it followed"
            if format_ in LEASES
            else f"the log before this one was last read at {ms_text(done.left)}: what was written since"
            " and is not in this one, an end among it, is not known; import that, by its new name"
        )
        print(
            f"{where}: {what}",
            file=sys.stderr,
            flush=True,
        )


def _tell_faults(where: str, faults: Sequence[tuple[int, str]], count: int) -> None:
    for number, reason in faults:
        print(f"{where}{number}: {reason}", file=sys.stderr, flush=True)
    if count > len(faults) > 0:
        print(f"{where} … and {count - len(faults)} more", file=sys.stderr, flush=True)


def _fault(format_: str, done: "Imported", budget: ErrorBudget) -> str:
    """Why nothing of a file is taken; empty for nothing."""
    if budget.exceeded(done.faulty, done.rows):
        return (
            f"{done.faulty} of {done.rows} rows not understood, allowed are {budget}: nothing of it is taken"
        )
    if not done.rows and not done.resumed and (done.other or done.pending):
        if not done.other:
            return f"its {done.pending} bytes are of a record of {format_} that is not whole"
        return f"nothing of the format {format_} in it, {done.other} lines of something else"
    return ""


def _follow(args: argparse.Namespace) -> int:
    from urlward.assignments.importing import follow, repeated

    options = _options(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    store, keeper = _open_to_take(args)
    (name,) = args.files
    with store:
        if args.format == RADACCT:

            def look() -> "tuple[tuple[str, Imported], bool]":
                return _radacct(store, keeper, Path(name), args, options), False

            for where, done in repeated(name, look, _PAUSE_SQL, _wait):
                print(f"{where}: {done.rows} rows, {done.faulty} not understood", flush=True)
            return DONE
        with _importing(store, args, name, keeper) as source:
            told, shown, left = -1, 0, 0
            for state in follow(store, source, Path(name), options, wait=_wait):
                if state.left != left:
                    _tell_left(plain(name), args.format, state)
                    left = state.left
                # What has the path may be another file by now.
                shown = min(shown, len(state.faults))
                _tell_faults(f"{name}:", state.faults[shown:], 0)
                shown = len(state.faults)
                if state.rows != told:
                    told = state.rows
                    nothing = (
                        f", nothing of the format {args.format} yet" if not state.rows and state.other else ""
                    )
                    print(f"{name}: {state.rows} rows, {state.faulty} not understood{nothing}", flush=True)
    return DONE


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _radacct(
    store: "AssignmentStore",
    keeper: "KeepingNode | None",
    file: Path,
    args: argparse.Namespace,
    options: ReadOptions,
    judge: "Judge" = lambda _: "",
) -> "tuple[str, Imported]":
    from urlward.assignments.radacct import import_radacct, shown_url

    url = _url_in(file)
    with _importing(store, args, shown_url(url), keeper) as source:
        return source.path, import_radacct(store, source, url, options, time.time(), judge)


def _url_in(file: Path) -> str:
    from urlward.records.sql import url_in
    from urlward.records.store import StoreError

    try:
        return url_in(file)
    except StoreError as e:
        raise AssignmentError(f"{e}: needed, a file with the database's URL") from e


def _moment(name: str, text: str | None, absent: int) -> int:
    try:
        return absent if text is None else to_ms(text)
    except ValueError as e:
        raise AssignmentError(f"--{name}: {text!r} is not a time such as 2026-11-24T12:00:03Z") from e


def _formula(args: argparse.Namespace) -> int:
    from urlward.assignments.deterministic import Formula, add_formula

    try:
        formula = Formula(
            IPv4Network(args.inside), IPv4Network(args.outside), args.ports, args.first_port,
            _moment("from", args.start, 0), _moment("to", args.end, FOREVER),
        )  # fmt: skip
    except (ValueError, AssignmentError) as e:
        raise AssignmentError(f"formula: {e}") from e
    config, state = assignments_of(args)

    def record(replaced: "list[Formula]") -> None:
        # Before it answers anything: what an answer rested on can be told from the audit log.
        told = {"source": args.source, "formula": str(formula), "replaced": [*map(str, replaced)]}
        append(state, caller(), "formula", time.time(), **told)

    with open_assignments(args, config, state, make=True) as store:
        mapped = f"{formula.inside} to {formula.outside}"
        with store.importing(args.source, DETERMINISTIC, mapped) as source:
            replaced = add_formula(store, source, formula, replace=args.replace, told=record)
    print(f"{args.source}: {formula.per_address} subscribers an address, {formula.ports} ports each")
    for one in replaced:
        print(f"{args.source}: in place of {one}, in its time")
    return DONE


def _delete(args: argparse.Namespace) -> int:
    from urlward.assignments.retention import delete_source, hold_all

    why, now = reason_of(args.why), time.time()
    config, state = assignments_of(args)

    def record(count: int) -> None:
        # Before it is so: where it cannot be written down, nothing is deleted.
        append(state, caller(), "source-deleted", time.time(), source=args.source, why=why, deleted=count)

    with open_assignments(args, config, state) as store:
        if config.records is not None and not args.database:
            hold_all(store, config.records, state, now)
        count = delete_source(store, args.source, round(now * 1000), record)
        is_left = plain(args.source) in {one.name for one in store.sources().values()}
    what = "who knows nothing of it until it is imported again" if is_left else "and its name with it"
    print(f"{args.source}: {count} deleted; {what}")
    return DONE


def _status(args: argparse.Namespace) -> int:
    from urlward.assignments.deterministic import known_formulas
    from urlward.assignments.retention import first_purge, keeper_of, oldest_assignment
    from urlward.assignments.store import missing_text

    config, state = assignments_of(args)
    with open_assignments(args, config, state) as store:
        names = {id_: source.name for id_, source in store.sources().items()}
        formulas = {names[id_]: [*map(str, known)] for id_, known in known_formulas(store).items()}
        shown = [
            source | {"formulas": formulas[source["name"]]} if source["name"] in formulas else source
            for source in store.status()
        ]
        oldest = oldest_assignment(store)
        keeper = keeper_of(config.records, state, store) if config.records is not None else None
        purged = first_purge(store, store.days(keeper)) if keeper is not None else None
    days = None if keeper is None else keeper.days
    until = ms_text(purged) if purged is not None else None
    if args.json:
        told = {"oldest": ms_text(oldest) if oldest else None, "days": days, "purged": until}
        print(json.dumps(told | {"sources": shown}, indent=1))
        return DONE
    if oldest is None:
        print("no assignments")
    elif days is None:
        print(f"oldest assignment {ms_text(oldest)}, kept for ever: {no_days_of_assignments()}")
    else:
        print(
            f"oldest assignment {ms_text(oldest)}, each kept until {days} days after its end: first {until}"
        )
    for source in shown:
        if "formulas" in source:
            print(f"{source['name']}: {source['format']}")
            for formula in source["formulas"]:
                print(f"  {formula}")
            continue
        read = source["read"] or "never"
        print(
            f"{source['name']}: {source['format']}, {source['rows']} rows, {source['skipped']} not understood"
            f", read up to {read}, {source['path']}"
        )
        for file in source["files"]:
            found = f", last found {file['read']}" if file["read"] else ""
            print(f"  {file['path']}: read to byte {file['offset']} of {file['size']}{found}")
        for gap in source["missing"]:
            print(f"  {gap['path']}: {missing_text(gap)}")
    return DONE
