"""Command line of the benchmark of lists of files."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.digests.measure import measure
from benchmarks.digests.report import goals, report


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    entries, lookups = (2_000, 1_000) if arguments.quick else (arguments.entries, 50_000)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return measure(folder, entries, lookups)


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--entries", type=int, default=1_000_000)
    sys.exit(command("digests", _measure, report, parser, goals))
