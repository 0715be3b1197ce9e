"""Command line of the proxies' benchmark."""

import json
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.proxy.plan import FULL, MODES, QUICK, Case
from benchmarks.proxy.plot import plot
from benchmarks.proxy.proxies import PROXIES
from benchmarks.proxy.report import report, to_json
from benchmarks.proxy.run import run
from benchmarks.proxy.soak import soak
from benchmarks.proxy.summary import goals
from benchmarks.readme import README, differs, rewrite

_HERE = Path(__file__).parent


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small lists and short turns, as a smoke test")
    parser.add_argument("--only", default=",".join(PROXIES), help="some proxies, with commas between")
    parser.add_argument(
        "--cases", default=",".join(c.name.lower() for c in Case), help="some cases, likewise"
    )
    parser.add_argument("--rounds", type=int, help="turns that each proxy takes")
    parser.add_argument("--soak", action="store_true", help="mixed load with reloads instead")
    parser.add_argument("--minutes", type=float, help="of the soak (10; quick: 0.5)")
    parser.add_argument("--modes", default=",".join(MODES), help="some modes of the soak, likewise")
    parser.add_argument(
        "--output", type=Path, help="folder for results.json and plots (quick and partial runs: none)"
    )
    parser.add_argument("--report", action="store_true", help="only rewrite plots and table from the JSON")
    parser.add_argument(
        "--check", action="store_true", help="with --report: only say whether the table differs"
    )
    arguments = parser.parse_args()
    if arguments.report:
        return _report(arguments.output or _HERE, arguments.check)
    names, cases, modes = (given.split(",") for given in (arguments.only, arguments.cases, arguments.modes))
    unknown = [name for name in names if name not in PROXIES]
    unknown += [name for name in cases if name.upper() not in Case.__members__]
    unknown += [name for name in modes if name not in MODES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    if os.geteuid() != 0:
        parser.error("needs root: it makes a network of its own")
    # Told to end, it leaves by way of all that it has to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return _measure(arguments, names, [Case[name.upper()] for name in cases], modes)


def _measure(arguments: Namespace, names: list[str], cases: list[Case], modes: list[str]) -> int:
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr, flush=True)

    whole = (len(names), len(cases), len(modes)) == (len(PROXIES), len(Case), len(MODES))
    output: Path | None = arguments.output or (_HERE if whole and not arguments.quick else None)
    path = output / "results.json" if output else None
    before: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
    if arguments.soak:
        minutes = arguments.minutes or (0.5 if arguments.quick else 10)
        result = before or {"plan": {"entries": plan.entries}, "results": []}
        result["soak"] = soak(plan, minutes, modes, say)
        result["goals"] = goals(result)
    else:
        result = run(plan, names, cases, say)
        if "soak" in before:
            result["soak"] = before["soak"]
            result["goals"] = goals(result)
    if output and path:
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(result))
        plot(result, output)
    for goal in result["goals"]:
        mark = {True: "met", False: "MISSED", None: "-"}[goal["passed"]]
        bound = "least" if goal["least"] else "most"
        print(f"{mark:7} {goal['goal']}: {goal['value']} {goal['unit']}, at {bound} {goal['limit']}")
    return 0


def _report(folder: Path, check: bool) -> int:
    result = json.loads((folder / "results.json").read_text())
    if check:
        return int(differs(README, "proxy", report(result)))
    plot(result, folder)
    rewrite(README, "proxy", report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
