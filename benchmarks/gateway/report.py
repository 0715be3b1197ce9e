"""The part of ``benchmarks/README.md`` that is written from the JSON."""

from statistics import median
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.gateway.routing import CUTTING, GATEWAYS, Case
from benchmarks.gateway.summary import added, goals, middle, ratio
from benchmarks.goals import goals_table

_TITLES = {
    "plain": "plain routing",
    "stateful": "connection tracking alone",
    "urlward": "urlward, steering",
    CUTTING: "the same, while connections are cut",
}
_COLUMNS = {
    Case.KEEP: "keep-alive, requests/s",
    Case.KEEP6: "over IPv6",
    Case.CLOSE: "new connection each, requests/s",
    Case.BULK: "bulk MB/s",
    Case.PACKET: "a packet, ns",
}

_COMPARED = (
    ("stateful", "plain"),
    ("urlward", "plain"),
    ("urlward", "stateful"),
    (CUTTING, "plain"),
    (CUTTING, "urlward"),
)


def report(result: dict[str, Any]) -> str:
    """Machine, goals and tables, as Markdown."""
    parts = (_machine, lambda one: goals_table(goals(one)), _rates, _ratios, _listings, _dns)
    return "\n\n".join(part(result) for part in parts)


def _machine(result: dict[str, Any]) -> str:
    routing = result["routing"]
    return measured(
        result,
        f"{routing['entries']:,} entries, {routing['steered']:,} steered addresses of each family; "
        f"{len(routing['rounds'])} rounds",
    )


def _rates(result: dict[str, Any]) -> str:
    rounds = result["routing"]["rounds"]
    rows = [
        "An unlisted host through each gateway, medians:",
        "",
        f"| | {' | '.join(_COLUMNS.values())} |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, title in _TITLES.items():
        values = [middle(rounds, case, name) for case in _COLUMNS]
        rows.append(f"| {title} | {' | '.join('-' if v is None else f'{v:,.0f}' for v in values)} |")
    return "\n".join(rows)


def _ratios(result: dict[str, Any]) -> str:
    rounds = result["routing"]["rounds"]
    rows = [
        "Ratios of rates within a round, and nanoseconds that are added to a packet:",
        "",
        f"| | {' | '.join(str(case) for case in _COLUMNS)} |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, other in _COMPARED:
        cells = []
        for case in _COLUMNS:
            if name not in GATEWAYS and middle(rounds, case, name) is None:
                cells.append("-")
            elif case is Case.PACKET:
                value, half = added(rounds, case, name, other)
                cells.append(f"{value:+,.0f} ± {half:,.0f}")
            else:
                value, half = ratio(rounds, case, name, other)
                cells.append(f"{value:.3f} ± {half:.3f}")
        rows.append(f"| {_TITLES[name]}, over {_TITLES[other]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _listings(result: dict[str, Any]) -> str:
    listings = result["listing"]["listings"]
    rows = [
        f"Seconds from the replacement of a list of {result['listing']['entries']:,} entries, "
        f"{len(listings)} times:",
        "",
        "| | median | longest |",
        "|---|---:|---:|",
    ]
    for title, key in (
        ("next connection blocked, name resolved before", "blocked_s"),
        ("connection that is open has ended", "ended_s"),
    ):
        values = [one[key] for one in listings]
        rows.append(f"| {title} | {median(values):.2f} | {max(values):.2f} |")
    failed = sum(one["failed"] for one in listings)
    rows += ["", f"New connections that neither reached the origin nor were blocked: {failed}."]
    return "\n".join(rows)


def _dns(result: dict[str, Any]) -> str:
    answers = result["dns"]
    rows = ["DNS:", "", "| | answers/s | lost | p50 ms | p99 ms |", "|---|---:|---:|---:|---:|"]
    for title, key in (
        ("resolver alone", "resolver"), ("through urlward", "urlward"), ("a listed name", "urlward, listed")
    ):  # fmt: skip
        rounds = [one[key] for one in answers["rounds"] if key in one]
        rate, lost = "-", "-"
        if rounds:
            rate = f"{median(one['answers_per_s'] for one in rounds):,.0f}"
            lost = f"{sum(one['lost'] for one in rounds):,.0f}"
        latency = answers["latency_ms"][key]
        rows.append(f"| {title} | {rate} | {lost} | {latency['p50']:.2f} | {latency['p99']:.2f} |")
    first = answers["first_connections"]
    rows += [
        "",
        f"First connections behind an answer: {first['tries']:,} in {first['seconds']:.0f} s, "
        f"{first['blocked']:,} blocked, {first['escaped']:,} escaped, {first['failed']:,} failed.",
    ]
    return "\n".join(rows)
