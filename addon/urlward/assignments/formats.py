"""Formats of the files that assignments are read from, with a parser each.

CSV by its columns: exports of assignments, and translators' logs of port blocks. A row has the whole interval
where it has both times. One with its beginning alone holds until another row says otherwise. Where there is
an ``event``, a row is the beginning or the end of one at its ``from``. One whose ``protocol`` is not TCP is
passed over: the same port may be somebody else's there, or be over while this goes on.

ISC dhcpd's lease file (dhcpd.leases(5)), IPv4. A lease is written anew at each change. One that is not active
any more ended at its ``ends``; a free one of two minutes at most may have been an offer alone.

Kea's lease files (memfile): ``kea-leases4.csv``, ``kea-leases6.csv``, and what their cleanup leaves. Each
line is a lease as it was when it was written: it began, or was renewed, ``valid_lifetime`` before ``expire``.
One with a lifetime of zero was given back or deleted; when, is not in the file. One that a client declined
has nobody's identifiers (of IPv6, zeros). (Kea Administrator Reference Manual, sections 8.2.1, 9.2.2 and
4.1; `Lease::state_`.)

``detail`` files of FreeRADIUS and its kin: accounting requests as text (RFC 2866, RFC 3162, RFC 4818). A
session has an address, a prefix and a delegated prefix from its Start, or the session time before an interim
update, until its Stop; one without a Stop until the next session on the same address.

Port blocks in the logs of carrier-grade translators, as Juniper, Cisco and A10 write them to syslog:

- Junos: ``RT_SRC_NAT_PBA_ALLOC``, ``_INTERIM`` and ``_RELEASE``, as structured data or as text, with the time
  in hexadecimal; on older cards ``JSERVICES_NAT_PORT_BLOCK_ALLOC``, ``_ACTIVE``, ``_RELEASE`` (or ``ASP_…``).
- IOS XR: ``[UserbasedA …]`` and ``[UserbasedW …]`` of NAT44 and DS-Lite (CGN Configuration Guide, External
  Logging); ASA: messages 305014, 305015 and 305017.
- ACOS: CEF events ``CGN 106`` and ``CGN 107``, ``FIXED-NAT-PORTS``, and ``NAT-TCP-x`` with the inner address,
  an arrow, and the outer address with its ports.

A block holds until its release, or until another subscriber has its first port. Blocks of UDP and ICMP, where
a translator tells them apart, are passed over: what is filtered is TCP. So is every other line of a log.

Other programs may write to the same log, and what they write may be anybody's words, such as the name that
somebody tried to log in with. So an event counts where it is the message, behind time and host, and nowhere
within one.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from hashlib import blake2b
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from urlward.assignments.interval import (
    FIRST,
    FOREVER,
    LAST,
    LAST_PORT,
    SECOND,
    AssignmentError,
    Moment,
    RowError,
    Sighting,
    SightingKind,
    held_between,
    held_from,
    held_until,
    moment_of,
    ms_text,
    place_of,
    sane,
    to_ms,
)
from urlward.csv_rows import csv_rows

MOST = 255
"""Characters of a subscriber's or session's name."""
_DIGEST = 8

COLUMNS = (
    "address", "subscriber", "from", "to", "first_port", "last_port", "ports", "session", "event", "protocol",
)  # fmt: skip
_NEEDED = COLUMNS[:3]

_BEGINS = frozenset(
    "old allocate allocated alloc assign assigned add added create created start begin map mapped a "  # noqa: SIM905
    "add44 add64 add44bib addpblk 1 4 6 8 14 16".split()
)
_ENDS = frozenset(
    "release released free freed del delete deleted deallocate stop end unmap unmapped r "  # noqa: SIM905
    "del44 del64 del44bib delpblk 2 5 7 9 15 17".split()
)
"""Words, those of nfdump, and numbers of RFC 8158 (section 4.3) that Junos has for nothing else."""

_TCP = ("tcp", "6", "-", "", "0", "ip", "any")
"""TCP, or all: a block of ports may be of one protocol or not."""
_NO_TCP = ("udp", "icmp", "icmp6", "icmpv6", "ipv6-icmp", "gre", "esp", "sctp")

_NEVER = re.compile(r"(?:2[3-9]|[3-9]\d)\d\d-").match
"""Years that databases write for no end."""
_NOT_CSV = "not CSV: a quote or a line break out of place, or a field that is too long"

_LEASE = re.compile(r"lease ([0-9.]+) \{\s*").fullmatch
_NO_LEASE = re.compile(
    r"\s*+(?:#.*|(?:authoring-byte-order|server-duid|failover|my state|partner state|mclt)\b.*|\})?\s*"
).fullmatch
_OVER = frozenset({"free", "backup", "expired", "released", "reset"})
_OFFERED = 120_000
"""Milliseconds for which dhcpd offers an address. One that nobody took is written, too: as free, or as the
failover peer's, with whom it was offered to, and up to when, from then or a later time on."""
_HARDWARE = "hardware ethernet"
_ABANDONED = "abandoned"
"""Declined by a client, or found in use; when, is not in the file."""

