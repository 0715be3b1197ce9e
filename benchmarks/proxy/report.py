"""The JSON, and the part of ``benchmarks/README.md`` that is written from it."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.proxy.plan import Case
from benchmarks.proxy.summary import Goal, find, limited, rate
from benchmarks.readme import parts

BEGIN = "<!-- proxy: written by `python -m benchmarks.proxy --report`, not by hand -->"
END = "<!-- proxy: end -->"

_COLUMNS = {
    Case.KEEP: "keep-alive", Case.CLOSE: "new connection each", Case.INTERCEPTED: "TLS intercepted",
    Case.RELAYED: "TLS relayed", Case.BLOCK: "block page", Case.DOWNLOAD: "download MB/s",
    Case.DOWNLOAD_INTERCEPTED: "download intercepted MB/s",
}  # fmt: skip
_TIMED = (Case.KEEP, Case.CLOSE, Case.INTERCEPTED, Case.RELAYED, Case.BLOCK)


def to_json(result: dict[str, Any]) -> str:
    """The result with one line for each row, so that a new run is a readable change."""
    lines = [f'"{name}": {json.dumps(value)}' for name, value in result.items() if name != "results"]
    rows = ",\n".join(f"  {json.dumps(row)}" for row in result["results"])
    return "{\n" + ",\n".join([*lines, f'"results": [\n{rows}\n]']) + "\n}\n"


def rewrite(readme: Path, result: dict[str, Any]) -> None:
    """Put the report between the marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, _, after = parts(readme.read_text(), BEGIN, END)
    readme.write_text(f"{before}{BEGIN}\n{report(result)}{END}{after}")


def differs(readme: Path, result: dict[str, Any]) -> bool:
    """Whether the text between the marks is not the report."""
    return parts(readme.read_text(), BEGIN, END)[1] != f"\n{report(result)}"


def report(result: dict[str, Any]) -> str:
    """Machine, goals and tables, as Markdown."""
    parts = [
        _machine(result),
        goals_table(result["goals"]),
        _rates(result),
        _latencies(result),
        _reloads(result),
        _doubts(result),
        _soak(result.get("soak")),
        _setups(result),
    ]
    return "\n" + "\n\n".join(filter(None, parts)) + "\n\n"


def _machine(result: dict[str, Any]) -> str:
    machine, plan = result["machine"], result["plan"]
    return (
        f"Measured {result['date']} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, {machine['python']}, "
        f"{machine['load_generator']}; {plan['entries']:,} entries for urlward, {plan['peer_entries']:,} for "
        f"the others; {plan['rounds']} rounds; load of the machine when the run began: {machine['load']}.\n\n"
        "![Rates and memory](proxy/rates.svg)"
    )


def goals_table(goals: list[Goal]) -> str:
    """Goal, limit, measured, met or missed."""
    rows = ["| goal | limit | measured | |", "|---|---:|---:|---|"]
    for goal in goals:
        unjudged = "not measured" if goal["value"] is None else "not judged"
        mark = {True: "met", False: "**missed**", None: unjudged}[goal["passed"]]
        value = "-" if goal["value"] is None else number(goal["value"])
        limit = f"{'at least' if goal['least'] else 'at most'} {number(goal['limit'])} {goal['unit']}".strip()
        rows.append(f"| {goal['goal']} | {limit} | {value} | {mark} |")
    return "\n".join(rows)


def _rates(result: dict[str, Any]) -> str:
    rows = [
        "Requests a second (downloads: megabytes a second), and memory after the load:",
        "",
        f"| | {' | '.join(_COLUMNS.values())} | memory MB |",
        "|---|" + "---:|" * (len(_COLUMNS) + 1),
    ]
    for name, proxy in result["proxies"].items():
        if proxy["status"] != "ok":
            rows.append(f"| {proxy['title']} | {proxy['status']} |" + " |" * len(_COLUMNS))
            continue
        cells = [_rate(find(result["results"], name, case), case) for case in _COLUMNS]
        size = median(proxy["memory"]) / 1e6 if proxy["memory"] and name != "none" else None
        rows.append(f"| {proxy['title']} | {' | '.join(cells)} | {'-' if size is None else number(size)} |")
    return "\n".join(rows)


