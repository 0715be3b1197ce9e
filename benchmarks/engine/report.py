"""The JSON, and the part of ``benchmarks/README.md`` that is written from it."""

import json
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.engine.summary import Result
from benchmarks.goals import number

_MEMORY_FROM = 40_000
"""Entries from which the allocator's granularity no longer hides what one takes."""


def to_json(result: dict[str, Any]) -> str:
    """The result with one line for each engine and size, so that a new run is a readable change."""
    lines = [f'"{name}": {json.dumps(value)}' for name, value in result.items() if name != "results"]
    rows = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in result["results"])
    return "{\n" + ",\n".join([*lines, f'"results": [\n{rows}\n]']) + "\n}\n"


def _rounded(value: Any) -> Any:
    """Tenths of a microsecond are as much as a clock means."""
    if isinstance(value, float):
        return round(value, 7)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def report(result: dict[str, Any]) -> str:
    """Machine, goals and a table for each size, as Markdown."""
    parts = [_machine(result), _goals(result["goals"])]
    parts += [_table(result, size) for size in result["plan"]["sizes"]]
    return "\n\n".join(parts)


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = [f"{n} {v}" for n, v in machine["packages"].items()]
    versions += [
        f"{e['package']} {e['version']}"
        for e in result["engines"].values()
        if e["version"] and e["package"] not in machine["packages"]
    ]
    return (
        f"{measured(result, cores='cores of which one is used')} Packages: {', '.join(versions)}.\n\n"
        "![Cost, memory, building and stalls by number of entries](engine/results/engine.svg)"
    )


def _goals(goals: list[dict[str, Any]]) -> str:
    rows = ["| goal | limit | measured | |", "|---|---:|---:|---|"]
    for goal in goals:
        mark = {True: "met", False: "**missed**", None: "not measured"}[goal["passed"]]
        value = "-" if goal["value"] is None else number(goal["value"])
        rows.append(f"| {goal['goal']} | {number(goal['limit'])} {goal['unit']} | {value} | {mark} |")
    return "\n".join(rows)


def _table(result: dict[str, Any], size: int) -> str:
    rows = [
        f"**{size:,} entries**",
        "",
        "| | miss µs | new host µs | near miss µs | hit µs | first hit µs | hits found | respelled found "
        "| build s | load s | stall ms | bytes an entry |",
        "|---|" + "---:|" * 11,
    ]
    for row in result["results"]:
        if row["size"] == size:
            title = result["engines"][row["engine"]]["title"]
            cells = (
                _cells(row) if row["status"] == "ok" else [f"{row['status']}: {row['detail']}", *[""] * 10]
            )
            rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cells(row: Result) -> list[str]:
    figures, found = row["figures"], row["found"]
    checks = [_check(figures["check_us"][s]) for s in ("miss", "first", "near", "hit", "hit_first")]
    hits = sum(hit for hit, _ in found["hits"].values()) / sum(total for _, total in found["hits"].values())
    memory = number(figures["bytes_per_entry"]) if row["size"] >= _MEMORY_FROM else "-"
    return [
        *checks,
        _share(hits),
        _share(found["respelled"][0] / found["respelled"][1]),
        number(figures["build_s"]),
        number(figures["load_s"]) if "load_s" in figures else "-",
        number(figures["stall_ms"]),
        memory,
    ]


def _check(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ± {(spread['high'] - spread['low']) / 2:.2f}"


def _share(value: float) -> str:
    # Rounding must not turn nearly all into all.
    return f"{int(value * 1000) / 10:g} %"
