"""Judging of requests in a log as ``urlward check`` judges them, and counting.

What is the same for all requests to one host is worked out once and kept, since a log names the same hosts
again and again. Any host without an entry may stand in for any other: what a list says of a request to it
depends on the path alone.
"""

from collections import Counter
from collections.abc import Sequence
from secrets import token_hex
from typing import Literal, NamedTuple

from urlward.engine.entry import Kind
from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import DEFAULT_PORTS, canonical_host, split_authority, split_url
from urlward.engine.verdict import PASS, Verdict
from urlward.replay.errors import BadLineError
from urlward.replay.formats import NONE, Columns, LogFormat
from urlward.replay.tally import Hasher, Tally

KEPT = 1 << 17
"""Beginnings of URLs, and clients, that are kept; when full, all are forgotten."""

HOUR = 3600
TLS_PORT = 443
TLS_SCHEMES = ("https", "wss")

Clock = Literal["log", "now"]


class Origin(NamedTuple):
    """The part of a URL in front of its path, or the host and port of CONNECT.

    Attributes:
        host: as written.
        ports: to judge with.
        tls: whether TLS is spoken there.
        quiet: whether nothing is listed on it.
        below: whether a page, prefix or parameter entry is on it.
        hashed: the host's hash.
    """

    host: str
    ports: tuple[int, ...]
    tls: bool
    quiet: bool
    below: bool
    hashed: int


