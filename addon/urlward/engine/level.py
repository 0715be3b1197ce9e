"""Level of a host: how much of it is listed, for those who see only its name (DNS, TLS before requests)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from urlward.engine.hosts import HostState, Place
from urlward.engine.record import Flag, Shape

Level = Literal["", "below", "whole"]
"""``whole``: every request to the host is blocked; ``below``: some may be; empty: none by an entry on it."""

LOOK = 256
"""Rows below a host that are looked at for what they say; beyond, they may say anything."""


def level_of(state: HostState, floating: Iterable[Shape], now: float) -> Level:
    """The level of a host.

    Args:
        state: of the host.
        floating: shapes of the ``@@`` path sequences, which hold on any host.
        now: seconds since 1970-01-01 UTC, for entries that expire.
    """
    blocks_all = blocks_some = excuses = False
    for rule in state.rules:
        shape = rule.shape
        if shape.is_over(now):
            continue
        if shape.allow and not shape.port and not rule.list.guarded:
            return ""  # whatever is listed below
        if shape.allow:
            excuses = True
        elif shape.port:
            blocks_some = True
        else:
            blocks_all = True
    for place in state.places:
        if blocks_some and (excuses or not blocks_all):
            break
        blocks, allows = _below(place, now)
        blocks_some, excuses = blocks_some or blocks, excuses or allows
    if not blocks_all:
        return "below" if blocks_some else ""
    return "below" if excuses or not all(shape.is_over(now) for shape in floating) else "whole"


def _below(place: Place, now: float) -> tuple[bool, bool]:
    """Whether any entry in force on a place blocks, and whether any allows."""
    if place.list.pages_only_block:
        return True, False
    blocks = allows = False
    for shape in _shapes(place):
        if shape is None:
            return True, True
        if shape.is_over(now):
            continue
        if shape.allow:
            allows = True
        else:
            blocks = True
        if blocks and allows:
            break
    return blocks, allows


def is_below(place: Place, ports: Sequence[int], now: float) -> bool:
    """Whether any entry on a place is in force for one of these ports (`Shape.is_for`), or may be.

    Dear only where the first of them are not.
    """
    return not place.list.pages_end or any(
        shape is None or shape.is_for(ports, now) for shape in _shapes(place)
    )


def _shapes(place: Place) -> Iterator[Shape | None]:
    """Shapes of the rows on a place; None where they are too many to look at all."""
    for seen, shape in enumerate(place.list.shapes_below(place.letters, place.below), 1):
        if not place.subdomains or shape.flags & Flag.SUBDOMAINS:
            yield shape
        if seen == LOOK:
            yield None
            return
