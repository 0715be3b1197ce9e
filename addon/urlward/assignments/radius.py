"""``detail`` files of FreeRADIUS and its kin: accounting requests as text (RFC 2866, RFC 3162, RFC 4818).

A session has an address, a prefix and a delegated prefix from its Start, or the session time before an
interim update, until its Stop; one without a Stop until the next session on the same address.
"""

from collections.abc import Mapping, Sequence

from urlward.assignments.interval import FOREVER, LAST_PORT, Sighting, SightingKind, place_of
from urlward.assignments.parsers import Fault, Parsed, ReadOptions, RowError, name_of, reason_of
from urlward.assignments.times import LAST, sane

ADDRESSES = ("Framed-IP-Address", "Framed-IPv6-Address", "Framed-IPv6-Prefix", "Delegated-IPv6-Prefix")
_NAS = ("NAS-IP-Address", "NAS-IPv6-Address", "NAS-Identifier")
_RESTARTS = ("Accounting-On", "Accounting-Off")
_HOLDS = ("Start", "Interim-Update", "Alive")
_PICKED_BY_USER, _PICKED_BY_NAS = "255.255.255.255", "255.255.255.254"


class DetailParser:
    """Parser of ``detail`` files."""

    has_header = False

    def __init__(self, options: ReadOptions) -> None:
        """Take the attribute that names the subscriber: User-Name if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", "User-Name")

    def begin(self, header: str) -> None:
        """Detail files have no header."""

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read requests, each of which ends with an empty line."""
        found: list[Sighting] = []
        faults: list[Fault] = []
        other: list[int] = []
        rows = last = 0
        record: dict[str, list[str]] = {}
        for number, line in enumerate(lines, 1):
            # FreeRADIUS indents by a tab, GNU Radius and others by spaces.
            if line[:1] in ("\t", " ") and not line.isspace():
                name, _, value = line.strip().partition(" = ")
                record.setdefault(name, []).append(value)
            elif not line.strip():
                last = number
                if record:
                    rows += 1
                    try:
                        found += self._sightings(record)
                    except (ValueError, KeyError) as e:
                        faults.append(Fault(number - 2, reason_of(e)))
                    record = {}
            else:
                other.append(number - 1)
        return Parsed(found, rows, faults, len(lines) - last, other)

    def _sightings(self, record: Mapping[str, list[str]]) -> list[Sighting]:
        at = (int(record["Timestamp"][0]) - int(record.get("Acct-Delay-Time", ["0"])[0])) * 1000
        if not 0 < at < LAST:
            raise RowError("no such time")
        nas = next((_text(record[name][0]) for name in _NAS if name in record), "-")
        status = record["Acct-Status-Type"][0]
        if status in _RESTARTS:
            return [(0, "", 0, LAST_PORT, at, at, at, "", f"{name_of(nas)}/", int(SightingKind.RESTARTED))]
        if status != "Stop" and status not in _HOLDS:
            return []
        time = record.get("Acct-Session-Time")
        start = at if status == "Start" else sane(at - int(time[0]) * 1000) if time else 0
        if status != "Stop":
            said, end, start = SightingKind.HELD, FOREVER, start or at
        else:
            said, end = SightingKind.ENDED, at
        names = (_text(record.get(n, [""])[0]) for n in (self._wanted, "User-Name", "Calling-Station-Id"))
        subscriber = name_of(next(filter(None, names), ""))
        if not subscriber:
            raise RowError("nobody's")
        session = name_of(f"{nas}/{_text(record['Acct-Session-Id'][0])}")
        found = [
            (*place_of(_text(address)), 0, LAST_PORT, start, end, at, subscriber, session, int(said))
            for name in ADDRESSES
            for address in record.get(name, ())
            if address not in (_PICKED_BY_USER, _PICKED_BY_NAS)
        ]
        if status == "Stop" and not found:
            # No attribute but the session's name has to be in it (RFC 2866 section 5.13).
            return [(0, "", 0, LAST_PORT, at, at, at, "", session, int(SightingKind.STOPPED))]
        return found


def _text(value: str) -> str:
    if not value.startswith('"'):
        return value
    value = value[1:-1]
    if "\\" not in value:
        return value
    # FreeRADIUS escapes bytes in octal, of which UTF-8 is made again.
    out, at = bytearray(), 0
    raw = value.encode("latin-1", "replace") if value.isascii() else value.encode()
    plain = {ord("n"): 10, ord("r"): 13, ord("t"): 9}
    while at < len(raw):
        if raw[at] != 92 or at + 1 == len(raw):
            out.append(raw[at])
            at += 1
        elif raw[at + 1 : at + 4].isdigit() and len(raw) >= at + 4:
            out.append(int(raw[at + 1 : at + 4], 8) & 255)
            at += 4
        else:
            out.append(plain.get(raw[at + 1], raw[at + 1]))
            at += 2
    return out.decode(errors="backslashreplace")
