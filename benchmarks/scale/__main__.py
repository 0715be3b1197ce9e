"""Command line of the computation."""

import sys
from argparse import ArgumentParser
from dataclasses import fields
from typing import Any

from benchmarks.readme import README, rewrite
from benchmarks.scale.figures import read
from benchmarks.scale.model import Limits, Traffic
from benchmarks.scale.report import SIZES, draw, report


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--subscribers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--report", action="store_true", help="rewrite plot and table")
    for table in (Traffic, Limits):
        for field in fields(table):
            kind: Any = type(field.default)
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N"
            )
    arguments = parser.parse_args()
    traffic, limits = (
        table(**{field.name: getattr(arguments, field.name) for field in fields(table)})
        for table in (Traffic, Limits)
    )
    figures = read()
    text = report(traffic, limits, figures, arguments.subscribers)
    if arguments.report:
        if not draw(traffic, limits, figures):
            sys.exit("matplotlib is not installed: uv run --group bench python -m benchmarks.scale --report")
        rewrite(README, "scale", text)
    print(text)


if __name__ == "__main__":
    main()
