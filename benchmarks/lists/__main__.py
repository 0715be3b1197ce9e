"""Command line of the feeds' benchmark."""

import asyncio
import json
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.engine.machine import describe
from benchmarks.lists.measure import measure
from benchmarks.lists.report import report
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="changes of each kind")
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "lists", report(json.loads(_RESULTS.read_text())))
        return 0
    entries, rounds = (20_000, 1) if arguments.quick else (arguments.entries, arguments.rounds)
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), entries, rounds))
    result = {"date": time.strftime("%Y-%m-%d"), "machine": machine, **result}
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