_INFINITE = 0xFFFFFFFF
_DECLINED, _RECLAIMED, _RELEASED = "1", "2", "3"
_PREFIX = "2"
"""``lease_type`` of a delegated prefix."""

ADDRESSES = ("Framed-IP-Address", "Framed-IPv6-Address", "Framed-IPv6-Prefix", "Delegated-IPv6-Prefix")
_NAS = ("NAS-IP-Address", "NAS-IPv6-Address", "NAS-Identifier")
_OFF = "Accounting-Off"
_RESTARTS = ("Accounting-On", _OFF)
_HOLDS = ("Start", "Interim-Update", "Alive")
_ESCAPED = re.compile(rb"\\([0-9]{3}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_NONE = frozenset({"255.255.255.255", "255.255.255.254"})
"""Addresses that are picked by the user or by the server."""
_NONE_AT_END = _NONE | {"0.0.0.0", "::"}  # noqa: S104
"""Of an end likewise where the address is taken away before. An update by which a session has none is
another matter."""

RADACCT = "radacct"
"""FreeRADIUS's table, which is no file."""

DETERMINISTIC = "deterministic"
"""A translator's formula, which is not read at all."""


class Fault(NamedTuple):
    """A row that was not understood.

    Attributes:
        line: its index among the lines; of a record over several lines, of one of them.
        reason: why, without any of its values.
    """

    line: int
    reason: str


def reason_of(error: Exception) -> str:
    """Why a row was not understood, from what reading it raised."""
    if isinstance(error, RowError):
        return str(error)
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    if isinstance(error, IndexError):
        return "fewer columns than it needs"
    return "an address, a number or a time that is none"


@dataclass(slots=True)
class Parsed:
    """Parsed lines: sightings, and the lines that were not understood.

    Attributes:
        sightings: in order.
        rows: that were there.
        faults: of them, not understood.
        pending: how many lines at the end are of a record that is not all there yet.
        other: indices of lines of no row and of nothing else that the format has.
    """

    sightings: list[Sighting] = field(default_factory=list)
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)
    pending: int = 0
    other: list[int] = field(default_factory=list)

    @property
    def skipped(self) -> int:
        """Number of rows that were not understood."""
        return len(self.faults)

    def fault(self, line: int, error: Exception) -> None:
        """Note that a row was not understood, by what reading it raised."""
        self.faults.append(Fault(line, reason_of(error)))


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a source.

    Attributes:
        columns: the source's names (or numbers, from 1) of what is called ``subscriber`` and so on here.
        delimiter: between columns.
        zone: of times that do not say theirs.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","
    zone: tzinfo = UTC

    def only(self, *names: str) -> None:
        """Refuse columns of other names.

        Raises:
            AssignmentError: there is one.
        """
        for name in self.columns:
            if name not in names:
                raise AssignmentError(f"column: {name!r} is none of {', '.join(names)}")


class Parser:
    """Parser of one format; it keeps nothing of the lines but what the header says."""

    has_header = False
    """Whether a file's first line is one."""

    def __init__(self, options: ReadOptions) -> None:
        raise NotImplementedError

    def begin(self, header: str) -> None:
        """Read the header, where the format has one.

        Raises:
            AssignmentError: a column is missing.
        """

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read lines, without their ends."""
        raise NotImplementedError


def name_of(text: str) -> str:
    """A subscriber's or session's name, as it can be kept and shown."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    if len(text) > MOST:
        # Two that begin alike are two all the same.
        digest = blake2b(text.encode(), digest_size=_DIGEST).hexdigest()
        text = f"{text[: MOST - len(digest) - 1]}…{digest}"
    return text


