"""The JSON, and the part of ``benchmarks/README.md`` that is written from it."""

import json
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.engine.machine import measured
from benchmarks.goals import goals_table, number
from benchmarks.proxy.plan import DOWNLOADS, Case
from benchmarks.proxy.summary import SUBJECT, find, limited, rate

_TITLES = {
    Case.KEEP: "plain", Case.EXPLICIT: "explicit", Case.CLOSE: "plain, new connection each",
    Case.INTERCEPTED: "TLS intercepted", Case.RELAYED: "TLS relayed",
    Case.NEW_INTERCEPTED: "TLS intercepted, new connection each",
    Case.RESUMED_INTERCEPTED: "TLS intercepted, new, session resumed",
    Case.NEW_RELAYED: "TLS relayed, new connection each",
    Case.RESUMED_RELAYED: "TLS relayed, new, session resumed",
    Case.CONNECT_INTERCEPTED: "CONNECT, TLS intercepted, new each",
    Case.CONNECT_RELAYED: "CONNECT, TLS relayed, new each",
    Case.HTTP2: "HTTP/2 intercepted", Case.BLOCK: "block page", Case.DOWNLOAD: "download, MB/s",
    Case.DOWNLOAD_INTERCEPTED: "download intercepted, MB/s",
}  # fmt: skip
_FEW = 7
"""Cases that are told one by one."""
_PAIR = (SUBJECT, "urlward-2")


def to_json(result: dict[str, Any]) -> str:
    """The result with one line for each row, so that a new run is a readable change."""
    lines = [f'"{name}": {json.dumps(value)}' for name, value in result.items() if name != "results"]
    rows = ",\n".join(f"  {json.dumps(row)}" for row in result["results"])
    return "{\n" + ",\n".join([*lines, f'"results": [\n{rows}\n]']) + "\n}\n"


def report(result: dict[str, Any]) -> str:
    """Machine, goals and tables, as Markdown."""
    parts = [
        _machine(result),
        goals_table(result["goals"]),
        _rates(result),
        _latencies(result),
        _workers(result),
        _reloads(result),
        _doubts(result),
        _soak(result.get("soak")),
        _setups(result),
    ]
    return "\n\n".join(filter(None, parts))


def _machine(result: dict[str, Any]) -> str:
    plan = result["plan"]
    said = measured(
        result,
        f"{result['machine']['load_generator']}; {plan['entries']:,} entries for urlward, "
        f"{plan['peer_entries']:,} for the others; {plan['rounds']} rounds",
    )
    return f"{said}\n\n![Rates and memory](proxy/rates.svg)"


def _rates(result: dict[str, Any]) -> str:
    sizes = {
        name: number(median(proxy["memory"]) / 1e6)
        for name, proxy in result["proxies"].items()
        if proxy["memory"] and name != "none"
    }
    return _table(
        result,
        "Requests a second (downloads: megabytes a second), and memory after the load:",
        list(_TITLES),
        _rate,
        "| memory, MB |" + "".join(f" {sizes.get(name, '-')} |" for name in _shown(result)),
    )


def _shown(result: dict[str, Any]) -> list[str]:
    """Proxies that have figures."""
    measured = {row["proxy"] for row in result["results"] if row["figures"]}
    return [name for name in result["proxies"] if name in measured]


def _table(
    result: dict[str, Any],
    what: str,
    cases: list[Case],
    cell: Callable[[dict[str, Any], Case], str],
    last: str = "",
) -> str:
    """A row for each case, a column for each proxy."""
    names = _shown(result)
    if not names:
        return ""
    titles = " | ".join(result["proxies"][name]["title"] for name in names)
    rows = [what, "", f"| | {titles} |", "|---|" + "---:|" * len(names)]
    for case in cases:
        found = [find(result["results"], name, case) for name in names]
        if any(found):
            rows.append(f"| {_TITLES[case]} | {' | '.join(cell(r, case) if r else '-' for r in found)} |")
    return "\n".join([*rows, last] if last else rows)


def _rate(row: dict[str, Any], case: Case) -> str:
    spread = row["figures"][rate(case)]
    half = (spread["high"] - spread["low"]) / 2
    return f"{'≥ ' if limited(row) else ''}{spread['median']:,.0f} ± {half:,.0f}"


