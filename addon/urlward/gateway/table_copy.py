"""Copy of the table ``inet urlward`` with the content of its sets, kept from the kernel's messages.

It begins with a look (`TableCopy.read`), follows the kernel's notifications (`TableCopy.apply`), and gives
the messages that make the table anew (`TableCopy.messages`). What a message has of handles and counts is
left out; all else goes back to the kernel as it came, so nothing here knows what rules mean.
"""

import errno
import struct
from collections.abc import Iterator
from time import monotonic

from urlward.gateway.netlink import (
    APPEND,
    CREATE,
    DUMP,
    INET,
    OURS,
    TIMEOUT,
    Message,
    MessageKind,
    Netlink,
    attribute,
    attributes,
    ends_interval,
    nest,
    only,
    pieces,
    set_elements,
    text,
    text_of,
)
from urlward.gateway.table import ALIVE, CONTESTED, LISTED, LISTED_DIGEST, SETUP, TABLE, NftError, Setup

_A_MESSAGE = 60_000
"""Bytes of elements in one; an attribute has 65,535 at most."""

_TIMEOUT_FLAG, _EVAL_FLAG = 0x10, 0x20
_FLAGS, _DORMANT_FLAG = 2, 0x1
_OF_TABLE = (1, _FLAGS)
"""Name and flags."""

_OF_CHAIN = (1, 3, 4, 5, 7, 12)
"""Table, name, hook, policy, type, user data."""

_OF_SET = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18)
"""Table, name, flags, types and lengths, policy, description, times, user data, expressions."""

_OF_RULE = (1, 2, 4, 7)
"""Table, chain, expressions, user data."""

_ELEMENT = 0x8000 | 1
_HEAD, _NUMBER = struct.Struct("=HH"), struct.Struct("!Q")
_TIMEOUT_HEAD = _HEAD.pack(12, TIMEOUT)
_EXPRESSIONS = 4
_EXTHDR_FLAGS, _EXTHDR_SREG = 5, 7
_COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT: of libnftables, in a rule's user data."""

_TRIES, _EXACT_TRIES = 50, 5

_SOON = 2.0
"""Seconds by which two ways to the same time may differ."""

NEVER = float("inf")

_OF_ELEMENTS = MessageKind.NEWSETELEM, MessageKind.DELSETELEM


