"""Command line of the gateway's benchmark."""

import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from benchmarks.engine.machine import describe
from benchmarks.gateway import dns, listing, routing
from benchmarks.gateway.report import report
from benchmarks.readme import README, rewrite

_RESULTS = Path(__file__).with_name("results.json")
_PARTS = {"dns": dns, "listing": listing, "routing": routing}


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    parser.add_argument("--only", choices=_PARTS, help="one part, whose result is printed; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the tables from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(README, "gateway", report(json.loads(_RESULTS.read_text())))
        return 0
    if os.geteuid() != 0:
        parser.error("needs root: it makes networks of its own")
    if arguments.only:
        print(json.dumps(_part(arguments.only, quick=arguments.quick), indent=1))
        return 0
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe()}
    result |= {name: _part(name, quick=arguments.quick) for name in _PARTS}
    if not arguments.quick:
        _RESULTS.write_text(to_json(result))
    print(report(result))
    return 0


def to_json(result: dict[str, Any]) -> str:
    """The result with one line for each round, so that a new run is a readable change."""

    def part(value: Any) -> str:
        if not isinstance(value, dict):
            return json.dumps(value)
        lines = []
        for name, inner in value.items():
            rows = isinstance(inner, list) and ",\n".join(f"   {json.dumps(row)}" for row in inner)
            lines.append(f"  {json.dumps(name)}: " + (f"[\n{rows}\n  ]" if rows else json.dumps(inner)))
        return "{\n" + ",\n".join(lines) + "\n }"

    return (
        "{\n" + ",\n".join(f" {json.dumps(name)}: {part(value)}" for name, value in result.items()) + "\n}\n"
    )


def _part(name: str, *, quick: bool) -> dict[str, Any]:
    print(name, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = _PARTS[name].run(Path(folder), quick=quick)
    return found


if __name__ == "__main__":
    sys.exit(main())