class ColumnsParser(Parser):
    """Parser of rows by columns, which are found by name, or by number where all are given so."""

    def __init__(self, options: ReadOptions) -> None:
        """Take the columns' names or numbers; one that is not said has our name."""
        options.only(*COLUMNS)
        self._options = options
        numbers = [name for name in options.columns.values() if name.isdecimal()]
        if numbers and len(numbers) < len(options.columns):
            raise AssignmentError("column: all by name, or all by number")
        if any(int(number) < 1 for number in numbers):
            raise AssignmentError("column: the first one has the number 1")
        self.has_header = not numbers
        self._most = 0
        """Columns that the header names; 0 without one."""
        self._columns = {name: int(number) - 1 for name, number in options.columns.items()} if numbers else {}
        if numbers:
            _check(self._columns)

    def begin(self, header: str) -> None:
        """Find the columns by their names."""
        try:
            row = next(csv.reader([header], delimiter=self._options.delimiter), [])
        except csv.Error as e:
            raise AssignmentError(f"its first line names no columns: {_NOT_CSV}") from e
        self._most = len(row)
        row = [name.strip().casefold() for name in row]
        names = {name: number for number, name in enumerate(row)}
        wanted = {name: self._options.columns.get(name, name).casefold() for name in COLUMNS}
        for said in self._options.columns.values():
            if said.casefold() not in names:
                raise AssignmentError(f"no column is called {said!r}")
        self._columns = {name: names[said] for name, said in wanted.items() if said in names}
        for name, number in self._columns.items():
            if row.count(row[number]) > 1:
                raise AssignmentError(
                    f"column {name!r}: two are called {row[number]!r}, which of them is it?"
                )
        _check(self._columns)

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read rows, one a line."""
        found = Parsed()
        # One row is no reason to read no other, then or ever. Clients choose names, and none ends the rows of
        # others by a quote in its own: a row is a line.
        for number, row in csv_rows(lines, self._options.delimiter, most_lines=1):
            if row == []:
                continue
            found.rows += 1
            try:
                if row is None:
                    raise RowError(_NOT_CSV)
                found.sightings += self._sightings(row)
            except (ValueError, IndexError) as e:
                found.fault(number - 1, e)
        return found

    def _sightings(self, row: Sequence[str]) -> list[Sighting]:
        of, zone = self._columns, self._options.zone
        if self._most and any(row[self._most :]):
            raise RowError("more fields than its first line names columns")
        protocol = row[of["protocol"]].strip().casefold() if "protocol" in of else ""
        if protocol not in _TCP:
            if not protocol.isdecimal() and protocol not in _NO_TCP:
                raise RowError("a protocol that is not known here")
            return []
        text = row[of["address"]].strip()
        place, network = place_of(text)
        if "/" in network and not _is_first(text, network):
            raise RowError("an address with the length of its network: it is one subscriber's, or all of it")
        what = (place, network, *_ports(row, of))
        since = moment_of(row[of["from"]], zone)
        subscriber = name_of(row[of["subscriber"]].strip())
        session = name_of(row[of["session"]].strip()) if "session" in of else ""
        until = row[of["to"]].strip() if "to" in of else ""
        until = "" if _NEVER(until) else until
        event = row[of["event"]].strip().casefold() if "event" in of else ""
        if not subscriber:
            raise RowError("no subscriber")
        if event and event not in _BEGINS and event not in _ENDS:
            raise RowError("an event that is neither a beginning nor an end")
        if not until:
            if event in _ENDS:
                return held_until(what, None, since, subscriber, session)
            return held_from(what, since, subscriber, session, since.last)
        end = moment_of(until, zone)
        if event in _ENDS:
            return held_until(what, since, end, subscriber, session)
        if end.last < since.first:
            raise RowError("ends before it begins")
        return held_between(what, since, end, subscriber, session)


def _check(columns: Mapping[str, int]) -> None:
    missing = [name for name in _NEEDED if columns.get(name, -1) < 0]
    if missing:
        names, flags = ", ".join(map(repr, missing)), " ".join(f"--column {name}=NAME" for name in missing)
        raise AssignmentError(f"no column {names}: say which it is with {flags}, or give the --delimiter")
    if "last_port" in columns and "first_port" not in columns:
        raise AssignmentError("no column 'first_port': say which it is with --column first_port=NAME")


def _is_first(text: str, network: str) -> bool:
    """Whether the address before a prefix's length is its first."""
    return place_of(text.partition("/")[0]) == place_of(network.partition("/")[0])


def _ports(row: Sequence[str], of: Mapping[str, int]) -> tuple[int, int]:
    if "ports" in of:
        low, _, high = row[of["ports"]].partition("-")
        high = high or low
    elif "first_port" in of:
        low = row[of["first_port"]]
        high = row[of["last_port"]] if "last_port" in of else low
    else:
        return 0, LAST_PORT
    first, last = int(low), int(high)
    if "_" in low + high or not 0 <= first <= last <= LAST_PORT:  # 80_90 is 8090 to int()
        raise RowError("no such ports")
    return first, last


