"""DNS wire format (RFC 1035 section 4): parses as much of a message as a lookup in the lists needs, and
messages on a stream, with two bytes of length before each (section 4.2.2, RFC 7766).

Nearly every answer is of a name that nobody lists, and is passed on as it came. So nothing is built here:
names, addresses and times are read in one walk, and a message that ends early or points forward is refused.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = 12
"""Bytes of a message before its question."""

A, CNAME, AAAA, DNAME, SVCB, HTTPS = 1, 5, 28, 39, 64, 65
FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 1, 2, 3, 4, 5

RECURSION = 1
"""RD of the flags, in their first byte."""

PLAIN_SIZE = 512
"""Bytes of the largest answer over UDP without EDNS."""

PAYLOAD = 1232
"""Bytes over UDP that pass anywhere without fragments; https://www.dnsflagday.net/2020/."""

MOST_NAMES = 512
"""Hosts that a message may speak of, counted once a record: to look more up in the lists would keep others
waiting, and no response has a use for them."""

MOST_LABELS = 4_096
"""Labels that these may have together: each is looked up."""

_MOST_NAME = 254
_MOST_POINTERS = 127
_OPT_SIZE = 11
_COOKIE, _COOKIES = 10, range(16, 41)
_COUNTS = struct.Struct(">HHH").unpack_from
_RECORD = struct.Struct(">HHIH").unpack_from
_SHORT = struct.Struct(">H").unpack_from
_PAIR = struct.Struct(">HH").unpack_from
_LIFE = struct.Struct(">I").unpack_from
_FIRST = bytes((0xC0, HEADER))
"""Pointer to the name in question."""

_SIZES = {A: 4, AAAA: 16}
_HINT4, _HINT6 = 4, 6
_MOST_TTL = 1 << 31
_OPCODE = 0x78  # in the first octet of the flags: zeros for a query and what answers it
_SERVICES = (SVCB, HTTPS)
_LEADING = frozenset((A, AAAA, CNAME, DNAME, SVCB, HTTPS))

# Where contents have names, and how many: NS, CNAME, SOA, PTR, MX, RP, AFSDB, SRV, KX, DNAME, RRSIG, NSEC,
# SVCB and HTTPS.
_NAMES_IN = {
    2: (0, 1), CNAME: (0, 1), 6: (0, 2), 12: (0, 1), 15: (2, 1), 17: (0, 2), 18: (2, 1), 33: (6, 1),
    36: (2, 1), DNAME: (0, 1), 46: (18, 1), 47: (0, 1), SVCB: (2, 1), HTTPS: (2, 1),
}  # fmt: skip
# HINFO, TXT, LOC, CERT, OPT, APL, DS, SSHFP, DNSKEY, DHCID, NSEC3, NSEC3PARAM, TLSA, SMIMEA, CDS, CDNSKEY,
# OPENPGPKEY, CSYNC, ZONEMD, SPF, URI and CAA have none.
_NAMELESS = frozenset(
    (A, AAAA, 13, 16, 29, 37, 41, 42, 43, 44, 48, 49, 50, 51, 52, 53, 59, 60, 61, 62, 63, 99, 256, 257)
)

# A dot would end a label, a percent sign be an escape, and what is not ASCII be another spelling: a name
# with one of them is no host that a client could ask for in a URL. What else no host has, the engine says.
_HOST = re.compile(rb"[!-$&-~]*").fullmatch


class WireError(Exception):
    """A DNS message that cannot be parsed."""


class Question(NamedTuple):
    """Question of a message, which has exactly one.

    Attributes:
        host: its name in small letters without the last dot; empty where no host has such a name.
        type: record type.
        end: offset behind it.
    """

    host: str
    type: int
    end: int


class Edns(NamedTuple):
    """EDNS options of a query (RFC 6891).

    Attributes:
        size: bytes of the largest answer over UDP.
        dnssec: whether signatures are wanted.
    """

    size: int
    dnssec: bool


class Scan(NamedTuple):
    """Names, addresses and lifetimes of a response.

    Attributes:
        hosts: every host that owns a record of its answer section, or that an alias leads to, the question's
            first; empty for a name that is no host.
        targets: those that HTTPS and SVCB records lead to. What such a record says of their addresses is its
            owner's word, and a client that goes there asks for what it asked the owner for.
        chain: the question's host, and those that CNAMEs lead to from there.
        four: IPv4 addresses of these hosts, and as they tell of their targets, 4 bytes each.
        six: IPv6 addresses, 16 bytes each.
        beside: other hosts of the additional section, targets too, and addresses of one family.
        ttl: the shortest time of the records that have led to an address, in seconds.
        service: whether there is an HTTPS or SVCB record.
        leads: the shortest time of those that lead to another name: that of an address may be shorter.
    """

    hosts: tuple[str, ...]
    targets: tuple[str, ...]
    chain: tuple[str, ...]
    four: bytes
    six: bytes
    beside: tuple[tuple[str, bytes], ...]
    ttl: int
    service: bool
    leads: int


