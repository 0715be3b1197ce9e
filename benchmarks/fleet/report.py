"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from typing import Any

from benchmarks.engine.machine import measured

_ASKED = {"alone": "nothing is shared", "one": "one node answers all", "all": "all nodes answer"}


def report(result: dict[str, Any]) -> str:
    """Machine and tables, as Markdown."""
    join = result["join"]
    rows = [
        measured(result),
        "",
        f"Until the two new addresses of an answer are steered, {result['rate']:.0f} such answers a second:",
        "",
        "| nodes | | answers | p50, ms | p99, ms | within 5 ms | CPU ms of the first node | of each other |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {one['nodes']} | {_ASKED[one['asked']]} | {one['answers']:,} | {one['p50']:.2f} "
        f"| {one['p99']:.2f} | {one['within_5ms']:.1%} | {one['cpu_ms']:.2f} | {one['cpu_other_ms']:.2f} |"
        for one in result["answers"]
    ]
    rows += [
        "",
        f"A node joins others that steer {join['addresses']:,} addresses in {join['seconds']:.1f} s: "
        f"{join['held']:,} are in its kernel then; its process had {join['peak'] / 2**20:,.0f} MiB at most, "
        f"Valkey {join['valkey'] / 2**20:,.0f} MiB.",
    ]
    return "\n".join(rows)