class IscParser(Parser):
    """Parser of IPv4 leases."""

    def __init__(self, options: ReadOptions) -> None:
        """Take what names the subscriber: ``hardware ethernet`` if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", _HARDWARE)

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read leases; what else the file has is passed over."""
        found = Parsed()
        address, begun, fields = "", -1, dict[str, str]()
        for number, line in enumerate(lines):
            if begun < 0:
                if match := _LEASE(line):
                    address, begun, fields = match[1], number, {}
                elif not _NO_LEASE(line):
                    found.other.append(number)
            elif line.rstrip() == "}":
                found.rows += 1
                begun = -1
                try:
                    found.sightings += self._sightings(address, fields)
                except ValueError as e:
                    found.fault(number, e)
            else:
                name, value = _statement(line.strip().removesuffix(";"))
                fields[name] = value
        found.pending = len(lines) - begun if begun >= 0 else 0
        return found

    def _sightings(self, address: str, fields: dict[str, str]) -> list[Sighting]:
        place, network = place_of(address)
        state = fields.get("binding state", fields.get("") or "active")
        if state == _ABANDONED:
            return [(place, network, 0, LAST_PORT, 0, FOREVER, 0, "", "", int(SightingKind.DECLINED))]
        named = fields.get(self._wanted)
        subscriber = named or fields.get(_HARDWARE) or fields.get("uid")
        if state == "active" and subscriber is None:
            raise RowError("no subscriber")
        if subscriber is None or (state != "active" and state not in _OVER):
            return []
        start = _time(fields["starts"]) if "starts" in fields else 0
        end = _time(fields["ends"]) if "ends" in fields else FOREVER
        if not 0 < start < FOREVER:
            raise RowError("no beginning")
        said = SightingKind.HELD if state == "active" else SightingKind.ENDED
        # What never ends has no end to be over at.
        if said == SightingKind.ENDED and end == FOREVER:
            return []
        seen = end if said == SightingKind.ENDED else start
        # What a relay said, and the client of itself, is not kept any longer.
        is_nameless = not named and self._wanted != _HARDWARE
        was_offered = state in ("free", "backup") and end - start <= _OFFERED
        if said == SightingKind.ENDED and (is_nameless or was_offered):
            said = SightingKind.OVER
        return [(place, network, 0, LAST_PORT, start, end, seen, name_of(subscriber), "", int(said))]


