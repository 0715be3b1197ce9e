"""Command line of the publisher's benchmark."""

import asyncio
import resource
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.publish.measure import measure
from benchmarks.publish.report import report


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    entries, nodes, idle = (5_000, 50, 3.0) if arguments.quick else (arguments.entries, arguments.nodes, 15.0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(measure(folder, entries, nodes, idle))


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    sys.exit(command("publish", _measure, report, parser))
