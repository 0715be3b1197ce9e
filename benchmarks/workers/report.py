"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import mean, median
from typing import Any

from benchmarks.engine.machine import measured


def report(result: dict[str, Any]) -> str:
    """Machine and table, as Markdown."""
    lines = [
        measured(result, f"{result['entries']:,} entries, an artifact of {_mb(result['artifact_bytes'])} MB"),
        "",
        "| workers | all MB | private MB a worker | after reloads: all MB | private MB a worker "
        "| artifact in force in all, s | source in force in all, s | highest during that, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        start, after = row["start"], row["after"]
        lines.append(
            f"| {row['workers']} "
            f"| {_mb(start['total_pss'])} | {_mb(mean(start['worker_private']))} "
            f"| {_mb(after['total_pss'])} | {_mb(mean(after['worker_private']))} "
            f"| {median(r['in_force_s'] for r in row['artifact']):.1f} "
            f"| {median(r['in_force_s'] for r in row['source']):.1f} "
            f"| {_mb(max(r['peak_pss'] for r in row['source']))} |"
        )
    first, last = result["rows"][0], result["rows"][-1]
    more = (last["start"]["total_pss"] - first["start"]["total_pss"]) / (last["workers"] - first["workers"])
    lines += ["", f"Each further worker takes {_mb(more)} MB."]
    return "\n".join(lines)


def _mb(value: float) -> str:
    return f"{value / 1e6:,.0f}"
