"""Listed networks and addresses, as commands that put them into the kernel's sets.

Tens of thousands of them take the kernel a third of a second, in which nothing else of its rules can
change. So that workers do not all do it, and a reload that leaves them alone does nothing, the table
says which ones it holds: by a digest, in the comment of a rule that no packet meets.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any

from urlward.gateway.steerable import NAT64
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

_A_COMMAND = 2_000
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
            starts = range(0, len(keys), _A_COMMAND)
            commands += [_add(name, keys[i : i + _A_COMMAND]) for i in starts]
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