def read_question(data: bytes) -> Question:
    """Read the question of a message that says it has one.

    Raises:
        WireError: it has none that can be read.
    """
    try:
        host, at = _name(data, HEADER)
        (kind,) = _SHORT(data, at)
        if len(data) < at + 4:
            raise WireError
    except (IndexError, struct.error) as e:
        raise WireError from e
    return Question(host, kind, at + 4)


def read_edns(data: bytes, end: int) -> Edns | None:
    """The EDNS record of a query, if there is one and it stands first, as clients put it.

    Args:
        data: the query.
        end: of its question.
    """
    if data[end : end + 3] != b"\0\0\x29" or len(data) < end + _OPT_SIZE:
        return None
    return Edns(max(PLAIN_SIZE, int(_SHORT(data, end + 3)[0])), bool(data[end + 7] & 0x80))


def read_cookie(data: bytes, end: int) -> bytes:
    """The cookie of a query, once a server has had its part in it (RFC 7873 section 4); empty otherwise.

    Args:
        data: the query, in which `read_edns` finds something.
        end: of its question.
    """
    at = end + _OPT_SIZE
    last = min(at + int(_SHORT(data, at - 2)[0]), len(data))
    while at + 4 <= last:
        code, length = _PAIR(data, at)
        at += 4
        if code == _COOKIE:
            return data[at : at + length] if length in _COOKIES and at + length <= last else b""
        at += length
    return b""


def with_payload(data: bytes, end: int, most: int) -> bytes:
    """A query whose client takes no longer answers over UDP than so many bytes; as it is where it does not.

    Args:
        data: the query.
        end: of its question.
        most: bytes.
    """
    edns = read_edns(data, end)
    if edns is None or edns.size <= most:
        return data
    return data[: end + 3] + most.to_bytes(2) + data[end + 5 :]


def scan(data: bytes, question: Question) -> Scan:
    """Read an answer.

    Args:
        data: the message; its question is the one given.
        question: as `read_question` gives it.

    Raises:
        WireError: its answer or additional section cannot be read, or has too much in it.
    """
    try:
        return _scan(data, question)
    except (IndexError, struct.error) as e:
        raise WireError from e


def _scan(data: bytes, question: Question) -> Scan:
    answers, authorities, additionals = _COUNTS(data, 6)
    first, _, at = question
    hosts = [first]
    known = {first}
    targets: list[str] = []
    aliases: dict[str, str] = {}
    beside: list[tuple[str, bytes]] = []
    tails: dict[int, _Tail] = {}
    four = six = b""
    ttl = leads = _MOST_TTL
    service = False
    size = len(data)
    labels = 0
    for number in range(answers + authorities + additionals):
        begin = at
        at = _behind(data, at)
        kind, _, life, length = _RECORD(data, at)
        start = at + 10
        at = start + length
        if at > size:
            raise WireError
        if kind not in _LEADING or answers <= number < answers + authorities:
            continue
        if len(hosts) + len(targets) + len(beside) > MOST_NAMES or labels > MOST_LABELS:
            raise WireError
        # Of thousands of records that lead nowhere, each might have a name that takes long to read.
        is_first = data[begin] == 0xC0 and data[begin + 1] == HEADER
        owner = first
        if not is_first:
            owner = _name(data, begin, tails)[0]
            labels += owner.count(".") + 1
        if life < ttl:
            ttl = life
        elif life >= _MOST_TTL:
            ttl = 0
        if number >= answers and owner not in known:
            if (kind == A and length == 4) or (kind == AAAA and length == 16):
                beside.append((owner, data[start:at]))
            elif kind in _SERVICES:
                service = True
                beside.append((owner, b""))
            if owner not in targets:
                continue
        elif owner != first:
            hosts.append(owner)
            known.add(owner)
        if kind == A:
            if length == 4:
                four += data[start:at]
        elif kind == AAAA:
            if length == 16:
                six += data[start:at]
        elif kind in _SERVICES:
            service = True
            leads = min(leads, life)
            target, behind = _name(data, start + 2, tails)
            labels += target.count(".") + 1
            targets.append(target)
            hint4, hint6 = _hints(data, behind, at)
            four += hint4
            six += hint6
        else:
            leads = min(leads, life)
            target, _ = _name(data, start, tails)
            labels += target.count(".") + 1
            if owner not in known:
                targets.append(target)
                continue
            hosts.append(target)
            known.add(target)
            if kind == CNAME:
                aliases[owner] = target
    return Scan(
        # In the order they come, and each once.
        (first,) if len(hosts) == 1 else tuple(dict.fromkeys(hosts)),
        tuple(dict.fromkeys(targets)),
        _chain(first, aliases) if aliases else (first,),
        four,
        six,
        tuple(beside),
        ttl if ttl < _MOST_TTL else 0,
        service,
        leads if leads < _MOST_TTL else 0,
    )


