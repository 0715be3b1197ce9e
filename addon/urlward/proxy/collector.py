"""Garbage collector of a worker, run in place of Python's own schedule.

What a connection makes is freed by reference counting (`urlward.proxy.session`), so there is next to nothing
to collect. But Python looks for it whenever some thousand objects have been made, among all that have been
made lately: with 77,000 requests under way that is a pause of 5 to 25 ms for all clients several times a
second, and of 200 ms now and then. Here it is looked for when there may be as much garbage as there is of
use: when the number of objects has doubled, and is beyond what the connections that there are have use for.
"""

import asyncio
import gc
from collections.abc import Callable
from typing import Final

FEW: Final = 20_000
"""Objects by which it has to grow in any case: what is looked through in some milliseconds."""

OF_ONE: Final = 500
"""Objects that a connection may have made; one with `MAX_PENDING` requests under way has (`proxy.relay`)."""

MANY: Final = 4_000_000
"""Objects beyond which it is looked for whatever the number of connections."""

INTERVAL: Final = 0.25
"""Seconds between two looks at their number."""


async def collect(connections: Callable[[], int]) -> None:
    """Collect until cancelled; what there is before stays for good, and is not looked through again.

    Args:
        connections: how many there are.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        alive = 0
        while True:
            await asyncio.sleep(INTERVAL)
            # Those made since the last time and not freed: no other collection makes any of them older.
            if gc.get_count()[0] >= max(min(FEW + OF_ONE * connections(), MANY), alive):
                gc.collect()
                alive = len(gc.get_objects())
    finally:
        gc.enable()
