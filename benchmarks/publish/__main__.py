"""Command line of the publisher's benchmark."""

import asyncio
import json
import resource
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.engine.machine import describe
from benchmarks.publish.measure import measure
from benchmarks.publish.report import report
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "publish", report(json.loads(_RESULTS.read_text())))
        return 0
    entries, nodes, idle = (5_000, 50, 3.0) if arguments.quick else (arguments.entries, arguments.nodes, 15.0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), entries, nodes, idle))
    result = {"date": time.strftime("%Y-%m-%d"), "machine": machine, **result}
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
