"""Command line of the benchmark of lists of files."""

import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.digests.measure import measure
from benchmarks.digests.report import goals, report
from benchmarks.engine.machine import describe
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.digests", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "digests", report(json.loads(_RESULTS.read_text())))
        return 0
    entries, lookups = (2_000, 1_000) if arguments.quick else (arguments.entries, 50_000)
    machine = describe()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), entries, lookups)
    result = {"date": time.strftime("%Y-%m-%d"), "machine": machine, **result}
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return int(any(goal["passed"] is False for goal in goals(result)))


if __name__ == "__main__":
    sys.exit(main())
