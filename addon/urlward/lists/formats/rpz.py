"""Response policy zones (draft-vixie-dnsop-dns-rpz-00): names and networks whose DNS answers are changed.

A trigger ``x`` is that name alone and ``*.x`` what is below it: both together are a host with its
subdomains, ``*.x`` alone is nothing that the grammar can say. What belongs together is looked for among the
last `WINDOW` names, so that memory stays the same however long the zone is.

Most records of a zone file (RFC 1035, section 5) are one simple line, which is read here; dnspython reads the
others, one by one, so that a broken record is one bad line and memory stays the same.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import BinaryIO, NamedTuple

import dns.exception
import dns.name
import dns.rdatatype
import dns.zonefile

from urlward.engine.errors import UrlError
from urlward.lists.formats.format import FormatOptions, Found, NotTakenError, Skipped, not_taken, text_lines
from urlward.lists.formats.write import attributes, domain, host_alone

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


WINDOW = 1 << 16
"""Names that wait for a record that belongs to them."""

_PASSTHRU = "rpz-passthru"
_BLOCKING = ("", "*", "rpz-drop")
_OTHER_TRIGGERS = ("rpz-client-ip", "rpz-nsip", "rpz-nsdname")
_OF_THE_ZONE = (
    "RRSIG",
    "NSEC",
    "NSEC3",
    "NSEC3PARAM",
    "DNSKEY",
    "CDS",
    "CDNSKEY",
    "ZONEMD",
    "TYPE65534",
)
_NO_POLICY = ("NS", "DNAME", "DS")


@dataclass(slots=True)
class _Name:
    """Line numbers of the records for a name itself and for all below it; 0 for none."""

    itself: int = 0
    below: int = 0


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    more = attributes(category=options.category)
    waiting: OrderedDict[tuple[str, str], _Name] = OrderedDict()
    for record in records(file):
        if isinstance(record, Skipped):
            yield record
            continue
        if not record.name or record.type in _OF_THE_ZONE:
            continue
        try:
            allow = _action(record)
            network = _network(record.name)
        except NotTakenError as e:
            yield Skipped(record.line, 1, e.reason, e.unsupported)
            continue
        if network:
            yield Found(f"{allow}{network}{more}", record.line)
            continue
        base = record.name.removeprefix("*.")
        name = waiting.setdefault((allow, base), _Name())
        if base == record.name:
            name.itself = name.itself or record.line
        else:
            name.below = name.below or record.line
        if len(waiting) > WINDOW:
            yield _settled(*waiting.popitem(last=False), more)
    while waiting:
        yield _settled(*waiting.popitem(last=False), more)


def _action(record: Record) -> str:
    """Prefix of a line: ``@@`` where the record lets pass, nothing where it blocks.

    Raises:
        NotTakenError: it does neither.
    """
    if record.type in _NO_POLICY:
        raise NotTakenError(f"a {record.type} record, which is no policy")
    target = record.target
    if target is None or target in _BLOCKING:
        return ""
    if target in (_PASSTHRU, record.name):
        return "@@"
    if target.startswith("rpz-"):
        if "." in target:
            raise NotTakenError("an action without its last dot, such as rpz-passthru.", unsupported=False)
        raise NotTakenError("an action that neither blocks nor lets pass")
    return ""


def _network(name: str) -> str:
    """The network of an ``rpz-ip`` trigger; empty for a name.

    Raises:
        NotTakenError: not a network, or a trigger of another kind.
    """
    *labels, kind = name.split(".")
    if kind in _OTHER_TRIGGERS:
        raise NotTakenError("a trigger other than a name or rpz-ip")
    if kind != "rpz-ip":
        if name == "*":
            raise NotTakenError("every name there is")
        if "*" in name.removeprefix("*."):
            raise NotTakenError("an asterisk inside a name", unsupported=False)
        return ""
    length, *rest = labels or [""]
    if len(rest) == 4 and "zz" not in rest:
        address = ".".join(reversed(rest))
    else:
        address = re.sub(r":?\bzz\b:?", "::", ":".join(reversed(rest)), count=1)
    try:
        return str(ip_network(f"{address}/{length}"))
    except ValueError as e:
        raise NotTakenError("not a network", unsupported=False) from e


def _settled(key: tuple[str, str], name: _Name, more: str) -> Found | Skipped:
    allow, base = key
    line = name.itself or name.below
    try:
        if not name.itself:
            raise NotTakenError("what is below a name, but not the name itself")
        text = domain(base) if name.below else host_alone(base)
        if text.startswith("http"):
            raise NotTakenError("an address for a name: it is never asked for", unsupported=False)
    except (UrlError, NotTakenError) as e:
        return not_taken(line, 1, e)
    return Found(f"{allow}{text}{more}", line)
