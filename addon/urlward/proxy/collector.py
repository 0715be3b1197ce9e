"""Garbage collector of a worker, run in place of Python's own schedule.

What a connection makes is freed by reference counting (`urlward.proxy.session`), so there is next to nothing
to collect. But Python looks for it whenever some thousand objects have been made, among all that have been
made lately: with hundreds of thousands of requests under way that is a pause of 10 to 200 ms for all clients,
many times a second. Here it is looked for when there may be as much garbage as there is of use: when the
number of objects has doubled.
"""

import asyncio
import gc
from typing import Final

FEW: Final = 20_000
"""Objects by which it has to grow in any case: what is looked through in some milliseconds."""

INTERVAL: Final = 0.25
"""Seconds between two looks at their number."""


async def collect() -> None:
    """Collect until cancelled; what there is before stays for good, and is not looked through again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        alive = 0
        while True:
            await asyncio.sleep(INTERVAL)
            # Those made since the last time and not freed: no other collection makes any of them older.
            if gc.get_count()[0] >= max(FEW, alive):
                gc.collect()
                alive = len(gc.get_objects())
    finally:
        gc.enable()
