"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.goals import Goal, goals_table, judge

_TITLES = {
    "idle": "nothing changes",
    "delta": "a change of 1,000, by delta",
    "rollback": "rollback",
    "whole": "the same change, whole",
}


def goals(result: dict[str, Any]) -> list[Goal]:
    """What was to be reached, and what was."""
    found = []
    for kind, text in (("rollback", "rollback"), ("delta", "a change")):
        value = result["rows"][kind]["share_s"]
        found.append(judge(f"{text}: 99 % of the nodes have it", "s", 5, value))
    return found


def report(result: dict[str, Any]) -> str:
    """Machine, goals and table, as Markdown."""
    lines = [
        measured(
            result,
            f"{result['entries']:,} entries, an artifact of {result['artifact_bytes'] / 1e6:.1f} MB, "
            f"{result['nodes']:,} nodes that look each {result['poll_s']:g} s",
        ),
        "",
        goals_table(goals(result)),
        "",
        "| | nodes | requests a second | MB to the nodes | KB a node | nginx: cores | half have it after s "
        "| 99 % | all |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, title in _TITLES.items():
        row = result["rows"][kind]
        nodes, seconds = int(row.get("nodes", result["nodes"])), row["seconds"]
        times = [f"{row[key]:.2f}" if key in row else "-" for key in ("median_s", "share_s", "last_s")]
        lines.append(
            f"| {title} ({seconds:.1f} s) | {nodes:,} | {row['requests'] / seconds:,.0f} | "
            f"{row['received'] / 1e6:,.1f} | {row['received'] / 1e3 / nodes:,.1f} | "
            f"{row['cpu_s'] / seconds:.2f} | {' | '.join(times)} |"
        )
    idle = result["rows"]["idle"]
    lines += [
        "",
        f"The delta has {result['delta_bytes']:,} bytes, and takes a node {result['applied_s']:.2f} s to "
        f"apply; it was offered {result['published_s']:.1f} s after the publisher had the new list, and the "
        f"list before {result['rows']['rollback']['offered_s']:.1f} s after the command to go back. A look "
        "at what has not changed costs "
        f"{(idle['sent'] + idle['received']) / idle['requests']:.0f} bytes both ways, above TCP.",
    ]
    return "\n".join(lines)