class Judge:
    """Judges blocks of lines.

    Args:
        matcher: the lists.
        now: seconds since 1970-01-01 UTC.
        clock: whether entries that expire are judged at the time in the log, where it has one, or at `now`.
    """

    def __init__(self, matcher: Matcher, now: float, clock: Clock = "log") -> None:
        self._matcher = matcher
        self._now = now
        self._clock = clock
        self._hash = Hasher()
        self._origins: dict[str, Origin] = {}
        self._tunnels: dict[str, Origin] = {}
        self._clients: set[str] = {"", NONE}
        self._stand_in = _quiet_host(matcher)
        self._tally = Tally()

    def judge(self, log_format: LogFormat, text: str, log: int = 1, first: int = 1) -> Tally:
        """Judge whole lines.

        Args:
            log_format: theirs.
            text: a byte string.
            log: number of the log that they are from.
            first: number of the first of them.

        Returns:
            Their counts. Hosts and clients are in them that were not in those before.
        """
        columns = log_format.columns(text)
        tally = self._tally = Tally(lines=len(columns.targets))
        seconds = {time: _second(log_format, time) for time in set(columns.times)}
        times = {time: self._now if s is None or self._clock == "now" else s for time, s in seconds.items()}
        origins, tunnels, site = self._origins.get, self._tunnels.get, log_format.site
        check, stand_in = self._matcher.check, self._stand_in
        decided: list[tuple[int, Origin, Verdict]] = []
        not_judged: list[int] = []
        connects = https = 0
        for row, (beginning, target, tunnel, time) in enumerate(
            zip(columns.origins, columns.targets, columns.tunnels, columns.times, strict=True)
        ):
            origin = tunnels(tunnel) if tunnel else origins(beginning or (target and site))
            if origin is not None and origin.quiet:
                if tunnel:
                    connects += 1
                    continue
                https += origin.tls
                verdict = check(stand_in, target, origin.ports, times[time])
            else:
                try:
                    found = self._judge_one(log_format, columns, row, times[time])
                except (UrlError, BadLineError) as e:
                    tally.bad.add(str(e), 1, [(log, first + row)])
                    found = None
                if found is None:
                    not_judged.append(row)
                    continue
                origin, verdict = found
            if verdict is not PASS:
                decided.append((row, origin, verdict))
        tally.requests = tally.lines - len(not_judged)
        tally.connects["all"] += connects
        tally.https["all"] += https
        tally.statuses = _counted(columns.statuses, not_judged)
        for time, count in _counted(columns.times, not_judged).items():
            if (second := seconds[time]) is not None:
                tally.hours[second // HOUR] += count
        self._count_clients(_counted(columns.clients, not_judged))
        for row, origin, verdict in decided:
            key = verdict.action, verdict.list, verdict.category, verdict.kind, verdict.entry
            tally.verdicts[key] += 1
            if verdict.blocked:
                self._count_blocked(columns, row, origin, verdict, seconds[columns.times[row]])
        return tally

    def _judge_one(
        self, log_format: LogFormat, columns: Columns, row: int, now: float
    ) -> tuple[Origin, Verdict] | None:
        """A request that is odd, or that may be listed, or to a host not met yet; None if it is none.

        Raises:
            BadLineError: it cannot be read.
            UrlError: its URL has no canonical form.
        """
        if tunnel := columns.tunnels[row]:
            origin = self._tunnels.get(tunnel) or self._meet(self._tunnels, tunnel, "", tunnel)
            verdict = self._matcher.check_host(origin.host, origin.ports, now)
            self._count_tls(self._tally.connects, origin, verdict)
            return origin, verdict
        url = log_format.url(columns, row)
        if not url:
            return None
        scheme, authority, target = split_url(url.encode("latin-1"))
        beginning = f"{scheme}://{authority}" if scheme else authority
        origin = self._origins.get(beginning) or self._meet(self._origins, beginning, scheme, authority)
        verdict = self._matcher.check(origin.host, target, origin.ports, now)
        if origin.tls:
            whole = self._matcher.check_host(origin.host, origin.ports, now)
            self._count_tls(self._tally.https, origin, whole)
        return origin, verdict

    def _meet(self, kept: dict[str, Origin], key: str, scheme: str, authority: str) -> Origin:
        """A host that is not kept.

        Raises:
            UrlError: it is none.
        """
        host, port = split_authority(authority)
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        quiet = self._matcher.is_quiet((host,), "")
        origin = Origin(
            host,
            () if port is None else (port,),
            scheme in TLS_SCHEMES or (not scheme and port == TLS_PORT),
            quiet,
            not quiet and bool(self._matcher.lists_below(host)),
            self._hash(canonical_host(host)),
        )
        self._tally.hosts.add((origin.hashed,))
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = origin
        return origin

    def _count_tls(self, counts: Counter[str], origin: Origin, verdict: Verdict) -> None:
        counts["all"] += 1
        if verdict.blocked:
            counts["whole"] += 1
        elif origin.below:
            counts["below"] += 1
            self._tally.hosts_below.add((origin.hashed,))

    def _count_clients(self, clients: Counter[str]) -> None:
        new = clients.keys() - self._clients
        self._tally.clients.add(map(self._hash, new))
        if len(self._clients) >= KEPT:
            self._clients = {"", NONE}
        self._clients |= new

    def _count_blocked(
        self, columns: Columns, row: int, origin: Origin, verdict: Verdict, second: int | None
    ) -> None:
        tally, status, client = self._tally, columns.statuses[row], columns.clients[row]
        tally.hosts_hit.add((origin.hashed,))
        if second is not None:
            tally.blocked_hours[second // HOUR] += 1
        if status:
            tally.blocked_statuses[status] += 1
        if client not in ("", NONE):
            tally.clients_hit.add((self._hash(client),))
        if origin.tls and not origin.below and verdict.kind == Kind.PATH.label:
            tally.unseen += 1


def _counted(column: Sequence[str], without: Sequence[int]) -> Counter[str]:
    """How often each item is in a column, apart from these rows and from empty ones."""
    counts = Counter(column)
    if without:
        counts.subtract(column[row] for row in without)
        counts = +counts
    counts.pop("", None)
    return counts


def _second(log_format: LogFormat, time: str) -> int | None:
    try:
        return log_format.second(time) if log_format.second and time else None
    except ValueError:
        return None


def _quiet_host(matcher: Matcher) -> str:
    """A name that nothing is listed on, as good as surely the first."""
    while True:
        host = f"a{token_hex(8)}.a{token_hex(8)}"
        if matcher.is_quiet((host,), ""):
            return host
