"""From rounds to figures, from figures to goals."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from benchmarks.goals import Goal, judge
from benchmarks.proxy.plan import DOWNLOADS, GOAL_ENTRIES, MODES, Case

type Row = dict[str, Any]

SUBJECT = "urlward"
SOAK_MINUTES = 10
LEVEL = 1.05
"""Memory is level where the last third of the soak has at most so much over the first."""

_RATIOS = (
    (Case.EXPLICIT, "squid", 1.5),
    (Case.KEEP, "squid", 2.0),
    (Case.CLOSE, "squid", 1.2),
    (Case.INTERCEPTED, "squid", 1.5),
    (Case.NEW_INTERCEPTED, "squid", 2.0),
    (Case.NEW_RELAYED, "squid", 1.0),
    (Case.DOWNLOAD_INTERCEPTED, "squid", 2.0),
    (Case.HTTP2, "mitmdump", 8.0),
    (Case.KEEP, "squidguard", 2.0),
)
"""Case, whom urlward is compared with, and how many times its rate urlward must reach."""
_SLOWEST = (Case.CLOSE, "squid", 3.0)
"""Likewise, and how many times its 99th percentile urlward's may be."""

_HASHED = (Case.DOWNLOAD, "urlward-files", 0.8)
"""Likewise, where the download is hashed, over where it is not."""

_NAMES = {"squid": "Squid's", "squidguard": "Squid's with squidGuard", "mitmdump": "stock mitmproxy's"}

_FULL, _IDLE = 0.9, 0.05
"""A rate is the load's limit where the proxy's core has more to give than this and the load's has less."""


def rate(case: str) -> str:
    """The figure that says how much went through in a case."""
    return "megabytes_s" if case in DOWNLOADS else "requests_s"


def summarise(row: Row) -> None:
    """Add the medians of a row's rounds, and what was wrong in any of them."""
    row["problems"] = list(dict.fromkeys(p for cell in row["rounds"] for p in cell["problems"]))
    name = rate(row["case"])
    cells = [cell for cell in row["rounds"] if name in cell]
    if not cells:
        row["figures"] = None
        return
    figures: dict[str, Any] = {name: _spread([cell[name] for cell in cells])}
    for figure in ("p50_ms", "p99_ms", "proxy_busy", "load_idle", "per_cpu_s"):
        if all(figure in cell for cell in cells):
            figures[figure] = round(median(cell[figure] for cell in cells), 3)
    figures["max_ms"] = max(cell["max_ms"] for cell in cells)
    if any(cell.get("resumed") for cell in cells):
        figures["resumed"] = round(
            sum(cell["resumed"] for cell in cells) / sum(cell["requests"] for cell in cells), 3
        )
    figures["failed"] = sum(cell["failed"] for cell in cells)
    waits = [cell["in_force_s"] for cell in cells if cell.get("in_force_s") is not None]
    if waits:
        figures["in_force_s"] = round(median(waits), 2)
    row["figures"] = figures


def find(rows: Sequence[Row], proxy: str, case: Case) -> Row | None:
    """The row of a proxy and a case, if it has figures."""
    for row in rows:
        if row["proxy"] == proxy and row["case"] == case and row["figures"]:
            return row
    return None


def limited(row: Row) -> bool:
    """Whether it was the load, not the proxy, that could do no more."""
    return bool(row["figures"]["proxy_busy"] < _FULL and row["figures"]["load_idle"] < _IDLE)


def goals(result: dict[str, Any]) -> list[Goal]:
    """Each goal with its limit, the value and whether it is met; None where it was not measured."""
    rows = result["results"]
    full = result["plan"]["entries"] == GOAL_ENTRIES
    found = []
    for case, peer, limit in _RATIOS:
        above, below = find(rows, SUBJECT, case), find(rows, peer, case)
        name, value = f"{case}: rate over {_NAMES[peer]}", None
        if above and below:
            # Two that are held back alike differ in what they take for it.
            held = limited(above) and limited(below) and case not in DOWNLOADS
            name += ", per second of CPU, as the load's core was the limit for both" if held else ""
            value = _ratio(above, below, "per_cpu_s" if held else rate(case))
        found.append(judge(name, "times", limit, value, least=True, judged=full))
    case, hashing, limit = _HASHED
    above, below = find(rows, hashing, case), find(rows, SUBJECT, case)
    value = _ratio(above, below, rate(case)) if above and below else None
    found.append(
        judge(
            f"{case}: rate with digests listed over without", "times", limit, value, least=True, judged=full
        )
    )
    case, peer, limit = _SLOWEST
    above, below = find(rows, SUBJECT, case), find(rows, peer, case)
    slow = _ratio(above, below, "p99_ms") if above and below else None
    found.append(judge(f"{case}: 99th percentile over {_NAMES[peer]}", "times", limit, slow, judged=full))
    reload = find(rows, SUBJECT, Case.RELOAD)
    failed = reload["figures"]["failed"] if reload else None
    found.append(judge("reload in the middle: failed requests", "", 0, failed, judged=full))
    mine = [row for row in rows if row["proxy"] == SUBJECT]
    wrong = sum(bool(cell["problems"]) for row in mine for cell in row["rounds"]) if mine else None
    found.append(judge("turns of urlward in which anything was not as it must be", "", 0, wrong, judged=full))
    soak = result.get("soak")
    whole = (
        soak is not None
        and soak["minutes"] >= SOAK_MINUTES
        and soak["entries"] == GOAL_ENTRIES
        and set(soak.get("modes", ())) == set(MODES)
    )
    for name, figure, limit in (
        ("soak: failed requests", "failed", 0),
        ("soak: missed blocks", "missed", 0),
        ("soak: memory of the last third over that of the first", "memory_ratio", LEVEL),
    ):
        value = soak["figures"][figure] if soak else None
        found.append(judge(name, "times" if figure == "memory_ratio" else "", limit, value, judged=whole))
    return found


def _ratio(above: Row, below: Row, name: str) -> float | None:
    """The median of the rounds' ratios: numerator and denominator are of one round."""
    pairs = zip(above["rounds"], below["rounds"], strict=False)
    ratios = [a[name] / b[name] for a, b in pairs if name in a and b.get(name)]
    return median(ratios) if ratios else None


def _spread(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(median(values), 1), "low": round(low, 1), "high": round(high, 1)}
