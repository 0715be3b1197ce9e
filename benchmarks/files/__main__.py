"""Command line of the benchmark of pictures."""

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.engine.machine import describe
from benchmarks.files.measure import recall, times
from benchmarks.files.report import draw, goals, report
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument(
        "--times", action="store_true", help="measure times alone; shares stay as they are in the JSON"
    )
    parser.add_argument("--report", action="store_true", help="only rewrite table and plot from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        result = json.loads(_RESULTS.read_text())
        if not draw(result):
            sys.exit("matplotlib is not installed: uv run --group bench python -m benchmarks.files --report")
        rewrite(README, "files", report(result))
        return 0
    pictures, entries = (10, 2_000) if arguments.quick else (arguments.pictures, arguments.entries)
    machine = describe()
    shares = json.loads(_RESULTS.read_text()) if arguments.times else recall(pictures)
    result = {**shares, "date": time.strftime("%Y-%m-%d"), "machine": machine, **times(entries)}
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result) + "\n")
    print(report(result))
    return int(any(goal["passed"] is False for goal in goals(result)))


if __name__ == "__main__":
    sys.exit(main())
