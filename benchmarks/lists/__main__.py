"""Command line of the feeds' benchmark."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.lists.measure import measure
from benchmarks.lists.report import report


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    entries, rounds = (20_000, 1) if arguments.quick else (arguments.entries, arguments.rounds)
    return asyncio.run(measure(folder, entries, rounds))


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="changes of each kind")
    sys.exit(command("lists", _measure, report, parser))
