"""``urlward lab replay``: its arguments, and what it says on a terminal."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward import samples
from urlward.gateway.lab.errors import LabError

if TYPE_CHECKING:
    from urlward.gateway.lab.replay import Log, Progress
    from urlward.gateway.lab.report import Report

_EPILOG = """\
Logs are Squid's access.log, nginx' and Apache's combined format (with or without the host in front), HAR, CSV
with a column of URLs, or a URL a line; as they are, or compressed with gzip or zstd. Which it is is found
out. The report has counts only: no URL, no host, no client.
"""


def add_replay(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = add("replay", _replay, "Say what the lists would have blocked in access logs.")
    parser.epilog = _EPILOG
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help='a file; "-" is standard input')
    parser.add_argument(
        "--list", action="append", type=Path, metavar="PATH", help="source or artifact (the sample)"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the lists' key")
    parser.add_argument(
        "--max-errors", metavar="N|N%", default="1%", help="bad lines allowed in a source (1%%)"
    )
    parser.add_argument(
        "--format",
        choices=["squid", "combined", "vhost_combined", "har", "csv", "urls"],
        help="what the logs are (found out)",
    )
    parser.add_argument("--host", metavar="NAME", default="", help="of a log whose lines name no host")
    parser.add_argument(
        "--column",
        metavar="NAME|NUMBER",
        default="",
        help="of CSV, that has the URL; counted from 1 (found out)",
    )
    parser.add_argument(
        "--time", choices=["log", "now"], help="when entries that expire are judged (log, where it has times)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one a core)")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="entries to name by their ids (20)")
    parser.add_argument(
        "-o",
        "--output",
        "--report",
        dest="output",
        type=Path,
        metavar="FOLDER",
        help="for the report (./urlward-replay-DATE)",
    )
    parser.add_argument(
        "--json", action="store_true", help="counts as a JSON object; no folder unless -o names one"
    )


def _replay(args: argparse.Namespace) -> int:
    from urlward.gateway.lab.replay import open_logs, replay
    from urlward.gateway.lab.replay_report import make_report
    from urlward.gateway.lab.report import write_report
    from urlward.lists.build import find_key
    from urlward.lists.keeper import Keeper
    from urlward.lists.source import Budget

    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1 or args.top < 0:
        raise LabError(f"{'workers' if workers < 1 else 'top'}: not a number of them")
    try:
        budget = Budget.parse(args.max_errors)
    except ValueError as e:
        raise LabError(f"max-errors: {args.max_errors!r} is not {e}") from e
    if [str(path) for path in args.logs].count("-") > 1:
        raise LabError("-: standard input can be read only once")
    logs = open_logs(args.logs, kind=args.format or "", column=args.column, site=args.host, clock=args.time)
    if not args.list:
        print(f"no --list given: replaying against the sample, {samples.SAMPLE}", file=sys.stderr)
    with _bar(logs) as (loading, reading):
        lists = args.list or [samples.SAMPLE]
        keeper = Keeper(lists, find_key(args.key, lists), budget)
        keeper.load(loading)
        done = replay(logs, keeper.matcher, clock=args.time or "log", workers=workers, progress=reading)
    for log in logs:
        if log.trouble:
            print(f"urlward: {log.path}: {log.trouble}; read up to line {log.lines}", file=sys.stderr)
    if not (done.tally.requests or done.tally.bad):
        raise LabError(f"{', '.join(map(str, args.logs))}: empty, no request in it")
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


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from urlward.gateway.lab.report import shown

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


@contextmanager
def _bar(
    logs: "list[Log]",
) -> "Iterator[tuple[Callable[[str, float], None], Callable[[Progress], None]]]":
    """Progress of loading lists and of reading logs, on standard error where that is a terminal.

    It draws when it is told something, without a thread of its own: processes are forked meanwhile.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _what, _share: None, lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    start = drawn = time.monotonic()
    known = all(log.size for log in logs)
    tasks: dict[str, Any] = {}

    def draw(name: str, completed: float, total: float | None, rate: str) -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - drawn < 0.25:
            return
        drawn = now
        if name not in tasks:
            for other in tasks.values():
                bar.update(other, visible=False)
            tasks[name] = bar.add_task(name, total=total, rate="")
        bar.update(tasks[name], completed=completed, rate=rate, description=name)
        bar.refresh()

    def loading(what: str, share: float) -> None:
        draw(what, share, 1.0, "")

    def reading(progress: "Progress") -> None:
        nonlocal start
        if "reading logs" not in tasks:
            start = min(start, time.monotonic())
        rate = progress.lines / max(time.monotonic() - start, 0.001)
        draw(
            "reading logs", progress.consumed, sum(log.size for log in logs) if known else None,
            f"log {progress.log} of {len(logs)}, {progress.lines:,} lines, {rate:,.0f} lines/s",
        )  # fmt: skip

    with bar:
        yield loading, reading
