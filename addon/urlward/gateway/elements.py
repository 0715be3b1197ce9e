"""Elements of the kernel's sets: single ones with timeouts, and all listed networks and addresses.

Tens of thousands of listed ones take the kernel a third of a second, in which nothing else of its rules can
change. So that workers do not all do it, and a reload that leaves them alone does nothing, the table
says which ones it holds: by a digest, in the comment of a rule that no packet meets.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_ntop
from time import monotonic
from typing import Any

from urlward.gateway.errors import NoTableError
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import NAT64, Address
from urlward.gateway.table import (
    BOTH_PROTOCOLS,
    CUT_FOR,
    CUT_LISTED,
    FAMILY_AND_NAME,
    LISTED,
    LISTED_DIGEST,
)

type Range = tuple[int, int]
"""First and last address."""

_LISTED_A_COMMAND = 2_000
_NAT64 = int(NAT64.network_address)


class Listed:
    """Intended content of the sets of listed networks.

    Args:
        networks: in any order; they may overlap.
        cut: whether open connections to them end.
    """

    def __init__(self, networks: Iterable[str], *, cut: bool) -> None:
        four, six = [], []
        for text in networks:
            network = ip_network(text, strict=False)
            first = int(network.network_address)
            last = first + network.num_addresses - 1
            if network.version == 4:
                four.append((first, last))
                # A client in an IPv6-only network reaches it under another address.
                six.append((_NAT64 + first, _NAT64 + last))
            else:
                six.append((first, last))
        self._keys = (
            [_text(AF_INET, 4, one) for one in merged(four)],
            [_text(AF_INET6, 16, one) for one in merged(six)],
        )
        self._cut = cut
        content = "\n".join([str(cut), *self._keys[0], *self._keys[1]])
        self.digest = blake2b(content.encode(), digest_size=16).hexdigest()

    def commands(self) -> str:
        """One transaction that replaces the sets' content."""
        commands = [f"flush set {FAMILY_AND_NAME} {name}" for name in (*LISTED, CUT_LISTED)]
        for name, keys in zip(LISTED, self._keys, strict=True):
            starts = range(0, len(keys), _LISTED_A_COMMAND)
            commands += [_add(name, keys[i : i + _LISTED_A_COMMAND]) for i in starts]
        if self._cut:
            both = (f"{protocol} timeout {CUT_FOR}s" for protocol in BOTH_PROTOCOLS)
            commands.append(_add(CUT_LISTED, both))
        chain = f"{FAMILY_AND_NAME} {LISTED_DIGEST}"
        commands += (f"flush chain {chain}", f'add rule {chain} return comment "{self.digest}"')
        return "\n".join(commands)


def digest_of(listing: list[dict[str, Any]]) -> str:
    """The digest in a listing of the chain `LISTED_DIGEST`, or an empty string."""
    return next((one["rule"].get("comment", "") for one in listing if "rule" in one), "")


def merged(ranges: list[Range]) -> Iterator[Range]:
    """The same addresses in the fewest ranges, in order."""
    ranges.sort()
    pending: Range | None = None
    for first, last in ranges:
        if pending is None:
            pending = first, last
        elif first <= pending[1] + 1:
            pending = pending[0], max(pending[1], last)
        else:
            yield pending
            pending = first, last
    if pending is not None:
        yield pending


def _text(family: int, size: int, one: Range) -> str:
    first, last = (inet_ntop(family, end.to_bytes(size)) for end in one)
    return first if first == last else f"{first}-{last}"


def _add(name: str, keys: Iterable[str]) -> str:
    return f"add element {FAMILY_AND_NAME} {name} {{ {', '.join(keys)} }}"


_A_COMMAND = 250
"""Elements in one, where there may be many."""

type Element = tuple[str, Address | int]
"""A set's name, and a key in it."""


def renew(nft: Nft, elements: Iterable[Element], seconds: int) -> None:
    """Add elements, with a timeout that starts now.

    Adding an element again does not renew it, except on the newest kernels; and what is deleted must be
    there. All three in one transaction: packets see either the old or the new one.

    Raises:
        NftError: the kernel refused; nothing has changed.
    """
    by_set = _by_set(elements)
    add = [f"add element {_named(name)} {{ {_timed(keys, seconds)} }}" for name, keys in by_set.items()]
    delete = [f"delete element {_named(name)} {{ {', '.join(keys)} }}" for name, keys in by_set.items()]
    commands = "\n".join((*add, *delete, *add))
    try:
        nft.run(commands)
    except NoTableError:
        # An element whose time is up between its addition and its deletion, on older kernels.
        nft.run(commands)


def lengthen(nft: Nft, elements: Sequence[Element], seconds: int, more: int) -> dict[Element, float]:
    """Add elements or lengthen their timeout, but never shorten it: another process may have promised more.

    Args:
        nft: the kernel.
        elements: of any sets.
        seconds: for which each must stay.
        more: that each gets beyond, where it is added or needs more.

    Returns:
        Until when each stays, by the clock of `monotonic`.

    Raises:
        NftError: as `renew`.
    """
    with nft.turn():
        asked = monotonic()
        left = {(name, key): nft.left(name, _packed(key)) for name, key in elements}
        short = [element for element, remaining in left.items() if remaining < seconds]
        if short:
            renew(nft, short, seconds + more)
            left |= dict.fromkeys(short, seconds + more)
    return {element: asked + remaining for element, remaining in left.items()}


def evict(nft: Nft, name: str, count: int, most: int, size: int) -> tuple[int, bool]:
    """Make room in a set: the elements that would stay for the shortest time are removed.

    Args:
        nft: the kernel.
        name: of the set.
        count: for how many there is to be room.
        most: seconds; what stays for longer is left.
        size: how many the set may hold.

    Returns:
        How many have gone, and whether there is room now: others may have made it meanwhile.

    Raises:
        NftError: as `renew`.
    """
    held = sorted(nft.each(name))
    needed = max(len(held) + count - size, 0)
    old = [key for until, key in held[:needed] if until <= most]
    stayed = 0
    for i in range(0, len(old), _A_COMMAND):
        with nft.turn():
            # Another process may have promised more meanwhile.
            left = {key: nft.left(name, key) for key in old[i : i + _A_COMMAND]}
            stayed += sum(one > most for one in left.values())
            keys = [str(ip_address(key)) for key, one in left.items() if 0 < one <= most]
            try:
                if keys:
                    nft.run(f"delete element {_named(name)} {{ {', '.join(keys)} }}")
            except NoTableError:
                for key in keys:
                    with suppress(NoTableError):  # its time was up meanwhile
                        nft.run(f"delete element {_named(name)} {{ {key} }}")
    gone = len(old) - stayed
    return gone, len(held) - gone < size


def _timed(keys: Iterable[str], seconds: int) -> str:
    return ", ".join(f"{key} timeout {seconds}s" for key in keys)


def _by_set(elements: Iterable[Element]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in elements:
        found.setdefault(name, []).append(str(key))
    return found


def _packed(key: Address | int) -> bytes:
    return bytes([key]) if isinstance(key, int) else key.packed


def _named(name: str) -> str:
    return f"{FAMILY_AND_NAME} {name}"
