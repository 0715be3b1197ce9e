"""Command line of the records' benchmark."""

import json
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.engine.machine import describe
from benchmarks.readme import README, rewrite
from benchmarks.records.blocks import sustained, throughput
from benchmarks.records.report import report

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "records", report(json.loads(_RESULTS.read_text())))
        return 0
    quick = arguments.quick
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine,
            "throughput": throughput(folder, 2 if quick else 9, 2 if quick else 5),
            "sustained": sustained(folder, 5 if quick else 60),
        }
    if not quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
