"""Zone files (RFC 1035, section 5): iterates over the records.

Most records of a policy zone are one simple line, which is read here; dnspython reads the others, one by
one, so that a broken record is one bad line and memory stays the same.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import dns.exception
import dns.name
import dns.rdatatype
import dns.zonefile

from urlward.lists.formats.format import NotTakenError, Skipped
from urlward.lists.formats.stream import text_lines

MAX_RECORD = 1 << 16
"""Characters of a record that goes over several lines."""

_SIMPLE = re.compile(
    r"(?P<name>@|[A-Z0-9_*\-][A-Z0-9_*\-.]*)\s+(?:\d+[SMHDW]?\s+)?(?:IN\s+)?(?:\d+[SMHDW]?\s+)?"
    r"(?:(?P<cname>CNAME)\s+(?P<target>@|\.|[A-Z0-9_*\-][A-Z0-9_*\-.]*)|A\s+\d+\.\d+\.\d+\.\d+)\s*(?:;.*)?",
    re.IGNORECASE | re.DOTALL,
).fullmatch
_SOA = re.compile(r"\s+(?:\d+[SMHDW]?\s+|IN\s+)*SOA\s", re.IGNORECASE).match
_NOT_COUNTED = re.compile(r'\\.|"(?:\\.|[^"\\])*"|;[^\n]*')


class Record(NamedTuple):
    """Resource record.

    Attributes:
        line: 1-based number of its first line.
        name: its owner relative to the zone, in lower case; empty for the zone itself.
        owner: its owner, absolute, without the last dot.
        type: such as ``CNAME``.
        target: of a CNAME, like `owner` (empty for the root); else None.
    """

    line: int
    name: str
    owner: str
    type: str
    target: str | None


class _Zone:
    """Parser state that carries over to the next record: origin, zone and owner.

    Attributes:
        origin: what relative names end in; None where nothing says.
        zone: the name of the zone; its records are below it.
        owner: of the last record.
    """

    def __init__(self) -> None:
        self.origin: str | None = None
        self.zone: str | None = None
        self.owner: str | None = None

    def absolute(self, name: str) -> str:
        if name == "@":
            return self.origin or ""
        if name.endswith("."):
            return name[:-1]
        return f"{name}.{self.origin}" if self.origin else name

    def relative(self, owner: str) -> str:
        """Make a name relative to the zone.

        Raises:
            NotTakenError: it is not in the zone.
        """
        zone = self.zone if self.zone is not None else self.origin
        if owner == (zone or ""):
            return ""
        if not zone:
            return owner
        if not owner.endswith(f".{zone}"):
            raise NotTakenError("a name outside the zone", unsupported=False)
        return owner[: -len(zone) - 1]


def records(file: BinaryIO) -> Iterator[Record | Skipped]:
    """Iterate over the records of a zone file but for its SOA, which says what the zone is."""
    zone = _Zone()
    for found in _joined(file):
        if isinstance(found, Skipped):
            yield found
            continue
        number, text = found
        try:
            if text.startswith("$"):
                _directive(zone, text)
            else:
                yield from _read(zone, number, text)
        except NotTakenError as e:
            yield Skipped(number, 1, e.reason, e.unsupported)
        except (dns.exception.DNSException, ValueError):
            # Their messages may have the record's text in them.
            yield Skipped(number, 1, "not a record of a zone file")


def _read(zone: _Zone, number: int, text: str) -> Iterator[Record]:
    if text[0].isspace():
        if zone.owner is None:
            raise NotTakenError("a record without a name", unsupported=False)
        text = f"{zone.owner}.{text}" if zone.owner else f"@{text}"
    simple = _SIMPLE(text)
    if simple is None or ".." in text:
        yield from _read_by_library(zone, number, text)
        return
    _check(zone, simple["name"])
    owner = zone.owner = zone.absolute(simple["name"].lower())
    target = None
    if simple["cname"]:
        target = "" if simple["target"] == "." else zone.absolute(simple["target"].lower())
    yield Record(number, zone.relative(owner), owner, "CNAME" if simple["cname"] else "A", target)


def _read_by_library(zone: _Zone, number: int, text: str) -> Iterator[Record]:
    name, rest = re.split(r"(?=\s)", text, maxsplit=1) if len(text.split()) > 1 else (text, "")
    origin = dns.name.from_text(zone.origin or ".")
    absolute = dns.name.from_text(name, origin)
    owner = zone.owner = _text(absolute)
    if _SOA(rest):
        # Nothing in it counts but whose it is.
        zone.zone = zone.zone or owner
        zone.origin = zone.origin if zone.origin is not None else owner
        return
    _check(zone, name)
    # Given with its name, a record outside the zone is not passed over in silence.
    for rrset in dns.zonefile.read_rrsets(
        rest, name=absolute, rdclass=None, default_ttl=0, origin=origin, relativize=False
    ):
        kind = dns.rdatatype.to_text(rrset.rdtype)
        target = _text(rrset[0].target) if kind == "CNAME" else None
        yield Record(number, zone.relative(owner), owner, kind, target)


def _check(zone: _Zone, name: str) -> None:
    """Refuse an absolute name where nothing says which zone it is in.

    Raises:
        NotTakenError: it is one.
    """
    if not zone.origin and not zone.zone and name.endswith("."):
        raise NotTakenError("an absolute name, and no $ORIGIN or SOA says of which zone", unsupported=False)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower().removesuffix(".")


def _directive(zone: _Zone, text: str) -> None:
    name, *values = text.split(";")[0].split()
    if name.upper() == "$ORIGIN" and len(values) == 1:
        origin = dns.name.from_text(values[0], dns.name.from_text(zone.origin or "."))
        zone.origin = _text(origin)
    elif name.upper() != "$TTL":
        raise NotTakenError("a directive other than $ORIGIN and $TTL")


def _joined(file: BinaryIO) -> Iterator[tuple[int, str] | Skipped]:
    """Iterate over records as text, each with the number of its first line."""
    first, parts, depth, size = 0, [], 0, 0
    for line in text_lines(file, (b";",)):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        if not depth and "(" not in text:
            yield line
            continue
        first = first or number
        parts.append(text)
        size += len(text) + 1
        counted = _NOT_COUNTED.sub("", text)
        depth = max(depth + counted.count("(") - counted.count(")"), 0)
        if not depth:
            yield first, "\n".join(parts)
        elif size < MAX_RECORD:
            continue
        else:
            yield Skipped(first, 1, "a record that does not end")
        first, parts, depth, size = 0, [], 0, 0
    if parts:
        yield Skipped(first, 1, "a record that does not end")
