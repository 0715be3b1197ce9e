"""The report of a replayed log: counts and shares, without any client, host or URL."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from urlward.engine.loaded import LoadedList
from urlward.gateway.lab.replay import Replay
from urlward.gateway.lab.replay_check import HOUR
from urlward.gateway.lab.replay_tally import Bad, Distinct, Tunnels
from urlward.gateway.lab.report import Cell, Fact, Lines, Mark, Plot, Report, Section, Series, Table

_MOST_HOURS = 14 * 24
"""Hours that are shown one by one; more become days."""

_MOST_POINTS = 4000
_PARTS = ("list", "category", "kind")


def make_report(replay: Replay, lists: Sequence[LoadedList], top: int) -> Report:
    """The report.

    Args:
        replay: what came of it.
        lists: that were replayed against.
        top: entries that are named by their ids.
    """
    tally = replay.tally
    requests, blocked = tally.requests, tally.blocked
    if requests:
        verdict = Mark(f"{blocked:,} of {requests:,} requests would be blocked", "plain")
    else:
        verdict = Mark("no request to judge", "warn")
    return Report(
        "Replay of access logs",
        verdict,
        _summary(replay),
        facts=(
            Fact("requests", requests),
            Fact("would be blocked", blocked, _share(blocked, requests)),
            _distinct("clients concerned", tally.clients_hit, tally.clients),
            _distinct("hosts concerned", tally.hosts_hit, tally.hosts),
            Fact("lines not judged", tally.not_judged, _share(tally.not_judged, tally.lines)),
        ),
        sections=tuple(
            section for section in (_what(replay, top), _when(replay), _tls(replay), _logs(replay)) if section
        ),
        environment=(
            Fact("made", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(replay.now))),
            *(Fact("list", f"{li.name}, {li.entries:,} entries, serial {li.serial}") for li in lists),
            Fact(
                "entries that expire", "judged at the log's times" if replay.clock == "log" else "judged now"
            ),
            Fact("took", f"{replay.seconds:.1f} s, {requests / max(replay.seconds, 0.001):,.0f} requests/s"),
        ),
        data=data_of(replay, lists, top),
    )


def data_of(replay: Replay, lists: Sequence[LoadedList], top: int) -> dict[str, Any]:
    """All counts as JSON values."""
    tally = replay.tally
    return {
        "lines": tally.lines,
        "requests": tally.requests,
        "blocked": tally.blocked,
        "allowed": sum(n for (action, *_), n in tally.verdicts.items() if action == "allow"),
        "not_judged": {
            reason: {"lines": bad.count, "first": [{"log": log, "line": line} for log, line in bad.first]}
            for reason, bad in _bad(replay)
        },
        "clients": _distinct_data(tally.clients, tally.clients_hit),
        "hosts": _distinct_data(tally.hosts, tally.hosts_hit),
        **{f"by_{part}": dict(_by(replay, at).most_common()) for at, part in enumerate(_PARTS, 1)},
        "entries": [
            {"list": name, "category": category, "kind": kind, "id": entry, "requests": count}
            for (_, name, category, kind, entry), count in _top(replay, top)
        ],
        "hours": {
            _stamp(hour * HOUR): {"requests": tally.hours[hour], "blocked": tally.blocked_hours[hour]}
            for hour in sorted(tally.hours)
            if tally.hours[hour]
        },
        "statuses": {
            status: {"requests": count, "blocked": tally.blocked_statuses[status]}
            for status, count in sorted(tally.statuses.items())
            if count
        },
        "tls": {
            "connects": _tunnel_data(tally.connects),
            "https_requests": _tunnel_data(tally.https),
            "hosts_decrypted": tally.hosts_below.count,
            "blocked_unseen": tally.unseen,
        },
        "lists": [{"name": li.name, "entries": li.entries, "serial": li.serial} for li in lists],
        "logs": [
            {"log": n, "format": log.spec.kind, "bytes": log.size, "lines": log.lines, "trouble": log.trouble}
            for n, log in enumerate(replay.logs, 1)
        ],
        "clock": replay.clock,
        "seconds": round(replay.seconds, 3),
    }


def _summary(replay: Replay) -> str:
    tally = replay.tally
    share = _share(tally.blocked, tally.requests)
    text = f"The lists would have blocked {share} of {tally.requests:,} requests."
    if tally.connects.all:
        share = _share(tally.connects.below, tally.connects.all)
        text += (
            f" Of {tally.connects.all:,} tunnels (CONNECT), {share} would have been decrypted "
            "to see whether a listed page is asked for."
        )
    return text


def _what(replay: Replay, top: int) -> Section:
    tally = replay.tally
    tables = [
        Table(
            f"By {part}",
            (part, "requests", "of all requests"),
            tuple(
                (name or "(none)", n, _share(n, tally.requests)) for name, n in _by(replay, at).most_common()
            ),
        )
        for at, part in enumerate(_PARTS, 1)
    ]
    entries = _top(replay, top)
    known = sum(key[0] == "block" for key in tally.verdicts)
    tables.append(
        Table(
            "By entry",
            ("entry", "list", "category", "kind", "requests"),
            tuple(
                (entry, name, category or "(none)", kind, n)
                for (_, name, category, kind, entry), n in entries
            ),
            note=f"The {len(entries)} with most requests, of {known:,} entries that were met."
            if entries
            else "",
            folded=len(entries) > 10,
        )
    )
    allowed = sum(n for (action, *_), n in tally.verdicts.items() if action == "allow")
    facts = (Fact("allowed by an @@ entry", allowed),) if allowed else ()
    return Section(
        "What would be blocked",
        "Each request of the logs was judged as the filter judges it, by its URL; a CONNECT request by its "
        "host alone.\n\nA log that leaves out queries (as Squid does unless told otherwise, "
        "strip_query_terms) shows nothing of entries for parameters, and addresses that names led to are "
        "not judged.",
        facts,
        tables=tuple(table for table in tables if table.rows),
    )


def _when(replay: Replay) -> Section | None:
    tally = replay.tally
    hours = {hour: n for hour, n in tally.hours.items() if n}
    tables: tuple[Table, ...] = ()
    if any(tally.statuses.values()):
        tables = (
            Table(
                "By status as logged",
                ("status", "requests", "would be blocked"),
                tuple((s, n, tally.blocked_statuses[s]) for s, n in sorted(tally.statuses.items()) if n),
                folded=len(tally.statuses) > 12,
            ),
        )
    if not hours and not tables:
        return None
    return Section("When, and with what answer", "Times are UTC.", tables=tables, plots=_plots(replay, hours))


def _plots(replay: Replay, hours: dict[int, int]) -> tuple[Plot, ...]:
    if len(hours) < 2:
        return ()
    size, unit = (1, "hour") if max(hours) - min(hours) < _MOST_HOURS else (24, "day")
    first = min(hours) // size
    count = max(hours) // size - first + 1
    if count > _MOST_POINTS:
        return ()  # some line has a time that is far off
    start = _stamp(first * size * HOUR)
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
            Lines(title, f"{unit}s since {start}", f"{what} in the {unit}", (Series(what, points),), alt)
        )
    return tuple(plots)


def _tls(replay: Replay) -> Section | None:
    tally = replay.tally
    rows: list[tuple[Cell, ...]] = []
    for label, tunnels in (("CONNECT", tally.connects), ("requests to https URLs", tally.https)):
        if tunnels.all:
            rows += [
                (label, "all", tunnels.all, ""),
                (label, "host listed whole", tunnels.whole, _share(tunnels.whole, tunnels.all)),
                (
                    label,
                    "decrypted, pages of the host listed",
                    tunnels.below,
                    _share(tunnels.below, tunnels.all),
                ),
            ]
    if not rows:
        return None
    return Section(
        "TLS",
        "The filter decrypts a TLS connection only where its host has an entry: a host listed whole is "
        "refused, or decrypted to show the block page (tls_block); a host with listed pages is decrypted, "
        "and its pages are told apart inside. All other connections are relayed as they are.",
        (
            Fact("hosts decrypted for listed pages", tally.hosts_below.count),
            *((Fact("blocked URLs inside TLS that stays unread", tally.unseen),) if tally.unseen else ()),
        ),
        (Table("TLS by what is listed", ("seen as", "what", "number", "share"), tuple(rows)),),
    )


def _logs(replay: Replay) -> Section:
    tables = [
        Table(
            "Logs",
            ("log", "format", "bytes", "lines", "remark"),
            tuple(
                (n, log.spec.kind, log.size or None, log.lines, log.trouble or "read to its end")
                for n, log in enumerate(replay.logs, 1)
            ),
            note="By number, in the order given: a name could tell of a host.",
        )
    ]
    if bad := _bad(replay):
        tables.append(
            Table(
                "Lines that were not judged",
                ("why", "lines", "first"),
                tuple(
                    (reason, b.count, ", ".join(f"log {log} line {line}" for log, line in b.first))
                    for reason, b in bad
                ),
            )
        )
    return Section("The logs", tables=tuple(tables))


def _top(replay: Replay, top: int) -> list[tuple[tuple[str, str, str, str, str], int]]:
    blocks = Counter({key: n for key, n in replay.tally.verdicts.items() if key[0] == "block"})
    return blocks.most_common(top)


def _by(replay: Replay, at: int) -> Counter[str]:
    found = Counter[str]()
    for key, n in replay.tally.verdicts.items():
        if key[0] == "block":
            found[key[at]] += n
    return found


def _bad(replay: Replay) -> list[tuple[str, Bad]]:
    return sorted(replay.tally.bad.items(), key=lambda item: -item[1].count)


def _distinct(label: str, hit: Distinct, seen: Distinct) -> Fact:
    if not seen.count:
        return Fact(label, None, "not in the logs")
    about = "" if seen.exact else "about "
    return Fact(label, hit.count, f"of {about}{seen.count:,}, {_share(hit.count, seen.count)}")


def _distinct_data(seen: Distinct, hit: Distinct) -> dict[str, Any]:
    return {"seen": seen.count, "hit": hit.count, "exact": seen.exact and hit.exact}


def _tunnel_data(tunnels: Tunnels) -> dict[str, int]:
    return {"all": tunnels.all, "listed_whole": tunnels.whole, "decrypted": tunnels.below}


def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(seconds))


def _share(part: int, whole: int) -> str:
    """Such as 0.12 %, with three figures that count."""
    return f"{100 * part / whole:.3g} %" if whole else "-"