def _rate(row: dict[str, Any] | None, case: Case) -> str:
    if row is None:
        return "-"
    figures = row["figures"]
    spread = figures[rate(case)]
    half = (spread["high"] - spread["low"]) / 2
    return f"{'≥ ' if limited(row) else ''}{spread['median']:,.0f} ± {half:,.0f}"


def _latencies(result: dict[str, Any]) -> str:
    rows = [
        "Milliseconds until the answer, median / 99th percentile:",
        "",
        f"| | {' | '.join(_COLUMNS[case] for case in _TIMED)} |",
        "|---|" + "---:|" * len(_TIMED),
    ]
    for name, proxy in result["proxies"].items():
        found = [find(result["results"], name, case) for case in _TIMED]
        if any(found):
            cells = [
                f"{number(r['figures']['p50_ms'])} / {number(r['figures']['p99_ms'])}" if r else "-"
                for r in found
            ]
            rows.append(f"| {proxy['title']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _reloads(result: dict[str, Any]) -> str:
    rows = [
        "A list replaced in the middle of plain keep-alive load:",
        "",
        "| | requests/s | of those without | slowest ms | failed | in force after s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, proxy in result["proxies"].items():
        row = find(result["results"], name, Case.RELOAD)
        if row is None:
            continue
        figures, steady = row["figures"], find(result["results"], name, Case.KEEP)
        speed = figures["requests_s"]["median"]
        share = f"{speed / steady['figures']['requests_s']['median']:.0%}" if steady else "-"
        wait = number(figures["in_force_s"]) if "in_force_s" in figures else "never"
        rows.append(
            f"| {proxy['title']} | {speed:,.0f} | {share} | {figures['max_ms']:,.0f} | {figures['failed']:,} "
            f"| {wait} |"
        )
    return "\n".join(rows) if len(rows) > 4 else ""


def _doubts(result: dict[str, Any]) -> str:
    lines = []
    for row in result["results"]:
        if row["problems"]:
            title = result["proxies"][row["proxy"]]["title"]
            lines.append(f"- {title}, {row['case']}: {'; '.join(row['problems'])}")
    return "\n".join(["Not as it should have been:", "", *lines]) if lines else ""


def _soak(soak: dict[str, Any] | None) -> str:
    if soak is None:
        return ""
    f = soak["figures"]
    requests = ", ".join(f"{count:,} {kind}" for kind, count in f["requests"].items())
    return (
        f"Soak, {soak['date']}: {soak['minutes']:g} minutes of mixed load, {soak['entries']:,} entries "
        f"replaced every {soak['every_s']:g} s ({f['reloads']} times; in force after {f['in_force_s']} s "
        f"at the median, {f['in_force_max_s']} s at most). Requests: {requests}; {f['downloads']:,} "
        f"downloads. Slowest answer: {f['slowest_ms']:,.0f} ms. Failed: {f['failed']:,}; missed blocks: "
        f"{f['missed']:,}; memory "
        f"{f['memory_mb']:,.0f} MB in the last third, {f['memory_ratio']:.2f} times the first; peak "
        f"{f['memory_peak_mb']:,.0f} MB.\n\n![Soak](proxy/soak.svg)"
    )


def _setups(result: dict[str, Any]) -> str:
    rows = ["| | version | set up as | not measured |", "|---|---|---|---|"]
    for proxy in result["proxies"].values():
        reasons: dict[str, list[str]] = {}
        for case, why in proxy["without"].items():
            reasons.setdefault(why, []).append(case)
        without = "; ".join(f"{', '.join(cases)}: {why}" for why, cases in reasons.items())
        rows.append(f"| {proxy['title']} | {proxy['version']} | {proxy['note'] or '-'} | {without or '-'} |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Three digits or so."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