class TableCopy:
    """Copy of the table.

    Attributes:
        elements: by set and key, until when each stays, by the clock of `monotonic`.
    """

    def __init__(self) -> None:
        self._table = b""
        self._chains: dict[str, bytes] = {}
        self._sets: dict[str, tuple[bytes, int]] = {}
        """Definition and flags of each set."""
        self._rules: dict[str, dict[int, bytes]] = {}
        """Rules by chain and handle, in order."""
        self.elements: dict[str, dict[bytes, float]] = {}
        self._more: dict[str, dict[bytes, bytes]] = {}
        """User data that libnftables keeps with an element."""

    def __bool__(self) -> bool:
        """Whether the table exists."""
        return bool(self._table)

    @classmethod
    def read(cls, netlink: Netlink) -> "tuple[TableCopy, int]":
        """Read the table from the kernel; returns the generation that was read as well.

        Where others change something all the time, in whichever table, the elements of large sets may be of
        later ones: what is notified of those from the returned one on says the same once more.

        Raises:
            NftError: the rules change all the time.
            OSError: the kernel refuses.
        """
        for tried in range(_TRIES):
            before = netlink.generation()
            made, enough = cls(), False
            try:
                made._read_structure(netlink)
                enough = tried >= _EXACT_TRIES and netlink.generation() == before
                made._read_elements(netlink)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EINTR):
                    raise
                made, enough = cls(), False
            if enough or netlink.generation() == before:
                return made, before
        raise NftError("nftables: the rules change faster than they can be read")

    def _read_structure(self, netlink: Netlink) -> None:
        named = text(1, TABLE)
        for message in netlink.ask(MessageKind.GETTABLE, named):
            self.apply(message)
        for kind in (MessageKind.GETCHAIN, MessageKind.GETSET, MessageKind.GETRULE):
            for message in netlink.ask(kind, named, DUMP):
                if is_ours(message):
                    self.apply(message)

    def _read_elements(self, netlink: Netlink) -> None:
        for name in self._sets:
            for message in netlink.ask(MessageKind.GETSETELEM, text(1, TABLE) + text(2, name), DUMP):
                self.apply(message)

    # -- following

    def apply(self, message: Message, *, elements: bool = True, structure: bool = True) -> None:
        """Apply a notification from the kernel.

        Args:
            message: a notification or an answer.
            elements: whether those of sets are followed.
            structure: whether the table, chains, sets and rules are.
        """
        kind, body = message.kind, message.body
        if kind in _OF_ELEMENTS:
            if elements:
                self._apply_elements(body, new=kind == MessageKind.NEWSETELEM)
            return
        found = dict(attributes(body))
        if kind == MessageKind.DELSET and elements:
            self.elements.pop(text_of(found[2]), None)
            self._more.pop(text_of(found[2]), None)
        if structure:
            self._apply_structure(kind, body, found, elements=elements)

    def _apply_structure(self, kind: int, body: bytes, found: dict[int, bytes], *, elements: bool) -> None:
        if kind == MessageKind.NEWTABLE:
            self._table = only(body, _OF_TABLE)
        elif kind == MessageKind.DELTABLE:
            self._table = b""
            for each in (self._chains, self._sets, self._rules):
                each.clear()
            if elements:
                self.elements.clear()
                self._more.clear()
        elif kind == MessageKind.NEWCHAIN:
            self._chains[text_of(found[3])] = only(body, _OF_CHAIN)
        elif kind == MessageKind.DELCHAIN:
            self._chains.pop(text_of(found[3]), None)
            self._rules.pop(text_of(found[3]), None)
        elif kind == MessageKind.NEWSET:
            flags = struct.unpack("!I", found[3])[0] if 3 in found else 0
            self._sets[text_of(found[2])] = only(body, _OF_SET), flags
        elif kind == MessageKind.DELSET:
            self._sets.pop(text_of(found[2]), None)
        elif kind == MessageKind.NEWRULE:
            handle = struct.unpack("!Q", found[3])[0]
            self._rules.setdefault(text_of(found[2]), {})[handle] = _rule(body)
        elif kind == MessageKind.DELRULE:
            self._rules.get(text_of(found[2]), {}).pop(struct.unpack("!Q", found[3])[0], None)

    def _apply_elements(self, body: bytes, *, new: bool) -> None:
        name, now = _set_of(body), monotonic()
        if name != ALIVE and self._sets.get(name, (b"", 0))[1] & _EVAL_FLAG:
            return  # filled by packets alone, for seconds
        its = self.elements.setdefault(name, {})
        for key, left, more in set_elements(body):
            if not new:
                its.pop(key, None)
                continue
            its[key] = NEVER if left is None else now + left / 1000
            if more:
                self._more.setdefault(name, {})[key] = more
            elif name in self._more:
                self._more[name].pop(key, None)

    def drop_old(self) -> None:
        """Remove expired elements; the kernel sends no notification of those."""
        now = monotonic()
        for name, its in self.elements.items():
            if self._sets.get(name, (b"", 0))[1] & _TIMEOUT_FLAG:
                more = self._more.get(name, {})
                for key in [key for key, until in its.items() if until <= now]:
                    del its[key]
                    more.pop(key, None)

    # -- looking

    def same_as(self, other: "TableCopy") -> bool:
        """Whether both have the same chains, rules and sets."""
        mine, its = self._structure(), other._structure()
        return mine == its

    def _structure(self) -> tuple[object, ...]:
        rules = {chain: list(some.values()) for chain, some in self._rules.items() if some}
        return self._table, self._chains, {name: one for name, (one, _) in self._sets.items()}, rules

    def lacks(self, other: "TableCopy") -> bool:
        """Whether another copy has elements that this lacks, or others in sets of the configuration."""
        now = monotonic() + _SOON
        for name, its in other.elements.items():
            mine = self.elements.get(name, {})
            if any(key not in mine and until > now for key, until in its.items()):
                return True
        return any(
            key not in other.elements.get(name, {})
            for name, its in self.elements.items()
            if not self.is_filled(name)
            for key in its
        )

    def awaken(self) -> bool:
        """Take the flag away with which no packet comes to the table; returns whether it was there."""
        flags = dict(attributes(self._table)).get(_FLAGS, b"")
        dormant = bool(flags) and bool(int.from_bytes(flags) & _DORMANT_FLAG)
        if dormant:
            self._table = only(self._table, (1,)) + attribute(_FLAGS, bytes(4))
        return dormant

    def may_grow(self, name: str) -> bool:
        """Whether anybody may put elements into a set: those that come with a time filter more, not less."""
        return bool(self._sets.get(name, (b"", 0))[1] & (_TIMEOUT_FLAG | _EVAL_FLAG))

    def is_filled(self, name: str) -> bool:
        """Whether a set is filled by workers, and not by the configuration."""
        return self.may_grow(name) or name in LISTED

    def stays(self, name: str, key: bytes) -> bool:
        """Whether an element exists and has not expired."""
        return self.elements.get(name, {}).get(key, 0.0) > monotonic()

    def has(self, name: str) -> bool:
        """Whether a set has an element that has not expired."""
        now = monotonic()
        return any(until > now for until in self.elements.get(name, {}).values())

    @staticmethod
    def emptied(name: str) -> tuple[MessageKind, int, bytes]:
        """Message that removes all elements of a set."""
        return MessageKind.DELSETELEM, 0, text(1, TABLE) + text(2, name)

    def setups(self) -> dict[int, bytes]:
        """The rules that state the setup, by handle; another handle means another `gateway up`."""
        return dict(self._rules.get(SETUP, {}))

    @property
    def keeps_source(self) -> bool:
        """Whether the rules were made with `keep_source`."""
        return any(
            setup is not None and setup.source == "kept" for setup in map(_setup_of, self.setups().values())
        )

    @property
    def steers(self) -> bool:
        """Whether the rules lead what is listed alone to the filter, so that the rest is routed."""
        return any(setup is not None and setup.dns for setup in map(_setup_of, self.setups().values()))

    @property
    def redirects(self) -> bool:
        """Whether the rules redirect (`Setup.redirects`); they may where they do not say."""
        return any(setup is None or setup.redirects for setup in map(_setup_of, self.setups().values()))

    def take_structure(self, other: "TableCopy", *, same: bool = False) -> None:
        """Take over the table, chains, sets and rules of another copy.

        Args:
            other: whose.
            same: whether it is the same but for handles; otherwise those elements alone stay that workers
                have put into sets, and what the configuration fills is empty.
        """
        self._table, self._chains, self._sets = other._table, dict(other._chains), dict(other._sets)
        self._rules = {chain: dict(some) for chain, some in other._rules.items()}
        gone = [name for name in self.elements if name not in self._sets or not self.is_filled(name)]
        for name in gone if not same else ():
            del self.elements[name]
            self._more.pop(name, None)

    def take_digest(self, other: "TableCopy") -> None:
        """Take over the digest rule of listed networks from another copy, where this has none."""
        if LISTED_DIGEST in self._chains and not self._rules.get(LISTED_DIGEST):
            self._rules[LISTED_DIGEST] = dict(other._rules.get(LISTED_DIGEST, {}))

    def take_elements(self, other: "TableCopy") -> None:
        """Add the elements of another copy's sets."""
        for name, its in other.elements.items():
            if name in self._sets:
                mine = self.elements.setdefault(name, {})
                mine.update((key, max(until, mine.get(key, 0.0))) for key, until in its.items())
                self._more.setdefault(name, {}).update(other._more.get(name, {}))

    # -- making it anew

    def messages(self, contested: float = 0.0) -> list[tuple[MessageKind, int, bytes]]:
        """Netlink messages that replace the kernel's table with this one, in one transaction.

        Args:
            contested: seconds for which the table says that another hand keeps removing it.
        """
        made = [
            (MessageKind.NEWTABLE, CREATE, self._table),
            (MessageKind.DELTABLE, 0, only(self._table, (1,))),
            (MessageKind.NEWTABLE, CREATE, self._table),
        ]
        made += [(MessageKind.NEWCHAIN, CREATE, chain) for chain in self._chains.values()]
        numbered = enumerate(self._sets.values(), 1)
        made += [
            (MessageKind.NEWSET, CREATE, one + attribute(10, struct.pack("!I", n)))
            for n, (one, _) in numbered
        ]
        now = monotonic()
        for name in self._sets:
            some = self.elements.get(name, {})
            if name == CONTESTED and contested:
                some = {_CONTESTED_KEY: now + contested}
            made += [(MessageKind.NEWSETELEM, CREATE, body) for body in self._chunks(name, some, now)]
        for rules in self._rules.values():
            made += [(MessageKind.NEWRULE, CREATE | APPEND, rule) for rule in rules.values()]
        return made

    def _chunks(self, name: str, some: dict[bytes, float], now: float) -> Iterator[bytes]:
        named = text(1, TABLE) + text(2, name)
        more = self._more.get(name, {})
        timed = self._sets[name][1] & _TIMEOUT_FLAG
        parts: list[bytes] = []
        size, pack = 0, _NUMBER.pack
        # Where one interval ends and the next begins, the end is to come first.
        wanted = [one for one in some.items() if one[1] > now]
        if not timed:
            wanted.sort(key=_order)
        elif (room := _size_of(self._sets[name][0])) and len(wanted) > room:
            wanted = sorted(wanted, key=_until)[-room:]
        for key, until in wanted:
            element = key + more[key] if key in more else key
            if until != NEVER:
                element += _TIMEOUT_HEAD + pack(max(round((until - now) * 1000), 1))
            size += len(element) + 4
            if size > _A_MESSAGE:
                yield named + nest(3, b"".join(parts))
                parts, size = [], len(element) + 4
            parts += _HEAD.pack(len(element) + 4, _ELEMENT), element
        if parts:
            yield named + nest(3, b"".join(parts))


