"""Report of a run: what was caught and missed, where and why, and what it cost, with the measurements of
latency, throughput and reloads.
"""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from urlward.lab.measure import Figures, Latency, Rate, Reload, label
from urlward.lab.outcome import STAGES, JudgedAttempt, Result
from urlward.lab.run import Ran
from urlward.report.document import Cell, Fact, MarkedWord, ReportDocument, ReportSection, ReportTable
from urlward.report.plots import Bar, Bars, LineChart, PlotEvent, Series, State, cdf, quantile

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


def figure_sections(figures: Figures) -> list[ReportSection | None]:
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


def _latency(latencies: Sequence[Latency]) -> ReportSection | None:
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
        LineChart(
            f"Time of a request, {'new connections' if fresh else 'open connections'}",
            "milliseconds",
            "share of requests (%)",
            _curves([one for one in latencies if one.fresh is fresh]),
            "The further left a curve rises, the quicker; plain routing beside each stage.",
            log_x=True,
        )
        for fresh in (False, True)
    ]
    return ReportSection(
        "Added latency",
        "One request at a time, in turns from a filtered client and from the neighbour, whose traffic is "
        "routed plainly through the same gateway to the same origin. What was added is the difference.",
        facts=tuple(
            Fact(f"added by {label(one.at)}", _latency_data(one)["added_p50"], "ms at p50, open connection")
            for one in latencies
            if not one.fresh
        ),
        tables=(ReportTable("Latency (ms)", columns, tuple(rows)),),
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


def _rates(rates: Sequence[Rate], tool: str) -> ReportSection | None:
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
    return ReportSection(
        "Throughput",
        f"{explanation} Requests were made by {tool}." if tool else explanation,
        tables=(
            ReportTable(
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


def _reload(reloads: Sequence[Reload]) -> ReportSection | None:
    if not reloads:
        return None
    rows: list[tuple[Cell, ...]] = []
    plots = []
    for one in reloads:
        data = _reload_data(one)
        rows.append((label(one.at), *(data[name] for name in _RELOAD_COLUMNS)))
        plots.append(
            LineChart(
                f"Requests while the list is replaced: {label(one.at)}",
                "seconds",
                "slowest in 0.1 s (ms)",
                (Series("filtered client", _slowest(one)),),
                "Peaks at the dotted lines are what a reload costs.",
                events=tuple(PlotEvent(at, "list replaced") for at in one.reloads),
            )
        )
    return ReportSection(
        "What a reload does to traffic",
        "Two hundred requests a second on an open connection, while the list is replaced twice. Near means "
        "within three seconds after it was replaced.",
        tables=(
            ReportTable("Latency around reloads (ms)", ("stage", *_RELOAD_COLUMNS.values()), tuple(rows)),
        ),
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


_ORDER = (Result.MISSED, Result.WRONG, Result.UNEXPECTED, Result.CAUGHT, Result.PASSED, Result.HELD)
_MOST_ROWS = 500
_STAGES = """\
Stage 1 is the kernel: traffic to addresses that no listed name leads to is routed and not looked at.
Stage 2 reads the name in a TLS greeting and relays what is not listed without decrypting it. Stage 3
reads the request itself: of plain HTTP, and inside TLS of hosts that have an entry."""


def summarise(ran: Ran) -> ReportDocument:
    """Make the report of a run."""
    outcomes = ran.outcomes
    counts = Counter(outcome.result for outcome in outcomes)
    sections = [_matrix(outcomes), _wrong(outcomes), _timing(outcomes)]
    sections += [*figure_sections(ran.figures), _attempts(outcomes)]
    return ReportDocument(
        title=f"urlward lab: {ran.loaded.name}",
        verdict=_verdict(ran, counts),
        summary=_summary(ran, counts),
        facts=(
            Fact("caught", counts[Result.CAUGHT], "listed, and did not arrive"),
            Fact("missed", _zero(counts[Result.MISSED]), "listed, but served"),
            Fact("passed", counts[Result.PASSED], "unlisted, and arrived"),
            Fact("wrongly blocked", _zero(counts[Result.WRONG]), "unlisted, but did not arrive"),
            Fact("other checks failed", _zero(counts[Result.UNEXPECTED]), f"{counts[Result.HELD]:,} held"),
        ),
        sections=tuple(section for section in sections if section is not None),
        environment=_environment(ran),
        data={
            "scenario": ran.loaded.name,
            "good": ran.good,
            "counts": {result.name.lower(): counts[result] for result in Result},
            "outcomes": [outcome.as_data() for outcome in outcomes],
            **figure_data(ran.figures),
        },
    )


def _zero(count: int) -> MarkedWord:
    return MarkedWord(f"{count:,}", "bad" if count else "good")


def _verdict(ran: Ran, counts: Counter[Result]) -> MarkedWord:
    if ran.good:
        return MarkedWord("Everything came out as expected", "good")
    parts = [(counts[Result.MISSED], "missed"), (counts[Result.WRONG], "wrongly blocked")]
    parts.append((counts[Result.UNEXPECTED], "not as expected"))
    told = ", ".join(f"{count:,} {word}" for count, word in parts if count)
    return MarkedWord(told[:1].upper() + told[1:] if told else "Nothing was tested", "bad")


def _summary(ran: Ran, counts: Counter[Result]) -> str:
    text = " ".join(ran.loaded.scenario.description.split()) + "\n\n"
    blocked, passed = counts[Result.CAUGHT], counts[Result.PASSED]
    missed, wrong = counts[Result.MISSED], counts[Result.WRONG]
    if blocked + missed:
        text += f"Of {blocked + missed:,} requests for listed pages, the origins served {missed:,}. "
    if passed + wrong:
        text += f"Of {passed + wrong:,} that should pass, {wrong:,} did not. "
    if counts[Result.UNEXPECTED]:
        text += f"{counts[Result.UNEXPECTED]:,} came out otherwise than the scenario says. "
    return text + "What the origins' own logs say is what counts here, whatever clients and filter say."


def _matrix(outcomes: Sequence[JudgedAttempt]) -> ReportSection | None:
    if not outcomes:
        return None
    counted = Counter((_stage(outcome), outcome.result, outcome.reason) for outcome in outcomes)
    rows: list[tuple[Cell, ...]] = [
        (stage, result.mark, reason, count)
        for (stage, result, reason), count in sorted(
            counted.items(), key=lambda item: (item[0][0], _ORDER.index(item[0][1]), -item[1])
        )
    ]
    by_stage = Counter((_stage(outcome), not outcome.result.good) for outcome in outcomes)
    clients = Counter((outcome.client, outcome.result.good) for outcome in outcomes)
    names = sorted({name for name, _ in clients} - {"the lab"})
    return ReportSection(
        "What was caught, where, and why",
        _STAGES,
        tables=(
            ReportTable("By stage and reason", ("stage", "outcome", "reason", "count"), tuple(rows)),
            ReportTable(
                "By client",
                ("client", "as expected", "not as expected"),
                tuple((name, clients[name, True], clients[name, False]) for name in names),
            ),
            *_by_entry(outcomes),
        ),
        plots=(
            Bars(
                "Decisions by stage",
                "requests",
                tuple(
                    Bar(f"{stage}: not as expected" if bad else stage, count, state="bad" if bad else "plain")
                    for (stage, bad), count in sorted(by_stage.items())
                ),
                "How many requests each stage decided.",
            ),
        ),
    )


def _by_entry(outcomes: Sequence[JudgedAttempt]) -> tuple[ReportTable, ...]:
    hits = Counter((o.seen.entry, o.seen.category) for o in outcomes if o.seen.entry)
    if not hits:
        return ()
    rows = tuple(
        (entry, None if category == "-" else category, count)
        for (entry, category), count in hits.most_common(_MOST_ROWS)
    )
    note = "Entries are named by their id, never by what they list."
    return (ReportTable("Hits by entry", ("entry", "category", "hits"), rows, note, folded=len(rows) > 12),)


def _wrong(outcomes: Sequence[JudgedAttempt]) -> ReportSection | None:
    wrong = [outcome for outcome in outcomes if not outcome.result.good]
    if not wrong:
        return None
    rows = tuple((*_row(outcome)[:6], outcome.why or None) for outcome in wrong[:_MOST_ROWS])
    return ReportSection(
        "What was not as expected",
        "Each of these needs an explanation before this goes live.",
        tables=(ReportTable("Not as expected", (*_COLUMNS[:6], "what the scenario says of it"), rows),),
    )


def _timing(outcomes: Sequence[JudgedAttempt]) -> ReportSection | None:
    timed = [o for o in outcomes if o.after is not None]
    if not timed:
        return None
    rows = tuple((o.step, o.what, o.client, o.result.mark, o.after) for o in timed)
    worst = max(o.after for o in timed if o.after is not None)
    return ReportSection(
        "How soon changes and faults take effect",
        "Seconds from a change, such as a new entry or a fault, until the outcome that the scenario expects.",
        facts=(Fact("longest", worst, "seconds"),),
        tables=(
            ReportTable(
                "Time to effect",
                ("step", "what", "client", "outcome", "after (s)"),
                rows,
                folded=len(rows) > 30,
            ),
        ),
    )


_COLUMNS = ("step", "what", "client", "expected", "outcome", "reason", "stage", "time (ms)")


def _row(outcome: JudgedAttempt) -> tuple[Cell, ...]:
    return (
        outcome.step, outcome.what, outcome.client, outcome.expected or None, outcome.result.mark,
        outcome.reason, _stage(outcome), outcome.seen.seconds * 1000 or None,
    )  # fmt: skip


def _attempts(outcomes: Sequence[JudgedAttempt]) -> ReportSection:
    rows = tuple((*_row(outcome), outcome.seen.entry or None) for outcome in outcomes[:_MOST_ROWS])
    note = f"The first {_MOST_ROWS} of {len(outcomes):,}." if len(outcomes) > _MOST_ROWS else ""
    return ReportSection(
        "Everything that was tried", tables=(ReportTable("Attempts", (*_COLUMNS, "entry"), rows, note, True),)
    )


def _stage(outcome: JudgedAttempt) -> str:
    if outcome.client == "the lab":
        return "the lab's checks"
    return STAGES.get(outcome.seen.stage, "not told")


def _environment(ran: Ran) -> tuple[Fact, ...]:
    scenario = ran.loaded.scenario
    facts = [
        Fact("begun", ran.begun.strftime("%Y-%m-%d %H:%M:%S UTC")),
        Fact("took", f"{ran.seconds:.1f} s"),
        Fact("filter", f"{scenario.filter.workers} workers, {_settings(ran)}"),
        Fact("machine", f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"),
        Fact("system", _system()),
        Fact("Python", platform.python_version()),
    ]
    if not ran.ipv6:
        facts.append(Fact("IPv6", MarkedWord("off in this kernel; left out", "warn")))
    facts += [
        Fact(f"without {client}", MarkedWord(why, "warn")) for client, why in sorted(ran.left_out.items())
    ]
    return tuple(facts)


def _settings(ran: Ran) -> str:
    filters, gateway = ran.loaded.scenario.filter, ran.loaded.scenario.gateway
    return (
        f"intercept {filters.intercept}, steered {gateway.steered}, fail {gateway.fail}"
        f"{', monitor' if filters.monitor else ''}"
    )


def _system() -> str:
    try:
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip('"')
    except OSError:
        pass
    return platform.system()