def services(data: bytes, question: Question) -> set[bytes]:
    """The contents of a message's HTTPS and SVCB records, of its answer and additional sections.

    No name in them is compressed (RFC 9460 section 2.2); where one is, the content is like no other.

    Args:
        data: that `scan` can read.
        question: of it.
    """
    answers, authorities, additionals = _COUNTS(data, 6)
    found, at = set(), question.end
    for number in range(answers + authorities + additionals):
        at = _behind(data, at)
        kind, _, _, length = _RECORD(data, at)
        start = at + 10
        at = start + length
        if kind in _SERVICES and not answers <= number < answers + authorities:
            found.add(data[start - 10 : start - 8] + data[start:at])
    return found


def addresses_alone(data: bytes, question: Question) -> list[int] | None:
    """Where the records begin of an answer that has nothing but addresses of the name in question, and EDNS.

    Most are like that; all others are for dnspython, which takes a hundred times as long.

    Args:
        data: that `scan` can read.
        question: of it.

    Returns:
        The offset of each address record, whose name is a pointer of 2 bytes; None for any other answer.
    """
    count, authorities, additionals = _COUNTS(data, 6)
    if data[2] & _OPCODE or data[4:6] != b"\0\1" or not count or authorities or additionals > 1:
        return None
    found, at = [], question.end
    for _ in range(count):
        kind, class_, life, length = _RECORD(data, at + 2)
        if data[at : at + 2] != _FIRST or class_ != 1 or life >= _MOST_TTL or _SIZES.get(kind) != length:
            return None
        found.append(at)
        at += 12 + length
    if additionals:
        if data[at : at + 3] != b"\0\0\x29" or data[at + 5]:
            return None  # or the rest of a code
        at += _OPT_SIZE + _SHORT(data, at + 9)[0]
    return found if at == len(data) else None


def contents(data: bytes, records: list[int]) -> list[bytes]:
    """The addresses of an answer as of `addresses_alone`."""
    return [data[at + 12 : at + 12 + data[at + 11]] for at in records]


def shortened(data: bytes, records: list[int], most: int) -> bytes:
    """An answer as of `addresses_alone` with times of so many seconds at most, and one for all."""
    changed = bytearray(data)
    life = min(most, *(_LIFE(data, at + 6)[0] for at in records)).to_bytes(4)
    for at in records:
        changed[at + 6 : at + 10] = life
    return bytes(changed)


def spelt_out(data: bytes, question: Question, records: list[int]) -> bytes:
    """An answer as of `addresses_alone` in which nothing is compressed."""
    name = data[HEADER : question.end - 4]
    ends = (*records[1:], records[-1] + 12 + _SHORT(data, records[-1] + 10)[0])
    parts = [name + data[at + 2 : end] for at, end in zip(records, ends, strict=True)]
    return b"".join((data[: question.end], *parts, data[ends[-1] :]))


def records_in(data: bytes) -> int:
    """How many records a message says that it has."""
    return sum(_COUNTS(data, 6))


def weight(data: bytes, question: Question) -> int:
    """How much there is to all names of a message for who takes it apart as dnspython does: the squares of
    their numbers of labels.

    Args:
        data: that `scan` can read.
        question: of it.

    Raises:
        WireError: a name cannot be read.
    """
    known: dict[int, int] = {}
    total, at = 0, question.end
    try:
        for _ in range(records_in(data)):
            labels, at = _labels(data, at, known)
            total += labels**2
            kind, _, _, length = _RECORD(data, at)
            at += 10
            if kind in _NAMES_IN:
                start, names = _NAMES_IN[kind]
                start += at
                for _ in range(names):
                    labels, start = _labels(data, start, known)
                    total += labels**2
            elif kind not in _NAMELESS:
                total += _MOST_POINTERS**2  # whatever there is
            at += length
    except (IndexError, struct.error) as e:
        raise WireError from e
    return total


def _labels(data: bytes, at: int, known: dict[int, int]) -> tuple[int, int]:
    """The number of labels of the name at an offset, and the offset behind it.

    Args:
        data: the message.
        at: the offset.
        known: the same of names that pointers lead to; it is added to.
    """
    end, limit = _behind(data, at), at
    labels = before = pointers = 0
    pointer = -1
    while length := data[at]:
        if length >= 192:
            target = (length & 63) << 8 | data[at + 1]
            pointers += 1
            if target >= limit or pointers > _MOST_POINTERS:
                raise WireError
            if target in known:
                labels += known[target]
                break
            if pointer < 0:
                pointer, before = target, labels
            limit = at = target
            continue
        labels += 1
        at += length + 1
    if labels > _MOST_POINTERS:
        raise WireError
    if pointer >= 0:
        known[pointer] = labels - before
    return labels, end