def _statement(text: str) -> tuple[str, str]:
    if text.startswith("option "):
        text = text[len("option ") :]
    words = text.split(" ")
    if words[0] in ("starts", "ends", "cltt", "uid", "client-hostname"):
        return words[0], _unquoted(text[len(words[0]) + 1 :])
    if words[0] == "set" and len(words) > 3:
        return words[1], _unquoted(text.partition(" = ")[2])
    if text.endswith('"'):
        name, _, value = text.partition(' "')
        return name, value[:-1]
    return " ".join(words[:-1]), words[-1]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _time(text: str) -> int:
    """Parse a time: ``W YYYY/MM/DD HH:MM:SS`` in UTC, or ``epoch N; # …`` (db-time-format local)."""
    if text.startswith("never"):
        return FOREVER
    if text.startswith("epoch "):
        return sane(int(text.removeprefix("epoch ").partition(";")[0]) * 1000)
    at = datetime.strptime(text.partition(" ")[2], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
    return sane(int(at.timestamp()) * 1000)


class KeaParser(Parser):
    """Parser of both kinds of lease files; the header says which it is."""

    has_header = True

    def __init__(self, options: ReadOptions) -> None:
        """Take the column of the subscriber: ``hwaddr`` or ``duid`` if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", "")
        self._columns: dict[str, int] = {}

    def begin(self, header: str) -> None:
        """Read the columns' names, of which later versions of Kea have more."""
        columns = {name: number for number, name in enumerate(header.strip().split(","))}
        for needed in ("address", "valid_lifetime", "expire", "state", self._wanted or "address"):
            if needed not in columns:
                raise AssignmentError(f"not a lease file of Kea: no column {needed!r} in its first line")
        self._columns = columns

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read leases."""
        of, count = self._columns, len(self._columns)
        address, valid, expire, state = of["address"], of["valid_lifetime"], of["expire"], of["state"]
        kind, length = of.get("lease_type"), of.get("prefix_len")
        whose = [of[name] for name in (self._wanted or "duid", "hwaddr", "client_id", "duid") if name in of]
        found = Parsed()
        for number, line in enumerate(lines):
            if not line:
                continue
            found.rows += 1
            fields = line.split(",")
            try:
                if len(fields) < count:
                    raise RowError("cut short")
                # Databases have names for these, which a dump of theirs may have.
                if not all(fields[column].isdecimal() for column in (state, kind) if column is not None):
                    raise RowError("a state or a lease's type that is no number, as lease files have them")
                network = fields[address]
                if kind is not None and length is not None and fields[kind] == _PREFIX:
                    network += f"/{fields[length]}"
                place, network = place_of(network)
                lifetime, until = int(fields[valid]), int(fields[expire]) * 1000
                start = until - lifetime * 1000
                if lifetime == _INFINITE:
                    start, until = max(start, 0) or until, FOREVER
                if not (0 < start < LAST and (until == FOREVER or 0 < until < LAST)):
                    raise RowError("no such time")
            except ValueError as e:
                found.fault(number, e)
                continue
            subscriber = next((fields[column] for column in whose if fields[column]), "")
            if fields[state] == _DECLINED:
                # Nobody's then: neither a client's identifiers nor its lifetime are in it.
                said = SightingKind.DECLINED
                found.sightings.append((place, network, 0, LAST_PORT, start, until, start, "", "", int(said)))
                continue
            if not subscriber.strip("" if self._wanted else "0:"):
                continue
            said = SightingKind.HELD
            if lifetime == 0 or fields[state] == _RELEASED:
                said = SightingKind.RELEASED
            elif fields[state] == _RECLAIMED:
                # The client's hostname is emptied then, and what a relay said (the user context).
                said = SightingKind.ENDED if not self._wanted or fields[whose[0]] else SightingKind.OVER
            name = name_of(subscriber.replace("&#x2c", ","))
            seen = until if said in (SightingKind.ENDED, SightingKind.OVER) else start
            found.sightings.append((place, network, 0, LAST_PORT, start, until, seen, name, "", int(said)))
        return found


class DetailParser(Parser):
    """Parser of ``detail`` files."""

    def __init__(self, options: ReadOptions) -> None:
        """Take the attribute that names the subscriber: User-Name if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", "User-Name")

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read requests, each of which ends with an empty line."""
        found, last = Parsed(), 0
        record: dict[str, list[str]] = {}
        for number, line in enumerate(lines, 1):
            # FreeRADIUS indents by a tab, GNU Radius and others by spaces.
            if line[:1] in ("\t", " ") and not line.isspace():
                name, _, value = line.strip().partition(" = ")
                record.setdefault(name, []).append(value)
            elif not line.strip():
                last = number
                if record:
                    found.rows += 1
                    try:
                        found.sightings += self._sightings(record)
                    except (ValueError, KeyError) as e:
                        found.fault(number - 2, e)
                    record = {}
            else:
                found.other.append(number - 1)
        found.pending = len(lines) - last
        return found

    def _sightings(self, record: Mapping[str, list[str]]) -> list[Sighting]:
        at = (int(record["Timestamp"][0]) - int(record.get("Acct-Delay-Time", ["0"])[0])) * 1000
        if not 0 < at < LAST:
            raise RowError("no such time")
        nas = next((_text(record[name][0]) for name in _NAS if name in record), "-")
        nas = name_of(nas).replace("/", "\\x2f")  # else one's restart would be that of all that begin so
        status = record["Acct-Status-Type"][0]
        if status in _RESTARTS:
            off = status if status == _OFF else ""
            return [(0, "", 0, LAST_PORT, at, at, at, off, f"{nas}/", int(SightingKind.RESTARTED))]
        if status != "Stop" and status not in _HOLDS:
            return []
        time = record.get("Acct-Session-Time")
        start = at if status == "Start" else at - int(time[0]) * 1000 if time else 0
        if not FIRST <= start <= at:  # as where its server's clock was set, and that is longer than all time
            start = 0
        if status != "Stop":
            said, end, start = SightingKind.HELD, FOREVER, start or at
        else:
            said, end = SightingKind.ENDED, at
        names = (_text(record.get(n, [""])[0]) for n in (self._wanted, "User-Name", "Calling-Station-Id"))
        subscriber = name_of(next(filter(None, names), ""))
        if not subscriber and status != "Stop":
            raise RowError("nobody's")
        session = name_of(f"{nas}/{_text(record['Acct-Session-Id'][0])}")
        found = [
            (*place_of(_text(address)), 0, LAST_PORT, start, end, at, subscriber, session, int(said))
            for name in ADDRESSES
            for address in record.get(name, ())
            if address not in (_NONE_AT_END if status == "Stop" else _NONE)
        ]
        if status == "Stop" and not (found and subscriber):
            # No attribute but the session's name has to be in it (RFC 2866 section 5.13).
            return [(0, "", 0, LAST_PORT, start, at, at, subscriber, session, int(SightingKind.STOPPED))]
        return found


def _text(value: str) -> str:
    if not value.startswith('"'):
        return value
    if len(value) < 2 or not value.endswith('"'):
        raise RowError("a quote that does not end")
    # FreeRADIUS escapes bytes in octal, of which UTF-8 is made again.
    return _ESCAPED.sub(_unescaped, value[1:-1].encode()).decode(errors="backslashreplace")


def _unescaped(match: re.Match[bytes]) -> bytes:
    found = match[1]
    return bytes([int(found, 8) & 255]) if len(found) == 3 else _LETTERS.get(found, found)


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

# Between two words of an event is some text at most: to look for the second anywhere behind each that could
# be the first takes a long line of anybody's for ever.
_JUNOS = re.compile(r"RT_SRC_NAT_PBA_(?P<what>ALLOC|INTERIM|RELEASE)\b(?P<rest>.*)")
_JUNOS_MEMBER = re.compile(r'(?<![A-Za-z0-9\-])([A-Za-z0-9\-]++)="([^"]*)"')
_JUNOS_TEXT = re.compile(
    r"Subscriber (?P<inside>\S+) .{0,200}?port block \[(?P<first>\d+)-(?P<last>\d+)\] from (?P<outside>\S+)"
    r"(?:.*?\bepoch (?P<epoch>(?:0x)?[0-9A-Fa-f]+))?"
).search
_JSERVICES = re.compile(
    r"(?:JSERVICES|ASP)_NAT_PORT_BLOCK_(?P<what>ALLOC|ACTIVE|RELEASE)\b:?\s*(?P<inside>\S{1,64})\s*->\s*"
    r"(?P<outside>\S{1,64}?):(?P<first>\d+)-(?P<last>\d+)(?:\s+0x(?P<epoch>[0-9A-Fa-f]{8})\b)?"
)
_IOS_XR = re.compile(r"\[Userbased(?P<what>[AW]) (?P<fields>[^\[\]]*+)\]")
_ASA = re.compile(
    r"%(?:ASA|FTD)-\d-(?P<what>305014|305015|305017): .{0,200}?(?<!\S)(?P<protocol>\S++) block of ports "
    r"for translation from [^:\s]+:(?P<inside>\S+) to [^:\s]+:(?P<outside>[^\s/]+)/"
    r"(?P<first>\d+)-(?P<last>\d+)"
)
_CEF = re.compile(r"CEF:\d+\|A10\|[^|]*\|[^|]*\|CGN (?P<what>106|107)\|[^|]*\|[^|]*\|(?P<members>.*)")
_CEF_MEMBER = re.compile(r"(?<!\w)(\w++)=(\S*)")
_ACOS = re.compile(
    r"(?:FIXED-NAT-PORTS|NAT-(?P<protocol>TCP|UDP|ICMP)-(?P<what>[A-Z]+)):? "
    r"(?P<inside>[0-9A-Fa-f.:]*[0-9A-Fa-f])\s*->\s*(?P<outside>[0-9.]+):\s*(?P<first>\d+)(?:\s*-\s*(?P<last>\d+))?(?!\S)"
)
_ACOS_BEGINS, _ACOS_ENDS = ("A", "B", "C", "N", None), ("D", "F", "R")

_CLOCK = r"\d\d: ?\d\d:\d\d(?:[.,]\d+)?"
_TIME = re.compile(
    r"(?:(?:[A-Z][a-z]{2},? +)?(?:(?P<year>\d{4}) +)?(?P<month>[A-Z][a-z]{2}) +(?P<day>\d\d?)"
    rf"(?: +(?P<year2>\d{{4}}))?,? +(?P<clock>{_CLOCK})(?: +\d{{4}}(?!-| +[A-Z][a-z]))?"
    rf"|(?P<date>\d{{4}}[-/]\d\d[-/]\d\d)[T ] *(?P<clock2>{_CLOCK}))"
    r"(?P<offset>Z| ?[+-]\d\d:?\d\d)?(?: +(?P<zone>[A-Z]{3,5})(?![\w./-]))?"
)
_WHEN = re.sub(r"\?P<\w+>", "?:", _TIME.pattern)
_IP = r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]++)"
_GAP = r"[ \t]"
_LEVEL = r"(?i:(?:kern|user|daemon|auth|authpriv|syslog|local\d)\.[a-z]{3,9})"
_NAME = r"\w[\w./@-]*+"
_HEADER = (
    # Priority, version or number, time, and whose it is; again for each collector that it went through. Of
    # anybody's words there is one way at most to read each: a month is no name.
    rf"\ufeff?\s*+(?:(?:<\d{{1,3}}>{_GAP}*+)?+(?:\d{{1,10}}:?{_GAP}++)?+[*.:]?+{_GAP}*+"
    rf"{_WHEN}{_GAP}*+:?+{_GAP}*+(?:{_LEVEL}{_GAP}++)?+"
    rf"(?:{_IP}{_GAP}++)?+(?:(?!{_WHEN}){_NAME}{_GAP}++)?+(?:{_IP}{_GAP}++)?+)*+(?:<\d{{1,3}}>)?+"
)
"""What stands before a message. The name of a program, with a colon or number, does not."""


class CgnParser(Parser):
    """Parser of CGN logs, line by line; the vendor is recognised by the event."""

    def __init__(self, options: ReadOptions) -> None:
        """Take the zone of times that do not say theirs."""
        options.only()
        self._zone = options.zone

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read events, of which a line may have several."""
        found = Parsed()
        for number, line in enumerate(lines):
            events = 0
            try:
                for pattern, is_header, block_of in _EVENTS:
                    behind = 0
                    for match in pattern.finditer(line):
                        # One follows another in the same message, or it is the first.
                        if match.start() != behind and not is_header(line, 0, match.start()):
                            raise RowError("an event within a message, which may be anybody's words")
                        behind = match.end()
                        if block := block_of(match):
                            found.sightings += self._sightings(block, line[: match.start()])
                            events += 1
                    if events:
                        break
            except (ValueError, KeyError) as e:
                events += 1
                found.fault(number, e)
            found.rows += events
            if not events and line and not line.isspace():
                found.other.append(number)
        return found

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
            # An end that the event itself tells, in whole seconds, may be before its beginning was written.
            seen = written.last // SECOND * SECOND if written else 0
            return held_from(what, at, inside, "", seen if seen >= at.last + _LATER else 0)
        return held_until(what, None, at, inside, "")


def _time_in(text: str, zone: tzinfo) -> Moment | None:
    """The last time in a text; None where there is none that says its year.

    Raises:
        RowError: its zone is another than it is read in.
    """
    found = [*_TIME.finditer(text)]
    times = [one for one in found if one["year"] or one["year2"] or one["date"]]
    if not times:
        return None
    at = _moment_in(times[-1], zone)
    if _is_utc(times[-1], found[: found.index(times[-1])], at, zone):
        raise RowError("a time in UTC behind one of --zone: give --zone UTC, if all are so")
    for collectors in times[:-1]:
        # Nothing is received before it was sent.
        if collectors["offset"] and at.first > _moment_in(collectors, zone).last + _AHEAD:
            raise RowError(
                "a time ahead of its collector's: its zone is none of --zone, or its clock is wrong"
            )
    return at


def _is_utc(last: re.Match[str], others: Sequence[re.Match[str]], at: Moment, zone: tzinfo) -> bool:
    """Whether a time is in UTC, and not in a zone as `at`, by those of the zone before it: Junos' cards keep
    to that where the router, and who gives the zone, does not."""
    if zone is UTC or last["offset"] or last["zone"]:
        return False
    utc = _moment_in(last, UTC).first
    for other in others:
        with suppress(ValueError):  # a local time that there was none of
            said = _moment_in(other, zone, ms_text(utc)[:4]).first
            if abs(said - utc) <= _AHEAD < min(abs(said - at.first), abs(said - at.last)):
                return True
    return False


_LATER = 60_000
"""Milliseconds behind its beginning from which on a block that is written of was still there."""

_AHEAD = 600_000
"""Milliseconds that a translator's clock may be ahead of its collector's."""


def _moment_in(match: re.Match[str], zone: tzinfo, year: str = "") -> Moment:
    """A time in the zone that it says, or else in another; and in the year, if it says one."""
    clock = (match["clock"] or match["clock2"]).replace(" ", "")
    if year := match["year"] or match["year2"] or (year if not match["date"] else ""):
        day = datetime.strptime(f"{year} {match['month']} {match['day']}", "%Y %b %d")
        at = f"{day:%Y-%m-%d}T{clock}"
    else:
        at = f"{match['date'].replace('/', '-')}T{clock}"
    if match["offset"]:
        return moment_of(at + match["offset"].strip(), zone)
    return moment_of(at, zone) if match["zone"] is None else _named_moment(at, match["zone"], zone)


def _named_moment(at: str, name: str, zone: tzinfo) -> Moment:
    """A time with what may be its zone's name behind it, or a host's.

    Raises:
        RowError: it is the name of another zone, or not this one's then.
    """
    if name in _ZERO_ZONES:
        return moment_of(at, UTC)
    name = _GERMAN.get(name, name)
    offsets = _offsets().get(name, set())
    local = datetime.fromisoformat(at)
    # Of the hour that a clock shows twice, the name says which.
    for one in (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1)):
        if one.tzname() == name or one.utcoffset() in offsets:
            return moment_of(one.astimezone(UTC))
    if offsets:
        raise RowError("a time of another zone than --zone says: an hour off is another subscriber")
    return moment_of(at, zone)


