"""``[probing]``: detection of clients that probe the block list, and the action against them."""

from typing import Annotated

from pydantic import Field

from urlward.config.tables import Seconds, Table


class ProbingTable(Table):
    """``[probing]``: limits by which probing is detected, and the action.

    Attributes:
        entries: different ones that a client may draw block pages for within `window`.
        window: seconds.
        slow: whether a client that draws more is slowed.
        rate: requests a second that one which is slowed may make.
    """

    entries: Annotated[int, Field(ge=2, le=10_000)] = 50
    window: Annotated[Seconds, Field(ge=1, le=24 * 3600)] = 600.0
    slow: bool = False
    rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=False)] = 1.0
