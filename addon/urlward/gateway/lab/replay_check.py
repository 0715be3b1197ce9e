"""Requests of a log, judged as ``urlward check`` judges them, and counted.

What is the same for all requests to one host is worked out once and kept, since a log names the same hosts
again and again. Any host without an entry may stand in for any other: what a list says of a request to it
depends on the path alone.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import repeat
from secrets import token_hex
from typing import Literal, NamedTuple

from urlward.engine.entry import Kind
from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import DEFAULT_PORTS, canonical_host, split_authority, split_url
from urlward.engine.verdict import PASS, Verdict
from urlward.gateway.lab.replay_lines import BadLineError, Columns, LineFormat
from urlward.gateway.lab.replay_tally import Hasher, Tally, Tunnels

KEPT_ORIGINS = 1 << 17
"""Beginnings of URLs that are kept; when full, all are forgotten."""

HOUR = 3600
NO_HOST = "no host (say which with --host)"
NOBODY = ("", "-")
"""What stands for no client."""
TLS_PORT = 443
TLS_SCHEMES = ("https", "wss")

Clock = Literal["log", "now"]


class Origin:
    """What is known of the part of a URL in front of its path, or of the host and port of CONNECT.

    Attributes:
        host: as written.
        ports: to judge with.
        quiet: whether nothing is listed on it.
        below: whether a page, prefix or parameter entry is on it.
        tls: whether TLS is spoken there.
        hashed: the host's hash.
        error: why it is none.
    """

    __slots__ = ("below", "error", "hashed", "host", "ports", "quiet", "tls")

    def __init__(self, host: str, ports: tuple[int, ...], tls: bool, error: str = "") -> None:
        self.host = host
        self.ports = ports
        self.tls = tls
        self.error = error
        self.quiet = self.below = False
        self.hashed = 0


class _Seen(NamedTuple):
    """What else the log says of a request: hours since 1970-01-01 UTC, or None; client and status, or
    empty; its place as (log, line)."""

    hour: int | None
    client: str
    status: str
    place: tuple[int, int]


class Judge:
    """Judges blocks of lines.

    Args:
        matcher: the lists.
        now: seconds since 1970-01-01 UTC.
        clock: whether entries that expire are judged at the time in the log, where it has one, or at `now`.
        hasher: of clients and hosts; the same for all whose tallies are to be added.

    Attributes:
        tally: of what has been judged.
    """

    def __init__(
        self, matcher: Matcher, now: float, clock: Clock = "log", hasher: Hasher | None = None
    ) -> None:
        self.tally = Tally()
        self._matcher = matcher
        self._now = now
        self._clock = clock
        self._hash = hasher or Hasher()
        self._origins: dict[str, Origin] = {}
        self._tunnels: dict[str, Origin] = {}
        self._met: list[int] = []
        self._stand_in = _quiet_host(matcher)

    def block(self, lines: LineFormat, text: str, log: int = 1, first: int = 1) -> None:
        """Judge whole lines.

        Args:
            lines: how to read them.
            text: a byte string.
            log: number of the log that they are from.
            first: number of the first of them.
        """
        columns = lines.columns(text)
        tally = self.tally
        tally.lines += columns.rows
        nows = self._count(lines, columns)
        check, stand_in = self._matcher.check, self._stand_in
        known, known_tunnel = self._origins.get, self._tunnels.get
        requests = columns.rows
        connects = https = 0
        for row, beginning, target, tunnel, now in zip(
            range(columns.rows), columns.origins, columns.targets, columns.tunnels or repeat(""), nows,
            strict=False,
        ):  # fmt: skip
            if target or beginning:
                origin = known(beginning)
                if origin is None:
                    origin = self._meet(beginning or lines.site, beginning)
                https += origin.tls
                if origin.quiet:
                    verdict = check(stand_in, target, origin.ports, now)
                    if verdict is not PASS:
                        self._decided(verdict, origin, _seen(lines, columns, row, (log, first + row)))
                else:
                    self._judge(origin, target, now, _seen(lines, columns, row, (log, first + row)))
            elif tunnel:
                connects += 1
                origin = known_tunnel(tunnel)
                if origin is None:
                    origin = self._meet_tunnel(tunnel)
                if not origin.quiet:
                    self._judge_tunnel(origin, now, _seen(lines, columns, row, (log, first + row)))
            else:
                requests -= 1
                line = columns.odd[row]
                if line and not line.isspace():
                    self._read(lines, line, (log, first + row))
        tally.requests += requests
        tally.connects.all += connects
        tally.https.all += https
        tally.hosts.add(self._met)
        self._met.clear()

    def _count(self, lines: LineFormat, columns: Columns) -> Iterable[float]:
        """Count what needs no verdict; gives each row's time."""
        tally = self.tally
        tally.statuses.update(columns.statuses)
        tally.statuses.pop("", None)
        tally.clients.add(map(self._hash, set(columns.clients).difference(NOBODY)))
        if not columns.times:
            return repeat(self._now)
        seconds: dict[str, float] = {}
        for time, count in Counter(columns.times).items():
            second = _second(lines, time)
            seconds[time] = self._now if second is None else second
            if second is not None:
                tally.hours[second // HOUR] += count
        return map(seconds.__getitem__, columns.times) if self._clock == "log" else repeat(self._now)

    def _read(self, lines: LineFormat, line: str, place: tuple[int, int]) -> None:
        try:
            request = lines.read(line)
        except BadLineError as e:
            self.tally.add_bad(str(e), 1, [place])
            return
        if request is None:
            return
        second = _second(lines, request.time)
        seen = _Seen(None if second is None else second // HOUR, request.client, request.status, place)
        now = self._now if second is None or self._clock == "now" else second
        if seen.hour is not None:
            self.tally.hours[seen.hour] += 1
        if seen.status:
            self.tally.statuses[seen.status] += 1
        if seen.client not in NOBODY:
            self.tally.clients.add((self._hash(seen.client),))
        self.tally.requests += 1
        if request.tunnel:
            self.tally.connects.all += 1
            tunnel = self._tunnels.get(request.url) or self._meet_tunnel(request.url)
            self._judge_tunnel(tunnel, now, seen)
            return
        try:
            scheme, authority, target = split_url(request.url)
        except UrlError as e:
            self._failed(str(e), seen)
            return
        beginning = f"{scheme}://{authority}" if scheme else authority
        origin = self._origins.get(beginning) or self._meet(beginning, beginning)
        self.tally.https.all += origin.tls
        self._judge(origin, target, now, seen)

    def _meet(self, beginning: str, key: str) -> Origin:
        """Get to know the beginning of a URL, kept under a key."""
        scheme, separator, authority = beginning.partition("://")
        try:
            if not beginning:
                raise UrlError(NO_HOST)
            if not separator:
                scheme, authority = "", beginning
            host, port = split_authority(authority)
            if port is None:
                port = DEFAULT_PORTS.get(scheme)
            origin = self._origin(host, port, scheme in TLS_SCHEMES or (not scheme and port == TLS_PORT))
        except UrlError as e:
            origin = Origin("", (), False, str(e))
        if len(self._origins) >= KEPT_ORIGINS:
            self._origins.clear()
        self._origins[key] = origin
        return origin

    def _meet_tunnel(self, authority: str) -> Origin:
        try:
            origin = self._origin(*split_authority(authority), False)
        except UrlError as e:
            origin = Origin("", (), False, str(e))
        if len(self._tunnels) >= KEPT_ORIGINS:
            self._tunnels.clear()
        self._tunnels[authority] = origin
        return origin

    def _origin(self, host: str, port: int | None, tls: bool) -> Origin:
        """A host that has not been seen lately.

        Raises:
            UrlError: it is none.
        """
        origin = Origin(host, () if port is None else (port,), tls)
        origin.quiet = self._matcher.is_quiet((host,), "")
        if not origin.quiet:
            origin.below = bool(self._matcher.lists_below(host))
        origin.hashed = self._hash(canonical_host(host))
        self._met.append(origin.hashed)
        return origin

    def _judge(self, origin: Origin, target: str, now: float, seen: _Seen) -> None:
        """A request that may be listed."""
        if origin.error:
            self._failed(origin.error, seen)
            return
        verdict = self._matcher.check(origin.host, target, origin.ports, now)
        if origin.tls and not origin.quiet:
            self._count_tls(
                self.tally.https, origin, self._matcher.check_host(origin.host, origin.ports, now)
            )
        if verdict is not PASS:
            self._decided(verdict, origin, seen)

    def _judge_tunnel(self, origin: Origin, now: float, seen: _Seen) -> None:
        """A connection to a host that may be listed."""
        if origin.error:
            self.tally.connects.all -= 1
            self._failed(origin.error, seen)
            return
        verdict = self._matcher.check_host(origin.host, origin.ports, now)
        self._count_tls(self.tally.connects, origin, verdict)
        if verdict is not PASS:
            self._decided(verdict, origin, seen)

    def _count_tls(self, tunnels: Tunnels, origin: Origin, verdict: Verdict) -> None:
        if verdict.blocked:
            tunnels.whole += 1
        elif origin.below:
            tunnels.below += 1
            self.tally.hosts_below.add((origin.hashed,))

    def _decided(self, verdict: Verdict, origin: Origin, seen: _Seen) -> None:
        tally = self.tally
        tally.verdicts[verdict.action, verdict.list, verdict.category, verdict.kind, verdict.entry] += 1
        if not verdict.blocked:
            return
        tally.hosts_hit.add((origin.hashed,))
        if seen.hour is not None:
            tally.blocked_hours[seen.hour] += 1
        if seen.status:
            tally.blocked_statuses[seen.status] += 1
        if seen.client not in NOBODY:
            tally.clients_hit.add((self._hash(seen.client),))
        if origin.tls and not origin.below and verdict.kind == Kind.PATH.label:
            tally.unseen += 1

    def _failed(self, reason: str, seen: _Seen) -> None:
        """A request that has been counted, and whose URL turns out to have no canonical form."""
        self.tally.requests -= 1
        if seen.hour is not None:
            self.tally.hours[seen.hour] -= 1
        if seen.status:
            self.tally.statuses[seen.status] -= 1
        self.tally.add_bad(reason, 1, [seen.place])


def _second(lines: LineFormat, time: str) -> int | None:
    try:
        return lines.second(time) if time else None
    except ValueError:
        return None


def _quiet_host(matcher: Matcher) -> str:
    """A name that nothing is listed on, as good as surely the first."""
    while True:
        host = f"a{token_hex(8)}.a{token_hex(8)}"
        if matcher.is_quiet((host,), ""):
            return host


def _seen(lines: LineFormat, columns: Columns, row: int, place: tuple[int, int]) -> _Seen:
    second = _second(lines, columns.times[row]) if columns.times else None
    return _Seen(
        None if second is None else second // HOUR,
        columns.clients[row] if columns.clients else "",
        columns.statuses[row] if columns.statuses else "",
        place,
    )