_ZERO_ZONES = ("UTC", "GMT")
_GERMAN = {"MEZ": "CET", "MESZ": "CEST"}
"""Names that operators give to their zone in devices which have them named, and that no database has."""


@cache
def _offsets() -> dict[str, set[timedelta | None]]:
    """Offsets by the short names of zones, such as those that devices put behind a time: of all that are
    known here. A device that keeps to one offset is read in a zone such as ``Etc/GMT-1``."""
    found: dict[str, set[timedelta | None]] = {}
    for key in available_timezones():
        for month in (1, 7):
            day = datetime(2026, month, 1, tzinfo=ZoneInfo(key))
            found.setdefault(day.tzname() or "", set()).add(day.utcoffset())
    return found


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


class _CgnEvent(NamedTuple):
    """Kind of event of a translator.

    Attributes:
        pattern: that it has.
        is_header: whether text may stand before it.
        block_of: what is made of it; None for blocks of other protocols.
    """

    pattern: re.Pattern[str]
    is_header: Callable[[str, int, int], re.Match[str] | None]
    block_of: Callable[[re.Match[str]], PortBlock | None]


def _behind(tag: str) -> Callable[[str, int, int], re.Match[str] | None]:
    """Match of a header with a translator's own tag behind it, a regular expression."""
    return re.compile(_HEADER + tag).fullmatch