def host_of(name: bytes) -> str:
    """The host that a name in wire format is, as `Scan.hosts` has it."""
    return _name(name, 0)[0]


def _chain(first: str, aliases: dict[str, str]) -> tuple[str, ...]:
    """The hosts that a name leads to by aliases, each followed once."""
    chain = [first]
    while chain[-1] in aliases:
        chain.append(aliases.pop(chain[-1]))
    return tuple(chain)


def _hints(data: bytes, at: int, end: int) -> tuple[bytes, bytes]:
    """The ipv4hint and ipv6hint of service parameters (RFC 9460 section 7.3)."""
    found = {_HINT4: b"", _HINT6: b""}
    while at + 4 <= end:
        key, length = _PAIR(data, at)
        at += 4
        if key in found and at + length <= end:
            found[key] += data[at : at + length]
        at += length
    four, six = found.values()
    return four[: len(four) & ~3], six[: len(six) & ~15]


def _behind(data: bytes, at: int) -> int:
    """The offset behind a name, which is not read."""
    while length := data[at]:
        if length >= 64:
            return at + 2  # a pointer; what is none, and the name is wanted, is told by `_name`
        at += length + 1
    return at + 1


def _name(data: bytes, at: int, tails: dict[int, "_Tail"] | None = None) -> tuple[str, int]:
    """The host at an offset, and the offset behind it; pointers lead back only, so each name ends.

    Args:
        data: the message.
        at: the offset.
        tails: what pointers of other names have led to, which need not be read again; it is added to.
    """
    labels: list[bytes] = []
    behind = 0
    limit = at
    size = pointers = 0
    pointer = -1
    before = (0, 0, 0)
    while True:
        length = data[at]
        at += 1
        if length < 64:
            if not length:
                break
            size += length + 1
            if size > _MOST_NAME:
                raise WireError
            label = data[at : at + length]
            if len(label) != length:
                raise WireError
            labels.append(label)
            at += length
        elif length >= 192:
            target = (length & 63) << 8 | data[at]
            pointers += 1
            if target >= limit or pointers > _MOST_POINTERS:
                raise WireError
            if not behind:
                behind = at + 1
                pointer, before = target, (size, pointers, len(labels))
            if tails is not None and (tail := tails.get(target)) is not None:
                size += tail.size
                pointers += tail.pointers
                if size > _MOST_NAME or pointers > _MOST_POINTERS:
                    raise WireError
                labels += tail.labels
                break
            limit = at = target
        else:
            raise WireError
    if tails is not None and pointer >= 0 and pointer not in tails:
        tails[pointer] = _Tail(size - before[0], pointers - before[1], labels[before[2] :])
    name = b".".join(labels)
    if name.count(b".") != len(labels) - 1 or not _HOST(name):
        # What it is below may be listed.
        name = b".".join(label if _HOST(label) and b"." not in label else b"_" for label in labels)
    return name.lower().decode("latin-1"), behind or at


class _Tail(NamedTuple):
    """End of a name that a pointer leads to.

    Attributes:
        size: bytes of its labels, each with its length.
        pointers: that are in it.
        labels: of it.
    """

    size: int
    pointers: int
    labels: list[bytes]


LONGEST = 0xFFFF
"""Bytes of a message."""


def framed(message: bytes) -> bytes:
    """A message with its length prefix, for a stream."""
    return len(message).to_bytes(2) + message


class StreamMessages:
    """Splitter of a stream into messages, each made when it is asked for: a piece of the stream may have
    100,000 of them."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    @property
    def begun(self) -> bool:
        """Whether part of a message has arrived, or a whole one that has not been taken."""
        return self._at < len(self._data)

    @property
    def whole(self) -> bool:
        """Whether there is a message to be taken."""
        return self._end() <= len(self._data)

    def add(self, data: bytes) -> None:
        """Add what has arrived."""
        self._data, self._at = self._data[self._at :] + data, 0

    def take(self) -> bytes | None:
        """The next message; None where none is whole."""
        data, start, end = self._data, self._at + 2, self._end()
        if end > len(data):
            return None
        self._at = end
        if end == len(data):
            self.clear()
        return data[start:end]

    def clear(self) -> None:
        """Forget what has not been taken."""
        self._data, self._at = b"", 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that these bytes complete."""
        self.add(data)
        while (message := self.take()) is not None:
            yield message

    def _end(self) -> int:
        """Where the next message ends, or more than there is."""
        data, at = self._data, self._at
        if len(data) < at + 2:
            return at + 2
        return at + 2 + (data[at] << 8 | data[at + 1])