def _latencies(result: dict[str, Any]) -> str:
    return _table(
        result,
        "Milliseconds until the answer: median / 99th percentile / longest of all rounds:",
        [case for case in _TITLES if case not in DOWNLOADS],
        lambda row, _: " / ".join(number(row["figures"][name]) for name in ("p50_ms", "p99_ms", "max_ms")),
    )


def _workers(result: dict[str, Any]) -> str:
    rows = [
        "Two workers on both cores, one of which load and origin have too, so this is what more workers "
        "cost, not what more cores give. Requests a second, and for each second of CPU that the filter took:",
        "",
        "| | 1 worker | 2 workers | 1 worker, per CPU s | 2 workers, per CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, title in _TITLES.items():
        one, two = (find(result["results"], name, case) for name in _PAIR)
        if one and two:
            figures = [one["figures"], two["figures"]]
            cells = [number(f["requests_s"]["median"]) for f in figures]
            cells += [number(f["per_cpu_s"]) if "per_cpu_s" in f else "-" for f in figures]
            rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows) if len(rows) > 4 else ""


def _reloads(result: dict[str, Any]) -> str:
    rows = [
        "A list replaced in the middle of plain keep-alive load:",
        "",
        "| | requests/s | of those without | 99th percentile ms | slowest ms | failed | in force after s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, proxy in result["proxies"].items():
        row = find(result["results"], name, Case.RELOAD)
        if row is None:
            continue
        figures, steady = row["figures"], find(result["results"], name, Case.KEEP)
        speed = figures["requests_s"]["median"]
        share = f"{speed / steady['figures']['requests_s']['median']:.0%}" if steady else "-"
        wait = number(figures["in_force_s"]) if "in_force_s" in figures else "never"
        cells = [f"{speed:,.0f}", share, number(figures["p99_ms"]), f"{figures['max_ms']:,.0f}"]
        cells += [f"{figures['failed']:,}", wait]
        rows.append(f"| {proxy['title']} | {' | '.join(cells)} |")
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
    text = (
        f"Soak, {soak['date']}: {soak['minutes']:g} minutes of mixed load, {soak['entries']:,} entries "
        f"replaced every {soak['every_s']:g} s ({f['reloads']} times; in force after {f['in_force_s']} s "
        f"at the median, {f['in_force_max_s']} s at most). {sum(f['requests'].values()):,} requests, "
        f"{f['downloads']:,} downloads. Slowest answer: {f['slowest_ms']:,.0f} ms. Failed: {f['failed']:,}; "
        f"missed blocks: {f['missed']:,}; memory {f['memory_mb']:,.0f} MB in the last third, "
        f"{f['memory_ratio']:.2f} times the first; peak {f['memory_peak_mb']:,.0f} MB.\n\n"
    )
    rows = [
        "| mode | traffic | requests | failed | missed blocks | slowest ms |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for mode, kinds in soak.get("modes", {}).items():
        for kind, row in kinds.items():
            missed = "-" if row["missed"] is None else f"{row['missed']:,}"
            figures = f"{row['requests']:,} | {row['failed']:,} | {missed} | {row['slowest_ms']:,.0f}"
            rows.append(f"| {mode} | {kind} | {figures} |")
    text += "\n".join(rows) + "\n\n" if len(rows) > 2 else ""
    faults = "\n".join(f"- {fault}" for fault in soak["faults"])
    return (
        text + (f"What went wrong beside that:\n\n{faults}\n\n" if faults else "") + "![Soak](proxy/soak.svg)"
    )


def _setups(result: dict[str, Any]) -> str:
    rows = ["| | version | set up as | not measured |", "|---|---|---|---|"]
    for proxy in result["proxies"].values():
        reasons: dict[str, list[str]] = {}
        for case, why in proxy["without"].items():
            reasons.setdefault(why, []).append(case)
        without = "; ".join(_group(cases, why) for why, cases in reasons.items())
        without = without if proxy["status"] == "ok" else proxy["status"].replace("|", "/")
        rows.append(f"| {proxy['title']} | {proxy['version']} | {proxy['note'] or '-'} | {without or '-'} |")
    return "\n".join(rows)


def _group(cases: list[str], why: str) -> str:
    names = ", ".join(cases) if len(cases) <= _FEW else "all others"
    return f"{names}: {why}"