_FIELDS = r"(?:(?:-|\d{1,10}) ++)?+(?:- ++){0,3}+"
"""Fields of RFC 5424 that say nothing, as collectors write them that have the message in the older form."""
_OF_JUNOS = _behind(
    rf"(?:(?:node\d+\.)?fpc\d+(?:\.pic\d+)? +)?(?:RT_NAT(?:\[\d+\])? *)?(?:: *|{_FIELDS})(?:%[A-Z0-9]+-\d-)?"
)
_OF_JSERVICES = _behind(
    # None gives blanks back for the last ones: of thousands each would be tried as the first of these. A
    # `log-prefix` is before the service set, or behind the service.
    rf"{_FIELDS}(?:\([^()]*\) *+)?(?:{_WHEN}:? *+)?(?:(?:{_NAME})?+\{{[^{{}}]*\}} *+)?"
    rf"(?:\[[^\[\]]*\](?:: *+{_NAME} ++)?+)?:? *"
)
# The older form of a time with its year is the translator's own: behind it is its name, and no program's.
_OF_ASA = _behind(rf"(?:(?<=\d{{4}} \d\d:\d\d:\d\d ){_NAME}: +)?(?:: *)?{_FIELDS}")
_OF_ACOS = _behind(rf"(?:a10logd(?:\[\d+\])?(?:: *| +))?{_FIELDS}(?:\[[A-Z0-9]{{2,10}}\](?:<\d>)?:? *)?")

