"""Goals of the benchmarks: what was to be reached, and what was."""

from collections.abc import Iterable
from typing import TypedDict


class Goal(TypedDict):
    """One goal.

    Attributes:
        least: the value is to be at least the limit; else at most.
        passed: None where it was not measured as it is meant.
    """

    goal: str
    unit: str
    least: bool
    limit: float
    value: float | None
    passed: bool | None


def judge(
    goal: str, unit: str, limit: float, value: float | None, *, least: bool = False, judged: bool = True
) -> Goal:
    """A goal and whether the value reaches it; unjudged where it was not measured as it is meant."""
    passed = None if value is None or not judged else (value >= limit if least else value <= limit)
    value = None if value is None else round(value, 4)
    return Goal(goal=goal, unit=unit, least=least, limit=limit, value=value, passed=passed)


def goals_table(goals: Iterable[Goal]) -> str:
    """Goal, limit, measured, met or missed."""
    rows = ["| goal | limit | measured | |", "|---|---:|---:|---|"]
    for goal in goals:
        unjudged = "not measured" if goal["value"] is None else "not judged"
        mark = {True: "met", False: "**missed**", None: unjudged}[goal["passed"]]
        value = "-" if goal["value"] is None else number(goal["value"])
        limit = f"{'at least' if goal['least'] else 'at most'} {number(goal['limit'])} {goal['unit']}".strip()
        rows.append(f"| {goal['goal']} | {limit} | {value} | {mark} |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Three digits or so."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
