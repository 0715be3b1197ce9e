"""Port blocks in the logs of carrier-grade translators, as Juniper, Cisco and A10 write them to syslog.

- Junos: ``RT_SRC_NAT_PBA_ALLOC``, ``_INTERIM`` and ``_RELEASE``, as structured data or as text, with the time
  in hexadecimal; on older cards ``JSERVICES_NAT_PORT_BLOCK_ALLOC``, ``_ACTIVE``, ``_RELEASE`` (or ``ASP_…``).
- IOS XR: ``[UserbasedA …]`` and ``[UserbasedW …]`` of NAT44 and DS-Lite (CGN Configuration Guide, External
  Logging); ASA: messages 305014, 305015 and 305017.
- ACOS: CEF events ``CGN 106`` and ``CGN 107``, ``FIXED-NAT-PORTS``, and ``NAT-TCP-x`` with the inner address,
  an arrow, and the outer address with its ports.

A block holds until its release, or until another subscriber has its first port. Blocks of UDP and ICMP, where
a translator tells them apart, are passed over: what is filtered is TCP. So is every other line of a log.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

from urlward.assignments.interval import LAST_PORT, Sighting, place_of
from urlward.assignments.parsers import Fault, Parsed, ReadOptions, RowError, name_of, reason_of
from urlward.assignments.times import Moment, held_from, held_until, moment_of, to_ms


class PortBlock(NamedTuple):
    """Port block event: a block's beginning or end, as a log line says it.

    Attributes:
        where: the subscriber's address, the public one, first and last port, as text.
        begins: whether it is the subscriber's from then on, and not until then.
        since: when it began, ms since 1970-01-01 UTC, where the event itself says so; otherwise it began or
            ended when the line was written.
    """

    where: tuple[str, ...]
    begins: bool
    since: int | None = None


_WHERE = ("inside", "outside", "first", "last")
_TCP = ("tcp", "6", "-", "")

_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_TIME = re.compile(
    rf"(?P<iso>{_ISO})"
    r"|(?P<year>\d{4}) (?P<month>[A-Z][a-z]{2}) +(?P<day>\d\d?) (?P<clock>\d\d:\d\d:\d\d)"
    r"|(?P<month2>[A-Z][a-z]{2}) +(?P<day2>\d\d?) (?P<year2>\d{4}),? (?P<clock2>\d\d:\d\d:\d\d)"
)

_JUNOS = re.compile(r"RT_SRC_NAT_PBA_(?P<what>ALLOC|INTERIM|RELEASE)\b(?P<rest>.*)")
_JUNOS_MEMBER = re.compile(r'([A-Za-z0-9\-]+)="([^"]*)"')
_JUNOS_TEXT = re.compile(
    r"Subscriber (?P<inside>\S+) .*?port block \[(?P<first>\d+)-(?P<last>\d+)\] from (?P<outside>\S+)"
    r"(?:.*?\bepoch (?P<epoch>(?:0x)?[0-9A-Fa-f]+))?"
).search
_JSERVICES = re.compile(
    r"(?:JSERVICES|ASP)_NAT_PORT_BLOCK_(?P<what>ALLOC|ACTIVE|RELEASE)\b:?\s*(?P<inside>\S+)\s*->\s*"
    r"(?P<outside>\S+?):(?P<first>\d+)-(?P<last>\d+)(?:\s+0x(?P<epoch>[0-9A-Fa-f]{8})\b)?"
)
_IOS_XR = re.compile(r"\[Userbased(?P<what>[AW]) (?P<fields>[^\]]*)\]")
_ASA = re.compile(
    r"%(?:ASA|FTD)-\d-(?P<what>305014|305015|305017): .*?(?P<protocol>\S+) block of ports "
    r"for translation from [^:\s]+:(?P<inside>\S+) to [^:\s]+:(?P<outside>[^\s/]+)/"
    r"(?P<first>\d+)-(?P<last>\d+)"
)
_CEF = re.compile(r"CEF:\d+\|A10\|[^|]*\|[^|]*\|CGN (?P<what>106|107)\|[^|]*\|[^|]*\|(?P<members>.*)")
_CEF_MEMBER = re.compile(r"(\w+)=(\S*)")
_ACOS = re.compile(
    r"(?:FIXED-NAT-PORTS|NAT-(?P<protocol>TCP|UDP|ICMP)-(?P<what>[A-Z]+)):? "
    r"(?P<inside>[0-9A-Fa-f.:]*[0-9A-Fa-f])\s*->\s*(?P<outside>[0-9.]+):\s*(?P<first>\d+)(?:\s*-\s*(?P<last>\d+))?(?!\S)"
)
_ACOS_BEGINS, _ACOS_ENDS = ("A", "B", "C", "N", None), ("D", "F", "R")


class CgnParser:
    """Parser of CGN logs, line by line; the vendor is recognised by the event."""

    has_header = False

    def __init__(self, options: ReadOptions) -> None:
        """Take the zone of times that do not say theirs."""
        options.only()
        self._zone = options.zone

    def begin(self, header: str) -> None:
        """CGN logs have no header."""

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read events, of which a line may have several."""
        found: list[Sighting] = []
        faults: list[Fault] = []
        other: list[int] = []
        rows = 0
        for number, line in enumerate(lines):
            events = 0
            try:
                for pattern, block_of in _EVENTS:
                    for match in pattern.finditer(line):
                        if block := block_of(match):
                            found += self._sightings(block, line[: match.start()])
                            events += 1
                    if events:
                        break
            except (ValueError, KeyError) as e:
                events += 1
                faults.append(Fault(number, reason_of(e)))
            rows += events
            if not events and line and not line.isspace():
                other.append(number)
        return Parsed(found, rows, faults, other=other)

    def _sightings(self, block: PortBlock, before: str) -> list[Sighting]:
        inner, outer, *ports = block.where
        first, last = map(int, ports)
        if not 0 <= first <= last <= LAST_PORT:
            raise RowError("ports that there are none of")
        what = (*place_of(outer), first, last)
        inside = name_of(place_of(inner)[1])
        written = _time_in(before, self._zone)
        at = written if block.since is None else Moment(block.since, block.since)
        if at is None:
            raise RowError("no time with a year in it: have it logged as in RFC 5424")
        if block.begins:
            return held_from(what, at, inside, "", written.last if written else 0)
        return held_until(what, None, at, inside, "")