_EVENTS = (
    _CgnEvent(_JUNOS, _OF_JUNOS, _junos),
    _CgnEvent(_JSERVICES, _OF_JSERVICES, _jservices),
    _CgnEvent(_IOS_XR, _behind(r"(?:- +){0,3}(?:[A-Z][A-Z0-9_-]+ +)?(?:- +){0,3}"), _ios_xr),
    _CgnEvent(_ASA, _OF_ASA, _asa),
    _CgnEvent(_CEF, _OF_ACOS, _acos_cef),
    _CgnEvent(_ACOS, _OF_ACOS, _acos),
)


FORMATS: dict[str, type[Parser]] = {
    "kea": KeaParser,
    "isc": IscParser,
    "detail": DetailParser,
    "cgn": CgnParser,
    "ports": ColumnsParser,
    "csv": ColumnsParser,
}

LOGS = ("cgn", "detail", "ports")
"""Formats of logs; the others' files say what is in force."""
LEASES = ("kea", "isc")
"""Formats of files that their servers write anew each hour or so, with the last lease of each address."""
TELLS_ENDS = ("detail", "radacct", "cgn")
"""Formats in which each end is told, unless that is lost."""
NAMES_ALL = ("detail", "radacct")
"""Formats in which what is said of a session at a time names all addresses that it has of a kind."""
