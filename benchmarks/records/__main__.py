"""Command line of the records' benchmark."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.records.blocks import sustained, throughput
from benchmarks.records.report import report


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    rounds, seconds, haste = (2, 2, 5) if arguments.quick else (9, 5, 60)
    return {"throughput": throughput(folder, rounds, seconds), "sustained": sustained(folder, haste)}


if __name__ == "__main__":
    sys.exit(command("records", _measure, report))
