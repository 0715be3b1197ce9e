"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import median
from typing import Any

from benchmarks.proxy.report import goals_table
from benchmarks.proxy.summary import Goal


def report(result: dict[str, Any]) -> str:
    """Machine, goals and figures, as Markdown."""
    machine, through, haste = result["machine"], result["throughput"], result["sustained"]
    goals = [
        _goal(
            "all requests blocked and recorded: throughput over that without records", through["ratio"], 0.9
        ),
        _goal("events lost, of 5,000 a second for a minute into SQLite", haste["lost"], 0, least=False),
    ]
    without, recorded, logged = (
        median(one[name] for one in through["rounds"]) for name in ("without", "with", "logged")
    )
    share = through["ratio_logged"]
    return "\n".join(
        [
            f"Measured {result['date']} on {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, {machine['python']}; "
            f"{len(through['rounds'])} rounds; load of the machine when the run began: {machine['load']}.",
            "",
            goals_table(goals),
            "",
            f"Blocked requests a second, medians: {without:,.0f} without records, {recorded:,.0f} with, "
            f"{logged:,.0f} with records and the log (`log = true`), {share:.2f} of the first. "
            f"In haste: {haste['sent']:,} events at {haste['rate']:,.0f} a second, {haste['kept']:,} kept.",
        ]
    )


def _goal(goal: str, value: float, limit: float, *, least: bool = True) -> Goal:
    passed = value >= limit if least else value <= limit
    return Goal(goal=goal, unit="", least=least, limit=limit, value=value, passed=passed)
