"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import median
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.goals import goals_table, judge


def report(result: dict[str, Any]) -> str:
    """Machine, goals and figures, as Markdown."""
    through, haste = result["throughput"], result["sustained"]
    goals = [
        judge(
            "all requests blocked and recorded: throughput over that without records",
            "",
            0.9,
            through["ratio"],
            least=True,
        ),
        judge("events lost, of 5,000 a second for a minute into SQLite", "", 0, haste["lost"]),
    ]
    without, recorded, logged = (
        median(one[name] for one in through["rounds"]) for name in ("without", "with", "logged")
    )
    share = through["ratio_logged"]
    return "\n".join(
        [
            measured(result, f"{len(through['rounds'])} rounds"),
            "",
            goals_table(goals),
            "",
            f"Blocked requests a second, medians: {without:,.0f} without records, {recorded:,.0f} with, "
            f"{logged:,.0f} with records and the log (`log = true`), {share:.2f} of the first. "
            f"In haste: {haste['sent']:,} events at {haste['rate']:,.0f} a second, {haste['kept']:,} kept.",
        ]
    )
