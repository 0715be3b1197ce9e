"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import median
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.goals import Goal, goals_table, judge

DELTA, FULL = "delta", "full"


def goals(result: dict[str, Any]) -> list[Goal]:
    """What was to be reached, and what was."""

    def longest(kind: str) -> float:
        return max(row["in_force_s"] for row in result["changes"] if row["kind"] == kind)

    return [
        judge("a changed artifact in force, in full: the longest", "s", 5, longest(FULL)),
        judge("by delta: the longest", "s", 2, longest(DELTA)),
        judge(
            "longest stall of the event loop in all of that",
            "ms",
            20,
            max(row["stall_ms"] for row in result["changes"] if row["kind"] in (DELTA, FULL)),
        ),
        judge("a delta of 1,000 changes: the largest", "KiB", 256, max(result["delta_bytes"]) / 1024),
        judge("serving after a restart: the longest", "s", 3, max(result["restarts"])),
        judge("failed requests", "", 0, result["failed"]),
    ]


def report(result: dict[str, Any]) -> str:
    """Machine, goals and table, as Markdown."""
    lines = [
        measured(
            result,
            f"{result['entries']:,} entries, an artifact of {result['artifact_bytes'] / 1e6:.0f} MB, "
            f"{len(result['changes'])} changes, {result['requests']:,} requests meanwhile",
        ),
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
