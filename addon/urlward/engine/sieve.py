"""Sieve: a cheap first test whether a host, or a segment of a path, could be listed at all.

Nearly every request is for something that no entry comes near, and keyed digests are dear where a
request must cost a microsecond. The sieve is a table of plain CRC-32 values with false positives and
no false negatives: what falls through goes on to the automaton and the digests, which alone decide.

CRC-32 is not keyed, so a sieve would answer a dictionary attack. In an artifact it is sealed under
the key; in memory it stands beside the key.
"""

import struct
from collections.abc import Iterable, KeysView, Sequence
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from urlward.engine.errors import ArtifactError
from urlward.engine.url import PLAIN_LABELS, is_plain_host

if TYPE_CHECKING:
    from array import array

_HEAD = struct.Struct("<III")
_BITS_PER_HOST = 16
_SPREAD = 0x9E3779B1
_MOST = 1 << 18
"""Names or segments that are kept; with more, all are let through."""

_LONG_HOST = 253
_MOST_QUIET = 1 << 12
MOST_RECENT = 1 << 15
"""Hosts of which it is noted what is listed on them."""


class Sieve(NamedTuple):
    """Sieve of hosts, names and path segments that could be listed.

    Attributes:
        bits: one bit a slot, a power of two of them; a host has two, made of its CRC-32.
        names: CRC-32 of the label next to the suffix, of entries for a name under any suffix; None for all.
        segments: CRC-32 of the first segment of path sequences; None for all.
    """

    bits: memoryview
    names: KeysView[int] | None
    segments: KeysView[int] | None

    def may_list_name(self, host: str) -> bool:
        """False where no entry is for a name that is one of the labels of a canonical host."""
        names = self.names
        return names is None or not names.isdisjoint(map(crc32, host.encode().split(b".")))


class Sieves[State]:
    """Sieves of several lists, asked at once.

    Args:
        sieves: in any order.
        recent: where it is noted of a host that nothing could be listed on it; emptied when full.
        nothing: what is noted.

    Attributes:
        quiet: last labels of hosts, with the dot in front, none of which could be listed.
    """

    __slots__ = ("_nothing", "_recent", "_sieves", "quiet")

    def __init__(self, sieves: Iterable[Sieve], recent: dict[str, State], nothing: State) -> None:
        self._sieves = [(sieve.bits, len(sieve.bits) * 8 - 1, sieve.names) for sieve in sieves]
        self._recent, self._nothing = recent, nothing
        self.quiet: set[bytes] = set()

    def are_quiet(self, host: str) -> bool:
        """Whether a name, as sent, is a plain one (`is_plain_host`), and nothing could be listed on it."""
        if len(host) > _LONG_HOST:
            return False
        try:
            domain = host.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which no wire carries
            return False
        sieves, quiet = self._sieves, self.quiet
        if domain.translate(PLAIN_LABELS) != domain:
            return False
        while True:
            at = domain.find(b".")
            if at < 0:
                at = len(domain)
            if not at:
                return False
            # A CRC-32 goes on from that of what is in front.
            above = domain[at:]
            name = crc32(domain[:at])
            value = crc32(above, name)
            for bits, mask, names in sieves:
                # As `may_list_domain`, without the calls.
                slot = value & mask
                if bits[slot >> 3] >> (slot & 7) & 1:
                    slot = _second(value) & mask
                    if bits[slot >> 3] >> (slot & 7) & 1:
                        return False
                if names is None or name in names:
                    return False
            if above in quiet:
                break
            if not above:
                if not is_plain_host(host):
                    return False
                if len(quiet) >= _MOST_QUIET:
                    quiet.clear()
                quiet.add(b"." + domain)
                break
            domain = above[1:]
        # Noted here, since a call for it would be a tenth of all that a new host costs.
        recent = self._recent
        if len(recent) >= MOST_RECENT:
            recent.clear()
        recent[host] = self._nothing
        return True


def may_list_domain(bits: Sequence[int], value: int) -> bool:
    """False where a sieve's bits say that no entry is on the domain with this CRC-32 itself."""
    mask = len(bits) * 8 - 1
    return all(bits[slot >> 3] >> (slot & 7) & 1 for slot in (value & mask, _second(value) & mask))


def _second(value: int) -> int:
    """A second slot from the same CRC-32 (multiplicative hashing)."""
    return value * _SPREAD >> 7


def write_sieve(hosts: "array[int]", names: Iterable[int], segments: Iterable[int]) -> bytes:
    """Make a sieve's bytes from CRC-32 values; the same values in any order give the same bytes."""
    size = 1 << max(8, (len(hosts) * _BITS_PER_HOST).bit_length())
    bits = bytearray(size >> 3)
    mask = size - 1
    for value in hosts:
        slot, second = value & mask, _second(value) & mask
        bits[slot >> 3] |= 1 << (slot & 7)
        bits[second >> 3] |= 1 << (second & 7)
    names, segments = sorted(set(names)), sorted(set(segments))
    packed = (struct.pack(f"<{len(numbers)}I", *numbers) for numbers in (names, segments))
    return b"".join([_HEAD.pack(len(bits), len(names), len(segments)), bits, *packed])


def read_sieve(data: bytes) -> Sieve:
    """Undo `write_sieve`.

    Raises:
        ArtifactError: not one.
    """
    try:
        size, names, segments = _HEAD.unpack_from(data)
    except struct.error as e:
        raise ArtifactError("its sieve does not have the size it says") from e
    if len(data) != _HEAD.size + size + 4 * (names + segments) or not size or size & (size - 1):
        raise ArtifactError("its sieve does not have the size it says")
    at = _HEAD.size + size
    behind = at + 4 * names
    # A view: a copy of so much that is freed at once is room that the allocator does not give back.
    return Sieve(memoryview(data)[_HEAD.size : at], _values(data[at:behind]), _values(data[behind:]))


def _values(packed: bytes) -> KeysView[int] | None:
    count = len(packed) // 4
    if count > _MOST:
        return None
    # A dictionary of as many takes half the memory of a set.
    return dict.fromkeys(struct.unpack(f"<{count}I", packed)).keys()
