"""Command ``urlward lab replay``: its arguments, and its output on a terminal."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from urlward import samples
from urlward.options import KEY, LIST
from urlward.replay.errors import ReplayError

if TYPE_CHECKING:
    from urlward.report.document import ReportDocument

_EPILOG = """\
Logs are Squid's access.log, nginx' and Apache's combined format (with or without the host in front), HAR, CSV
with a column of URLs, or a URL a line; as they are, or compressed with gzip or zstd. Which it is is found
out. The report has counts only: no URL, no host, no client.
"""


def add_replay(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = add("replay", _replay, "Say what the lists would have blocked in access logs.")
    parser.epilog = _EPILOG
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help='a file; "-" is standard input')
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
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one a core)")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="entries to name by their ids (20)")
    output = parser.add_argument("-o", "--output", "--report", dest="output", type=Path, metavar="FOLDER")
    output.help = "for the report (./urlward-replay-DATE)"
    parser.add_argument(
        "--json", action="store_true", help="counts as a JSON object; no folder unless -o names one"
    )


def _replay(args: argparse.Namespace) -> int:
    from urlward.config import MOST_WORKERS
    from urlward.feeds.keeper import Keeper
    from urlward.lists.build import find_key
    from urlward.lists.source import read_budget
    from urlward.progress import progress_bar
    from urlward.replay.report import make_report
    from urlward.replay.run import open_logs, replay
    from urlward.report.document import write_report

    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS) if args.workers is None else args.workers
    if not 1 <= workers <= MOST_WORKERS:
        raise ReplayError(f"workers: {workers} is not a number of processes from 1 to {MOST_WORKERS}")
    if args.top < 0:
        raise ReplayError("top: not a number of them")
    budget = read_budget(args.max_errors, "max-errors")
    names = [str(path) for path in args.logs]
    if names.count("-") > 1:
        raise ReplayError("-: standard input can be read only once")
    logs = open_logs(args.logs, kind=args.format or "", column=args.column, site=args.host, clock=args.time)
    if not args.list:
        print(f"no --list given: replaying against the sample, {samples.SAMPLE}", file=sys.stderr)
    with progress_bar() as progress:
        lists = args.list or [samples.SAMPLE]
        keeper = Keeper(lists, find_key(args.key, lists), budget)
        keeper.load(progress)
        done = replay(logs, keeper.matcher, clock=args.time or "log", workers=workers, progress=progress)
    for log in logs:
        if log.trouble:
            print(f"urlward: {log.path}: {log.trouble}; read up to line {log.lines}", file=sys.stderr)
    if not (done.tally.requests or done.tally.bad):
        raise ReplayError(f"{', '.join(names)}: empty, no request in it")
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