def _time_in(text: str, zone: tzinfo) -> Moment | None:
    """The last time in a text; None where there is none that says its year."""
    *_, match = None, *_TIME.finditer(text)
    if match is None:
        return None
    if match["iso"]:
        return moment_of(match["iso"], zone)
    year, month, day, clock = (match[n] or match[f"{n}2"] for n in ("year", "month", "day", "clock"))
    return moment_of(datetime.strptime(f"{year} {month} {day} {clock}", "%Y %b %d %H:%M:%S"), zone)


def _hex(text: str | None) -> int | None:
    """Parse hexadecimal seconds; milliseconds."""
    return None if not text else to_ms(int(text, 16))


def _junos(match: re.Match[str]) -> PortBlock:
    begins, members = match["what"] != "RELEASE", dict(_JUNOS_MEMBER.findall(match["rest"]))
    if not members and (text := _JUNOS_TEXT(match["rest"])):
        return PortBlock(text.group(*_WHERE), begins, _hex(text["epoch"]))
    names = ("internal-ip", "reflexive-ip", "block-port-low", "block-port-high")
    return PortBlock(tuple(members[name] for name in names), begins, _hex(members.get("epoch-time-64")))


def _jservices(match: re.Match[str]) -> PortBlock:
    begins = match["what"] != "RELEASE"
    # What a release has in hexadecimal is when its block was allocated.
    since = _hex(match["epoch"]) if begins else None
    return PortBlock(match.group(*_WHERE), begins, since)


def _ios_xr(match: re.Match[str]) -> PortBlock | None:
    fields = match["fields"].split()
    if len(fields) < 8:
        raise RowError("fewer fields than such an event has")
    protocol, v4, _, v6, outside, _, first, last, *_ = fields
    if protocol.lower() not in _TCP:
        return None
    # All of DS-Lite have the same few addresses of IPv4 inside.
    return PortBlock((v4 if v6 == "-" else v6, outside, first, last), match["what"] == "A")


def _asa(match: re.Match[str]) -> PortBlock | None:
    if match["protocol"].lower() not in _TCP and not match["protocol"].isdecimal():
        return None
    return PortBlock(match.group(*_WHERE), match["what"] != "305015")


def _acos_cef(match: re.Match[str]) -> PortBlock | None:
    members = dict(_CEF_MEMBER.findall(match["members"]))
    if members.get("proto", "").lower() not in _TCP:
        return None
    names = ("src", "sourceTranslatedAddress", "sourceTranslatedPort", "cn3")
    return PortBlock(tuple(members[name] for name in names), match["what"] == "106")


def _acos(match: re.Match[str]) -> PortBlock | None:
    if (match["protocol"] or "TCP") != "TCP":
        return None
    if match["what"] not in _ACOS_BEGINS and match["what"] not in _ACOS_ENDS:
        raise RowError("an event of a translator that is not known here")
    inside = match["inside"]
    if inside.count(":") == 1:
        inside = inside.partition(":")[0]
    where = inside, match["outside"], match["first"], match["last"] or match["first"]
    return PortBlock(where, match["what"] in _ACOS_BEGINS)


_EVENTS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], PortBlock | None]], ...] = (
    (_JUNOS, _junos),
    (_JSERVICES, _jservices),
    (_IOS_XR, _ios_xr),
    (_ASA, _asa),
    (_CEF, _acos_cef),
    (_ACOS, _acos),
)
"""What to look for in a line, and what is made of it; None for blocks of other protocols."""
