"""Elements of the kernel's sets, with a time to stay."""

from collections.abc import Iterable, Sequence
from time import monotonic

from urlward.gateway.errors import ExistsError, NoTableError
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import Address
from urlward.gateway.table import FAMILY_AND_NAME

type Element = tuple[str, Address | int]
"""A set's name, and a key in it."""


def renew(nft: Nft, elements: Iterable[Element], seconds: int) -> None:
    """Add elements, with a time that begins now.

    Adding an element again does not renew it, except on the newest kernels; and what is deleted must be
    there. All three in one transaction: packets see either the old or the new one.

    Raises:
        NftError: the kernel refused; nothing has changed.
    """
    by_set = _by_set(elements)
    add = _adding("add", by_set, seconds)
    delete = [f"delete element {_named(name)} {{ {', '.join(keys)} }}" for name, keys in by_set.items()]
    commands = "\n".join((*add, *delete, *add))
    try:
        nft.run(commands)
    except NoTableError:
        # An element whose time is up between its addition and its deletion, on older kernels.
        nft.run(commands)


def lengthen(nft: Nft, elements: Sequence[Element], seconds: int, more: int) -> dict[Element, float]:
    """Add elements, or give them more time, but never less: another process may have promised more.

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
    asked = monotonic()
    try:
        nft.run("\n".join(_adding("create", _by_set(elements), seconds + more)))
    except ExistsError:
        left = {(name, key): nft.left(f"{_named(name)} {{ {key} }}") for name, key in elements}
    else:
        return dict.fromkeys(elements, asked + seconds + more)
    short = [element for element, remaining in left.items() if remaining < seconds]
    if short:
        renew(nft, short, seconds + more)
        left |= dict.fromkeys(short, seconds + more)
    return {element: asked + remaining for element, remaining in left.items()}


def _adding(how: str, by_set: dict[str, list[str]], seconds: int) -> list[str]:
    timed = {name: [f"{key} timeout {seconds}s" for key in keys] for name, keys in by_set.items()}
    return [f"{how} element {_named(name)} {{ {', '.join(keys)} }}" for name, keys in timed.items()]


def _by_set(elements: Iterable[Element]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in elements:
        found.setdefault(name, []).append(str(key))
    return found


def _named(name: str) -> str:
    return f"{FAMILY_AND_NAME} {name}"
