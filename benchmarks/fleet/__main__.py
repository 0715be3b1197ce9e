"""Command line of the fleet's benchmark."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.fleet.measure import RATE, answers, join
from benchmarks.fleet.report import report


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    if os.geteuid() != 0:
        sys.exit("needs root: each node's kernel is in a network of its own")
    return {
        "rate": RATE,
        "answers": answers(folder, 1 if arguments.quick else 10),
        "join": join(folder, 10_000 if arguments.quick else 500_000),
    }


if __name__ == "__main__":
    sys.exit(command("fleet", _measure, report))