def contested_for(seconds: float) -> Iterator[list[tuple[MessageKind, int, bytes]]]:
    """Messages that mark the table as contested for so long: where it is marked already, and where not."""
    named = text(1, TABLE) + text(2, CONTESTED)
    until = _TIMEOUT_HEAD + _NUMBER.pack(round(seconds * 1000))
    old = MessageKind.DELSETELEM, 0, named + nest(3, nest(1, _CONTESTED_KEY))
    new = MessageKind.NEWSETELEM, CREATE, named + nest(3, nest(1, _CONTESTED_KEY + until))
    yield [old, new]
    yield [new]


def _rule(body: bytes) -> bytes:
    """Definition of a rule. A rule that sets a TCP option is shown with flags, and refused with them."""
    made = b""
    for kind, piece in pieces(body):
        if kind == _EXPRESSIONS and b"exthdr\0" in piece:
            made += nest(kind, b"".join(nest(1, _expression(value)) for _, value in attributes(piece[4:])))
        elif kind in _OF_RULE:
            made += piece
    return made


def _expression(data: bytes) -> bytes:
    found = dict(attributes(data))
    values = dict(attributes(found.get(2, b"")))
    if text_of(found[1]) != "exthdr" or _EXTHDR_SREG not in values:
        return data
    return only(data, (1,)) + nest(2, only(found[2], set(values) - {_EXTHDR_FLAGS}))


