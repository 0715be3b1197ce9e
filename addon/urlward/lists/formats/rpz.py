"""Response policy zones (draft-vixie-dnsop-dns-rpz-00): names and networks whose DNS answers are changed.

A trigger ``x`` is that name alone and ``*.x`` what is below it: both together are a host with its
subdomains, ``*.x`` alone is nothing that the grammar can say. What belongs together is looked for among the
last `WINDOW` names, so that memory stays the same however long the zone is.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import BinaryIO

from urlward.engine.errors import UrlError
from urlward.lists.formats.format import FormatOptions, Found, NotTakenError, Skipped
from urlward.lists.formats.write import attributes, domain, host_alone
from urlward.lists.formats.zone import Record, records

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
    except UrlError as e:
        return Skipped(line, 1, str(e))
    except NotTakenError as e:
        return Skipped(line, 1, e.reason, e.unsupported)
    return Found(f"{allow}{text}{more}", line)
