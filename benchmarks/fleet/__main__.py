"""Command line of the fleet's benchmark."""

import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.engine.machine import describe
from benchmarks.fleet.measure import RATE, answers, join
from benchmarks.fleet.report import report
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "fleet", report(json.loads(_RESULTS.read_text())))
        return 0
    if os.geteuid() != 0:
        parser.error("needs root: each node's kernel is in a network of its own")
    quick, machine = arguments.quick, describe()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine,
            "rate": RATE,
            "answers": answers(Path(folder), 1 if quick else 10),
            "join": join(Path(folder), 10_000 if quick else 500_000),
        }
    if not quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
