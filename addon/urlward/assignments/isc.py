"""ISC dhcpd's lease file (dhcpd.leases(5)), IPv4.

A lease is written anew at each change. One that is not active any more ended at its ``ends``.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from urlward.assignments.interval import FOREVER, LAST_PORT, Sighting, SightingKind, place_of
from urlward.assignments.parsers import Fault, Parsed, ReadOptions, RowError, name_of, reason_of
from urlward.assignments.times import sane

_LEASE = re.compile(r"lease ([0-9.]+) \{\s*").fullmatch
_NO_LEASE = re.compile(
    r"\s*(?:#.*|(?:authoring-byte-order|server-duid|failover|my state|partner state|mclt)\b.*|\})?\s*"
).fullmatch
_OVER = frozenset({"free", "expired", "released", "reset"})
_ABANDONED = "abandoned"
"""Declined by a client, or found in use; when, is not in the file."""


class IscParser:
    """Parser of IPv4 leases."""

    has_header = False

    def __init__(self, options: ReadOptions) -> None:
        """Take what names the subscriber: ``hardware ethernet`` if nothing else is said."""
        options.only("subscriber")
        self._wanted = options.columns.get("subscriber", "hardware ethernet")

    def begin(self, header: str) -> None:
        """Lease files have no header."""

    def parse(self, lines: Sequence[str]) -> Parsed:
        """Read leases; what else the file has is passed over."""
        found: list[Sighting] = []
        faults: list[Fault] = []
        other: list[int] = []
        rows = 0
        address, begun, fields = "", -1, dict[str, str]()
        for number, line in enumerate(lines):
            if begun < 0:
                if match := _LEASE(line):
                    address, begun, fields = match[1], number, {}
                elif not _NO_LEASE(line):
                    other.append(number)
            elif line.rstrip() == "}":
                rows += 1
                begun = -1
                try:
                    sighting = self._sighting(address, fields)
                except ValueError as e:
                    faults.append(Fault(number, reason_of(e)))
                else:
                    found += [sighting] if sighting else []
            else:
                name, value = _statement(line.strip().removesuffix(";"))
                fields[name] = value
        return Parsed(found, rows, faults, len(lines) - begun if begun >= 0 else 0, other)

    def _sighting(self, address: str, fields: dict[str, str]) -> Sighting | None:
        place, network = place_of(address)
        state = fields.get("binding state", fields.get("") or "active")
        if state == _ABANDONED:
            return (place, network, 0, LAST_PORT, 0, FOREVER, 0, "", "", int(SightingKind.DECLINED))
        subscriber = fields.get(self._wanted) or fields.get("hardware ethernet") or fields.get("uid")
        if subscriber is None or (state != "active" and state not in _OVER):
            return None
        start = _time(fields["starts"]) if "starts" in fields else 0
        end = _time(fields["ends"]) if "ends" in fields else FOREVER
        if not 0 < start < FOREVER:
            raise RowError("no beginning")
        said = SightingKind.HELD if state == "active" else SightingKind.ENDED
        # What never ends has no end to be over at.
        if said == SightingKind.ENDED and end == FOREVER:
            return None
        seen = end if said == SightingKind.ENDED else start
        return (place, network, 0, LAST_PORT, start, end, seen, name_of(subscriber), "", int(said))


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
