"""The command line that most benchmarks share: measure, keep the result as JSON, write its part of README."""

import json
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engine.machine import describe
from benchmarks.goals import Goal
from benchmarks.readme import README, rewrite


def command(
    name: str,
    measure: Callable[[Path, Namespace], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    parser: ArgumentParser | None = None,
    goals: Callable[[dict[str, Any]], list[Goal]] = lambda _: [],
) -> int:
    """Run a benchmark as its arguments say.

    Args:
        name: the module in `benchmarks` that is the benchmark's command; its `results.json` holds the result.
        measure: takes a temporary folder and the arguments; without `quick` what it gives is kept.
        report: the result as Markdown.
        parser: with options of its own.
        goals: those that make it fail.

    Returns:
        The exit code: 1 where a goal was missed.
    """
    parser = parser or ArgumentParser()
    parser.prog = f"python -m benchmarks.{name}"
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite README's part from the JSON")
    arguments = parser.parse_args()
    results = Path(__file__).parent / name / "results.json"
    if arguments.report:
        rewrite(README, name, report(json.loads(results.read_text())))
        return 0
    result = {"date": time.strftime("%Y-%m-%d"), "machine": describe()}
    with tempfile.TemporaryDirectory() as folder:
        result |= measure(Path(folder), arguments)
    if not arguments.quick:
        results.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return int(any(goal["passed"] is False for goal in goals(result)))
