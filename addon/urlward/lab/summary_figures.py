"""Measurements of a run for its report: latency, throughput, and reloads."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from urlward.lab.measure import Figures, Latency, Rate, Reload, label
from urlward.report.document import Cell, Fact, Section, Table
from urlward.report.plots import Bar, Bars, Event, Lines, Series, State, cdf, quantile

_NEAR = 3.0
"""Seconds after a reload that count as near it."""

_RELOAD_COLUMNS = {
    "quiet_p50": "quiet p50",
    "quiet_p99": "quiet p99",
    "near_p50": "p50 near a reload",
    "near_p99": "p99 near a reload",
    "worst": "slowest",
    "failed": "failed",
}


def figure_sections(figures: Figures) -> list[Section | None]:
    """A section for each kind of figure; None where none was measured.

    Args:
        figures: of a run.
    """
    return [
        _latency(figures.latencies),
        _rates(figures.rates, figures.tool),
        _reload(figures.reloads),
    ]


def figure_data(figures: Figures) -> dict[str, Any]:
    """The measurements as data for ``report.json``; times in milliseconds."""
    return {
        "latency_ms": [_latency_data(one) for one in figures.latencies],
        "rates": [_rate_data(one) for one in figures.rates],
        "reloads": [{"stage": one.at.stage, **_reload_data(one)} for one in figures.reloads],
    }


def _latency(latencies: Sequence[Latency]) -> Section | None:
    if not latencies:
        return None
    rows: list[tuple[Cell, ...]] = []
    for one in latencies:
        data = _latency_data(one)
        rows.append((
            data["what"], data["connection"], data["plain_p50"], data["plain_p99"], data["through_p50"],
            data["through_p99"], data["added_p50"], data["added_p99"], one.failed,
        ))  # fmt: skip
    columns = (
        "stage", "connection", "plain p50", "plain p99", "through p50", "through p99", "added p50",
        "added p99", "failed",
    )  # fmt: skip
    plots = [
        Lines(
            f"Time of a request, {'new connections' if fresh else 'open connections'}",
            "milliseconds",
            "share of requests (%)",
            _curves([one for one in latencies if one.fresh is fresh]),
            "The further left a curve rises, the quicker; plain routing beside each stage.",
            log_x=True,
        )
        for fresh in (False, True)
    ]
    return Section(
        "Added latency",
        "One request at a time, in turns from a filtered client and from the neighbour, whose traffic is "
        "routed plainly through the same gateway to the same origin. What was added is the difference.",
        facts=tuple(
            Fact(f"added by {label(one.at)}", _latency_data(one)["added_p50"], "ms at p50, open connection")
            for one in latencies
            if not one.fresh
        ),
        tables=(Table("Latency (ms)", columns, tuple(rows)),),
        plots=tuple(plots),
    )


def _curves(latencies: Sequence[Latency]) -> tuple[Series, ...]:
    found = []
    seen = set()
    for one in latencies:
        scheme = one.at.url.split(":")[0].upper()
        if scheme not in seen:
            seen.add(scheme)
            found.append(cdf(f"plain routing, {scheme}", one.plain))
        found.append(cdf(label(one.at), one.through))
    return tuple(found)


def _latency_data(one: Latency) -> dict[str, Cell]:
    p50, p99 = ([quantile(values, share) for values in (one.plain, one.through)] for share in (0.5, 0.99))
    return {
        "what": label(one.at), "stage": one.at.stage,
        "connection": "new" if one.fresh else "open", "count": len(one.plain) + len(one.through),
        "plain_p50": p50[0], "plain_p99": p99[0], "through_p50": p50[1], "through_p99": p99[1],
        "added_p50": _difference(p50), "added_p99": _difference(p99), "failed": one.failed,
    }  # fmt: skip


def _difference(pair: Sequence[float | None]) -> float | None:
    plain, through = pair
    return None if plain is None or through is None else through - plain


def _rates(rates: Sequence[Rate], tool: str) -> Section | None:
    if not rates:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            label(one.at), one.unit, fmean(one.plain), fmean(one.through),
            fmean(one.through) / fmean(one.plain) if any(one.plain) else None, one.failed,
        )
        for one in rates
    ]  # fmt: skip
    plots = []
    for unit in dict.fromkeys(one.unit for one in rates):
        bars: list[Bar] = []
        for one in rates:
            if one.unit == unit:
                name = label(one.at)
                bars.append(_bar(f"{name}: plain routing", one.plain, "plain"))
                bars.append(_bar(f"{name}: filtered", one.through, "good"))
        plots.append(Bars(f"Throughput ({unit})", unit, tuple(bars), "Plain routing beside each stage."))
    explanation = "As much as two cores can do that also run client and origin."
    return Section(
        "Throughput",
        f"{explanation} Requests were made by {tool}." if tool else explanation,
        tables=(
            Table(
                "Throughput", ("stage", "unit", "plain routing", "filtered", "share", "failed"), tuple(rows)
            ),
        ),
        plots=tuple(plots),
    )


def _bar(name: str, runs: Sequence[float], state: State) -> Bar:
    return Bar(name, fmean(runs), min(runs), max(runs), state)


def _rate_data(one: Rate) -> dict[str, Cell]:
    return {
        "what": label(one.at), "stage": one.at.stage, "unit": one.unit,
        "plain": fmean(one.plain), "through": fmean(one.through), "failed": one.failed,
        "runs": len(one.plain),
    }  # fmt: skip


def _reload(reloads: Sequence[Reload]) -> Section | None:
    if not reloads:
        return None
    rows: list[tuple[Cell, ...]] = []
    plots = []
    for one in reloads:
        data = _reload_data(one)
        rows.append((label(one.at), *(data[name] for name in _RELOAD_COLUMNS)))
        plots.append(
            Lines(
                f"Requests while the list is replaced: {label(one.at)}",
                "seconds",
                "slowest in 0.1 s (ms)",
                (Series("filtered client", _slowest(one)),),
                "Peaks at the dotted lines are what a reload costs.",
                events=tuple(Event(at, "list replaced") for at in one.reloads),
            )
        )
    return Section(
        "What a reload does to traffic",
        "Two hundred requests a second on an open connection, while the list is replaced twice. Near means "
        "within three seconds after it was replaced.",
        tables=(Table("Latency around reloads (ms)", ("stage", *_RELOAD_COLUMNS.values()), tuple(rows)),),
        plots=tuple(plots),
    )


def _slowest(one: Reload) -> tuple[tuple[float, float], ...]:
    slowest: dict[int, float] = {}
    for at, ms, _ in one.samples:
        slowest[int(at * 10)] = max(slowest.get(int(at * 10), 0.0), ms)
    return tuple((place / 10, ms) for place, ms in sorted(slowest.items()))


def _reload_data(one: Reload) -> dict[str, Cell]:
    near: list[float] = []
    quiet: list[float] = []
    for at, ms, answered in one.samples:
        if answered:
            (near if any(0 <= at - reload <= _NEAR for reload in one.reloads) else quiet).append(ms)
    return {
        "quiet_p50": quantile(quiet, 0.5), "quiet_p99": quantile(quiet, 0.99),
        "near_p50": quantile(near, 0.5), "near_p99": quantile(near, 0.99),
        "worst": max((ms for _, ms, _ in one.samples), default=None),
        "failed": sum(not answered for _, _, answered in one.samples), "count": len(one.samples),
    }  # fmt: skip
