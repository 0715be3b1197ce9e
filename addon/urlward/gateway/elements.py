"""Elements of the kernel's sets, with timeouts."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from time import monotonic

from urlward.gateway.errors import NoTableError
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import Address
from urlward.gateway.table import FAMILY_AND_NAME

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