def is_ours(message: Message) -> bool:
    """Whether a message concerns the table."""
    return message.family == INET and message.body.startswith(OURS)


def is_structure(message: Message) -> bool:
    """Whether a message concerns the table, a chain, a set, a rule, or what ours never has, such as a named
    counter; otherwise it concerns elements of a set."""
    return message.kind not in _OF_ELEMENTS


def elements_of(message: Message) -> tuple[str, list[bytes]]:
    """The set and the keys in a notification about elements."""
    return _set_of(message.body), [key for key, _, _ in set_elements(message.body)]


def begins_anew(message: Message) -> bool:
    """Whether a message adds the rule that states the setup, as complete rules do."""
    if message.kind != MessageKind.NEWRULE:
        return False
    return (
        text_of(dict(attributes(message.body)).get(2, b"")) == SETUP and _setup_of(message.body) is not None
    )


def _setup_of(rule: bytes) -> Setup | None:
    """The setup in a rule's comment, if it has one."""
    data, at = dict(attributes(rule)).get(7, b""), 0
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == _COMMENT:
            try:
                return Setup.parse(text_of(data[at + 2 : at + 2 + length]))
            except ValueError:
                return None
        at += 2 + length
    return None


def _set_of(body: bytes) -> str:
    return next(text_of(value) for kind, value in attributes(body) if kind == 2)


def _size_of(made: bytes) -> int:
    """Maximum size of a set; 0 for any."""
    description = next((value for kind, value in attributes(made) if kind == 9), b"")
    size = next((value for kind, value in attributes(description) if kind == 1), b"")
    return struct.unpack("!I", size)[0] if size else 0


def _until(element: tuple[bytes, float]) -> float:
    return element[1]


def _order(element: tuple[bytes, float]) -> tuple[bytes, bool]:
    return dict(attributes(element[0])).get(1, b""), not ends_interval(element[0])


_CONTESTED_KEY = nest(1, attribute(1, bytes([6])))
