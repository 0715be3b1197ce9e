"""``urlward lab``: the command line of the pilot lab and of the replay of logs; one function a subcommand.

Exit codes of ``lab run``: 0 all expectations hold, 1 not all do, 2 an error.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward import samples
from urlward.commands.arguments import Command, subcommand
from urlward.engine.errors import UrlwardError
from urlward.options import KEY, LIST, given_number, given_path

if TYPE_CHECKING:
    from urlward.replay.judge import Clock
    from urlward.report.document import ReportDocument

OK = 0
_CODES = (OK, 1, 2, 130)
_END_WITHIN = 10.0
_DEFAULT = "lab"
SHIPPED = ("smoke", "evasion", "churn", "failure", "failopen", "fleet", "load", "monitor", "source")
_OF_FLEETS = ("node1", "node2", "node3", "node4", "services")
"""Machines that labs with a fleet have besides."""

_EPILOG = """\
Logs are Squid's access.log, nginx' and Apache's combined format (with or without the host in front), HAR, CSV
with a column of URLs, or a URL a line; as they are, or compressed with gzip or zstd. Which it is is found
out. The report has counts only: no URL, no host, no client.
"""


def add_lab_commands(command: Command) -> None:
    """Declare ``urlward lab``; what it needs is imported when it runs."""
    lab = command("lab", None, "A whole network on one machine, and what a list would have blocked.")
    of_lab = lab.add_subparsers(required=True, metavar="COMMAND")

    run = subcommand(of_lab, "run", _run, "Run a scenario in a network of its own, and write a report.")
    run.add_argument("scenario", metavar="SCENARIO", help=f"{', '.join(SHIPPED)}, or a file")
    report = run.add_argument("-o", "--output", "--report", dest="report", type=given_path, metavar="FOLDER")
    report.help = "for report.html and report.json (lab-report/SCENARIO)"
    run.add_argument(
        "--keep", type=given_path, metavar="FOLDER", help="copy logs and configurations there; a new one"
    )
    run.add_argument("--in", dest="running", metavar="NAME", help="in a lab that is up")
    run.add_argument(
        "--seconds", type=float, metavar="S", help="of each measurement, in place of the scenario's own"
    )

    up = subcommand(of_lab, "up", _up, "Start a lab that stays up.")
    up.add_argument(
        "scenario", nargs="?", default="smoke", metavar="SCENARIO", help="its hosts and list (smoke)"
    )
    shell = subcommand(
        of_lab, "shell", _shell, "Open a shell, or run a command, on a client of a lab that is up."
    )
    down = subcommand(of_lab, "down", _down, "End a lab that is up.")
    for parser in (up, shell, down):
        parser.add_argument("--name", default=_DEFAULT, help=f"of the lab ({_DEFAULT})")
    shell.add_argument(
        "--machine",
        default="client",
        choices=["client", "client6", "neighbour", "gateway", "resolver", "origin", *_OF_FLEETS],
        help="that it is on (client)",
    )
    shell.add_argument("words", nargs="*", metavar="COMMAND", help="in place of a shell; behind --")
    _add_replay(of_lab)


def _run(args: argparse.Namespace) -> int:
    from urlward.lab.inside import Order
    from urlward.lab.isolation import check_needs, isolated, joining, make_mount_points, the_running
    from urlward.lab.scenario import load_scenario
    from urlward.report.document import check_folder

    if args.seconds is not None and not args.seconds > 0:
        raise UrlwardError(f"--seconds: {args.seconds:g} is not more than 0")
    loaded = load_scenario(args.scenario)
    report = (args.report or Path("lab-report") / loaded.name).absolute()
    check_folder(report)
    _check_keep(args.keep)
    check_needs()
    make_mount_points()
    order = Order(
        "join" if args.running else "run",
        _path(args.scenario),
        str(report),
        str(args.keep.absolute()) if args.keep else "",
        args.seconds,
    )
    command = joining(the_running(args.running).pid, str(order)) if args.running else isolated(str(order))
    return _wait(subprocess.Popen(command))  # noqa: S603 - our own program


def _check_keep(folder: Path | None) -> None:
    """Refuse a folder with files, whose names a lab's could be: ``urlward.toml`` is one.

    Raises:
        UrlwardError: it is one.
    """
    with suppress(OSError):  # copying will tell
        if folder is not None and any(folder.iterdir()):
            raise UrlwardError(f"--keep: {folder} is not empty: name a new folder")


def _path(scenario: str) -> str:
    """Absolute path of a scenario's file; a name that is no file stays as it is."""
    path = Path(scenario)
    return str(path.absolute()) if path.exists() else scenario


