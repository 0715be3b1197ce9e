"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import median
from typing import Any

from benchmarks.proxy.report import goals_table
from benchmarks.proxy.summary import Goal

DELTA, FULL = "delta", "full"


def goals(result: dict[str, Any]) -> list[Goal]:
    """What was to be reached, and what was."""

    def longest(kind: str) -> float:
        return max(row["in_force_s"] for row in result["changes"] if row["kind"] == kind)

    return [
        _goal("a changed artifact in force, in full: the longest", longest(FULL), 5, "s"),
        _goal("by delta: the longest", longest(DELTA), 2, "s"),
        _goal(
            "longest stall of the event loop in all of that",
            max(row["stall_ms"] for row in result["changes"] if row["kind"] in (DELTA, FULL)),
            20,
            "ms",
        ),
        _goal("a delta of 1,000 changes: the largest", max(result["delta_bytes"]) / 1024, 256, "KiB"),
        _goal("serving after a restart: the longest", max(result["restarts"]), 3, "s"),
        _goal("failed requests", result["failed"], 0, ""),
    ]


def _goal(goal: str, value: float, limit: float, unit: str) -> Goal:
    return Goal(goal=goal, unit=unit, least=False, limit=limit, value=value, passed=value <= limit)


def report(result: dict[str, Any]) -> str:
    """Machine, goals and table, as Markdown."""
    machine = result["machine"]
    lines = [
        f"Measured {result['date']} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, {machine['python']}; "
        f"{result['entries']:,} entries, an artifact of {result['artifact_bytes'] / 1e6:.0f} MB, "
        f"{len(result['changes'])} changes, {result['requests']:,} requests meanwhile; load of the machine "
        f"when the run began: {machine['load']}.",
        "",
        goals_table(goals(result)),
        "",
        "| feed | in force after s | longest | longest stall ms | median request ms | slowest request ms |",
        "|---|---:|---:|---:|---:|---:|",
        f"| no change | - | - | {result['baseline_stall_ms']:.1f} | - | - |",
    ]
    for kind, title in (
        (DELTA, "artifact, by delta"),
        (FULL, "artifact, in full"),
        ("text", "text, compiled by the provider"),
    ):
        rows = [row for row in result["changes"] if row["kind"] == kind]
        if rows:
            lines.append(
                f"| {title} (median of {len(rows)}) | {median(r['in_force_s'] for r in rows):.2f} "
                f"| {max(r['in_force_s'] for r in rows):.2f} | {max(r['stall_ms'] for r in rows):.1f} "
                f"| {median(r['p50_ms'] for r in rows):.1f} | {max(r['max_ms'] for r in rows):.0f} |"
            )
    lines += ["", f"A delta has {median(result['delta_bytes']):,.0f} bytes (median)."]
    return "\n".join(lines)
