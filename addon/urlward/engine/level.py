"""How much of a host is listed, for those who see no more than its name: DNS, before any request."""

from collections.abc import Iterable
from itertools import islice
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
    li = place.list
    if li.pages_only_block:
        return True, False
    blocks = allows = False
    seen = 0
    for shape in islice(li.shapes_below(place.letters, place.below), LOOK):
        seen += 1
        if shape.is_over(now) or (place.subdomains and not shape.flags & Flag.SUBDOMAINS):
            continue
        if shape.allow:
            allows = True
        else:
            blocks = True
        if blocks and allows:
            break
    return (True, True) if seen == LOOK else (blocks, allows)