def _wait(process: "subprocess.Popen[bytes]") -> int:
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The lab has had the same signal from the terminal; it needs no longer than this.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code not in _CODES:
        raise UrlwardError(f"lab: its process has ended with {code}")
    return code


def _up(args: argparse.Namespace) -> int:
    from urlward.lab.inside import READY, Order
    from urlward.lab.isolation import (
        Running,
        check_needs,
        child_of,
        detached,
        find_running,
        make_mount_points,
        path_of,
        remember,
        started_at,
    )
    from urlward.lab.scenario import load_scenario

    loaded = load_scenario(args.scenario)
    check_needs()
    make_mount_points()
    path_of(args.name)
    if find_running(args.name):
        raise UrlwardError(f"lab {args.name}: is up already; try: urlward lab down --name {args.name}")
    process = subprocess.Popen(  # noqa: S603 - our own program
        detached(str(Order("hold", _path(args.scenario)))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # What it keeps open must not be this command's own: a shell would wait for that to be closed.
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == READY:
                break
            print(line, end="", file=sys.stderr)
        else:
            return process.wait()
        pid = child_of(process.pid)
        start = started_at(pid) if pid else None
        if pid is None or start is None:
            raise UrlwardError(f"lab {args.name}: has ended at once")
        remember(Running(args.name, pid, start, loaded.name))
    except BaseException:
        process.kill()
        process.wait()
        raise
    name = "" if args.name == _DEFAULT else f" --name {args.name}"
    print(f"lab {args.name}: up, as scenario {loaded.name} has it (process {pid})")
    print(f"  urlward lab shell{name} -- curl http://…   on the client; without a command, a shell")
    print(f"  urlward lab run SCENARIO --in {args.name}")
    print(f"  urlward lab down{name}")
    return OK


def _shell(args: argparse.Namespace) -> int:
    from urlward.lab.isolation import entering, environment, has_machine, the_running

    running = the_running(args.name)
    if not has_machine(running.pid, args.machine):
        raise UrlwardError(f"lab {args.name}: scenario {running.scenario} has no machine {args.machine}")
    words = args.words or [os.environ.get("SHELL") or "/bin/sh"]
    prompt = {"PS1": f"{args.machine}@{args.name}$ "}
    command = [*entering(running.pid, args.machine), "--", *words]
    return subprocess.run(command, env={**environment(), **prompt}, check=False).returncode  # noqa: S603 - the user's own


def _down(args: argparse.Namespace) -> int:
    from urlward.lab.isolation import end, the_running

    start = time.monotonic()
    end(the_running(args.name))
    print(f"lab {args.name}: down ({time.monotonic() - start:.1f} s)")
    return OK


def _add_replay(of_lab: Any) -> None:
    parser = subcommand(of_lab, "replay", _replay, "Say what the lists would have blocked in access logs.")
    parser.epilog = _EPILOG
    parser.add_argument(
        "logs", nargs="+", type=_log, metavar="LOG", help='a file, or a URL; "-" is standard input'
    )
    LIST.add_to(parser)
    KEY.add_to(parser)
    parser.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines of a source (1%%)")
    parser.add_argument(
        "--format",
        choices=["squid", "combined", "vhost_combined", "har", "csv", "urls"],
        help="what the logs are (found out)",
    )
    parser.add_argument("--host", metavar="NAME", default="", help="of a log whose lines name no host")
    parser.add_argument(
        "--column", metavar="NAME|NUMBER", default="", help="of CSV, with the URL; from 1 (found out)"
    )
    parser.add_argument(
        "--time", choices=["log", "now"], help="when entries that expire are judged (log, where it has times)"
    )
    parser.add_argument("--workers", type=given_number, metavar="N", help="processes (one a core)")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="scheduler of Dask (tcp://HOST:PORT) whose workers judge"
    )
    parser.add_argument(
        "--top", type=given_number, default=20, metavar="N", help="entries to name by their ids (20)"
    )
    output = parser.add_argument(
        "-o", "--output", "--report", dest="output", type=given_path, metavar="FOLDER"
    )
    output.help = "for the report (./urlward-replay-DATE)"
    parser.add_argument(
        "--json", action="store_true", help="counts as a JSON object; no folder unless -o names one"
    )


def _log(text: str) -> Path | str:
    if "://" in text:
        return text
    return Path(text) if text == "-" else given_path(text)


def _replay(args: argparse.Namespace) -> int:
    from urlward.config import MOST_WORKERS
    from urlward.feeds.keeper import Keeper
    from urlward.lists.build import find_key
    from urlward.lists.source import read_budget
    from urlward.progress import progress_bar
    from urlward.replay.cluster import connected, expanded, replay_on
    from urlward.replay.report import make_report
    from urlward.replay.run import open_logs, replay
    from urlward.report.document import check_folder, write_report

    if args.cluster is not None and args.workers is not None:
        raise UrlwardError("workers: the cluster has its own: give --cluster or --workers")
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS) if args.workers is None else args.workers
    if not 1 <= workers <= MOST_WORKERS:
        raise UrlwardError(f"workers: {workers} is not a number of processes from 1 to {MOST_WORKERS}")
    budget = read_budget(args.max_errors, "max-errors")
    if args.output is not None:
        check_folder(args.output)
    names = [str(path) for path in args.logs]
    if names.count("-") > 1:
        raise UrlwardError("-: standard input can be read only once")
    is_remote = args.cluster is not None or any(isinstance(log, str) for log in args.logs)
    paths = expanded(args.logs) if is_remote else args.logs
    logs = open_logs(paths, kind=args.format or "", column=args.column, site=args.host, clock=args.time)
    if not args.list:
        print(f"no --list given: replaying against the sample, {samples.SAMPLE}", file=sys.stderr)
    with progress_bar() as progress:
        lists = args.list or [samples.SAMPLE]
        keeper = Keeper(lists, find_key(args.key, lists), budget)
        keeper.load(progress)
        clock: Clock = args.time or "log"
        if args.cluster is None:
            done = replay(logs, keeper.matcher, clock=clock, workers=workers, progress=progress)
        else:
            with connected(args.cluster) as client:
                done = replay_on(client, logs, keeper.matcher.lists, clock=clock, progress=progress)
    for log in logs:
        if log.trouble:
            print(f"urlward: {log.path}: {log.trouble}; read up to line {log.lines}", file=sys.stderr)
    if not (done.tally.requests or done.tally.bad):
        raise UrlwardError(f"{', '.join(names)}: empty, no request in it")
    report = make_report(done, keeper.matcher.lists, args.top)
    folder = args.output
    if folder is None and not args.json:
        folder = Path(time.strftime("urlward-replay-%Y%m%dT%H%M%SZ", time.gmtime(done.now)))
    page = write_report(folder, report) if folder is not None else None
    if args.json:
        print(json.dumps(report.data))
    else:
        _show(report)
        print(f"report: {page}")
    return 0


def _show(report: "ReportDocument") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from urlward.report.document import shown

    console = Console(highlight=False)
    console.print(Text(report.verdict.text, style="bold"))
    console.print(Text(report.summary))
    facts = Table(show_header=False, box=None)
    for fact in report.facts:
        facts.add_row(Text(fact.label), Text(shown(fact.value), justify="right"), Text(fact.note))
    console.print(facts)
    for section in report.sections:
        for table in section.tables:
            if table.folded or len(table.rows) > 20:
                continue
            made = Table(title=Text(table.title), title_justify="left")
            for number, column in enumerate(table.columns):
                is_figure = all(isinstance(row[number], int | float | None) for row in table.rows)
                made.add_column(Text(column), justify="right" if is_figure else "left")
            for row in table.rows:
                made.add_row(*(Text(shown(cell)) for cell in row))
            console.print(made)
