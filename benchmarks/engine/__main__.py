"""Command line of the engine's benchmark."""

import json
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

from benchmarks.engine.contenders import ENTRANTS
from benchmarks.engine.plan import FULL, QUICK
from benchmarks.engine.plot import plot
from benchmarks.engine.report import report, to_json
from benchmarks.engine.run import run
from benchmarks.readme import README, differs, rewrite

_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing without --output")
    parser.add_argument("--output", type=Path, help="directory for engine.json and engine.svg")
    parser.add_argument("--engines", default=",".join(ENTRANTS), help="some of them, with commas between")
    parser.add_argument("--sizes", help="entries of each list, ascending, with commas between")
    parser.add_argument("--rounds", type=int, help="turns that each engine takes")
    parser.add_argument("--report", action="store_true", help="only rewrite plot and table from the JSON")
    parser.add_argument(
        "--check", action="store_true", help="with --report: only say whether the table differs"
    )
    arguments = parser.parse_args()
    output = arguments.output or _RESULTS
    path = output / "engine.json"
    if arguments.report:
        result = json.loads(path.read_text())
        if arguments.check:
            return int(differs(README, "engine", report(result)))
        plot(result, output / "engine.svg")
        rewrite(README, "engine", report(result))
        return 0
    plan = QUICK if arguments.quick else FULL
    if arguments.sizes:
        sizes = tuple(int(size) for size in arguments.sizes.split(","))
        plan = replace(plan, sizes=sizes, reference=plan.reference if plan.reference in sizes else sizes[-1])
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    begun = time.monotonic()
    result = run(
        plan,
        arguments.engines.split(","),
        lambda text: print(f"{time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr),
    )
    if arguments.output or not arguments.quick:
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(result))
        plot(result, output / "engine.svg")
    for goal in result["goals"]:
        mark = {True: "met", False: "MISSED", None: "-"}[goal["passed"]]
        print(f"{mark:7} {goal['goal']}: {goal['value']} {goal['unit']}, limit {goal['limit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
