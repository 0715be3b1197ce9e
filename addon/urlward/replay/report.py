"""Report of a replay: counts and shares, without any client, host or URL."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from urlward.engine.dates import time_text
from urlward.engine.loaded import LoadedList
from urlward.replay.judge import HOUR, Distinct
from urlward.replay.run import Replay
from urlward.report.document import Cell, Fact, MarkedWord, ReportDocument, ReportSection, ReportTable
from urlward.report.plots import LineChart, Plot, Series

_MOST_HOURS = 14 * 24
"""Hours that are shown one by one; more become days."""

_MOST_POINTS = 4000
_PARTS = ("list", "category", "kind")


def make_report(replay: Replay, lists: Sequence[LoadedList], top: int) -> ReportDocument:
    """Make the report of a replay.

    Args:
        replay: the outcome.
        lists: that were replayed against.
        top: entries that are named by their ids.
    """
    tally, data = replay.tally, data_of(replay, lists, top)
    requests, blocked, bad = tally.requests, tally.blocked, tally.not_judged
    verdict = MarkedWord(f"{blocked:,} of {requests:,} requests would be blocked", "plain")
    summary = f"The lists would have blocked {_share(blocked, requests)} of {requests:,} requests."
    if connects := tally.connects["all"]:
        summary += (
            f" Of {connects:,} tunnels (CONNECT), {_share(tally.connects['below'], connects)} would have "
            "been decrypted to see whether a listed page is asked for."
        )
    sections = _what(replay, data), _when(replay, data), _tls(data["tls"]), _logs(data)
    clock = "judged at the log's times" if replay.clock == "log" else "judged now"
    return ReportDocument(
        "Replay of access logs",
        verdict if requests else MarkedWord("no request to judge", "warn"),
        summary,
        facts=(
            Fact("requests", requests),
            Fact("would be blocked", blocked, _share(blocked, requests)),
            _distinct("clients concerned", tally.clients_hit, tally.clients),
            _distinct("hosts concerned", tally.hosts_hit, tally.hosts),
            Fact("lines not judged", bad, _share(bad, tally.lines)),
        ),
        sections=tuple(section for section in sections if section),
        environment=(
            Fact("made", time_text(replay.now)),
            *(Fact("list", f"{li.name}, {li.entries:,} entries, serial {li.serial}") for li in lists),
            Fact("entries that expire", clock),
            Fact("took", f"{replay.seconds:.1f} s, {requests / max(replay.seconds, 0.001):,.0f} requests/s"),
        ),
        data=data,
    )


def data_of(replay: Replay, lists: Sequence[LoadedList], top: int) -> dict[str, Any]:
    """All counts as JSON values."""
    tally = replay.tally
    blocks = Counter({key: n for key, n in tally.verdicts.items() if key[0] == "block"})
    parts: dict[str, Counter[str]] = {part: Counter() for part in _PARTS}
    for (_, *names, _), n in blocks.items():
        for part, name in zip(_PARTS, names, strict=True):
            parts[part][name] += n
    return {
        "lines": tally.lines,
        "requests": tally.requests,
        "blocked": tally.blocked,
        "allowed": tally.allowed,
        "not_judged": {
            reason: {"lines": count, "first": [{"log": log, "line": line} for log, line in first]}
            for reason, (count, first) in sorted(tally.bad.items(), key=lambda item: -item[1][0])
        },
        "clients": _distinct_data(tally.clients, tally.clients_hit),
        "hosts": _distinct_data(tally.hosts, tally.hosts_hit),
        **{f"by_{part}": dict(counts.most_common()) for part, counts in parts.items()},
        "entries": [
            {"list": name, "category": category, "kind": kind, "id": entry, "requests": n}
            for (_, name, category, kind, entry), n in blocks.most_common(top)
        ],
        "hours": {
            _stamp(hour): {"requests": n, "blocked": tally.blocked_hours[hour]}
            for hour, n in sorted(tally.hours.items())
        },
        "statuses": {
            status: {"requests": n, "blocked": tally.blocked_statuses[status]}
            for status, n in sorted(tally.statuses.items())
        },
        "tls": {
            "connects": _tunnel_data(tally.connects),
            "https_requests": _tunnel_data(tally.https),
            "hosts_decrypted": tally.hosts_below.count,
            "blocked_unseen": tally.unseen,
        },
        "lists": [{"name": li.name, "entries": li.entries, "serial": li.serial} for li in lists],
        "logs": [
            {
                "log": n,
                "format": log.format.kind,
                "bytes": log.size,
                "lines": log.lines,
                "trouble": log.trouble,
            }
            for n, log in enumerate(replay.logs, 1)
        ],
        "clock": replay.clock,
        "seconds": round(replay.seconds, 3),
    }


def _what(replay: Replay, data: dict[str, Any]) -> ReportSection:
    requests, entries = data["requests"], data["entries"]
    tables = [
        ReportTable(
            f"By {part}",
            (part, "requests", "of all requests"),
            tuple((name or "(none)", n, _share(n, requests)) for name, n in data[f"by_{part}"].items()),
        )
        for part in _PARTS
    ]
    met = sum(key[0] == "block" for key in replay.tally.verdicts)
    tables.append(
        ReportTable(
            "By entry",
            ("entry", "list", "category", "kind", "requests"),
            tuple((e["id"], e["list"], e["category"] or "(none)", e["kind"], e["requests"]) for e in entries),
            note=f"The {len(entries)} with most requests, of {met:,} entries that were met.",
            folded=len(entries) > 10,
        )
    )
    return ReportSection(
        "What would be blocked",
        "Each request of the logs was judged as the filter judges it, by its URL; a CONNECT request by its "
        "host alone.\n\nA log that leaves out queries (as Squid does unless told otherwise, "
        "strip_query_terms) shows nothing of entries for parameters, and addresses that names led to are "
        "not judged.",
        (Fact("allowed by an @@ entry", data["allowed"]),) if data["allowed"] else (),
        tables=tuple(table for table in tables if table.rows),
    )


def _when(replay: Replay, data: dict[str, Any]) -> ReportSection | None:
    statuses = tuple((status, n["requests"], n["blocked"]) for status, n in data["statuses"].items())
    if not data["hours"] and not statuses:
        return None
    columns = ("status", "requests", "would be blocked")
    return ReportSection(
        "When, and with what answer",
        "Times are UTC.",
        tables=(ReportTable("By status as logged", columns, statuses, folded=len(statuses) > 12),)
        if statuses
        else (),
        plots=_plots(replay),
    )


def _plots(replay: Replay) -> tuple[Plot, ...]:
    hours = replay.tally.hours
    if len(hours) < 2:
        return ()
    size, unit = (1, "hour") if max(hours) - min(hours) < _MOST_HOURS else (24, "day")
    first = min(hours) // size
    count = max(hours) // size - first + 1
    if count > _MOST_POINTS:
        return ()  # some line has a time that is far off
    start = _stamp(first * size)
    plots = []
    for title, what, counts in (
        (f"Requests that would be blocked, by {unit}", "blocked", replay.tally.blocked_hours),
        (f"All requests, by {unit}", "requests", hours),
    ):
        sums = [0] * count
        for hour, n in counts.items():
            sums[hour // size - first] += n
        points = tuple((float(x), float(y)) for x, y in enumerate(sums))
        most = max(sums)
        alt = f"{title}, from {start} on, {count:,} {unit}s; at most {most:,} in one {unit}."
        plots.append(
            LineChart(title, f"{unit}s since {start}", f"{what} in the {unit}", (Series(what, points),), alt)
        )
    return tuple(plots)


def _tls(data: dict[str, Any]) -> ReportSection | None:
    rows: list[tuple[Cell, ...]] = []
    for label, key in (("CONNECT", "connects"), ("requests to https URLs", "https_requests")):
        total, whole, below = data[key].values()
        if total:
            rows += [
                (label, "all", total, ""),
                (label, "host listed whole", whole, _share(whole, total)),
                (label, "decrypted, pages of the host listed", below, _share(below, total)),
            ]
    if not rows:
        return None
    unseen = data["blocked_unseen"]
    return ReportSection(
        "TLS",
        "The filter decrypts a TLS connection only where its host has an entry: a host listed whole is "
        "refused, or decrypted to show the block page (tls_block); a host with listed pages is decrypted, "
        "and its pages are told apart inside. All other connections are relayed as they are.",
        (
            Fact("hosts decrypted for listed pages", data["hosts_decrypted"]),
            *((Fact("blocked URLs inside TLS that stays unread", unseen),) if unseen else ()),
        ),
        (ReportTable("TLS by what is listed", ("seen as", "what", "number", "share"), tuple(rows)),),
    )


def _logs(data: dict[str, Any]) -> ReportSection:
    logs = ReportTable(
        "Logs",
        ("log", "format", "bytes", "lines", "remark"),
        tuple(
            (
                log["log"],
                log["format"],
                log["bytes"] or None,
                log["lines"],
                log["trouble"] or "read to its end",
            )
            for log in data["logs"]
        ),
        note="By number, in the order given: a name could tell of a host.",
    )
    bad = ReportTable(
        "Lines that were not judged",
        ("why", "lines", "first"),
        tuple(
            (reason, bad["lines"], ", ".join(f"log {at['log']} line {at['line']}" for at in bad["first"]))
            for reason, bad in data["not_judged"].items()
        ),
    )
    return ReportSection("The logs", tables=(logs, bad) if bad.rows else (logs,))


def _distinct(label: str, hit: Distinct, seen: Distinct) -> Fact:
    if not seen.count:
        return Fact(label, None, "not in the logs")
    about = "" if seen.exact else "about "
    return Fact(label, hit.count, f"of {about}{seen.count:,}, {_share(hit.count, seen.count)}")


def _distinct_data(seen: Distinct, hit: Distinct) -> dict[str, Any]:
    return {"seen": seen.count, "hit": hit.count, "exact": seen.exact and hit.exact}


def _tunnel_data(counts: Counter[str]) -> dict[str, int]:
    return {"all": counts["all"], "listed_whole": counts["whole"], "decrypted": counts["below"]}


def _stamp(hour: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(hour * HOUR))


def _share(part: int, whole: int) -> str:
    """A share as text, such as 0.12 %, with three significant figures."""
    return f"{100 * part / whole:.3g} %" if whole else "-"
