"""Slow work, done side by side."""

import threading
import time
from collections.abc import Callable, Mapping


def together[T](parts: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T]:
    """Do all parts at a time, each in a thread that nobody waits for beyond the time, not even at the end.

    Args:
        parts: by name; they raise nothing.
        seconds: that all of them have.

    Returns:
        Results of those that were done in time.
    """
    found: dict[str, T] = {}

    def do(name: str) -> None:
        found[name] = parts[name]()

    threads = [threading.Thread(target=do, args=(name,), daemon=True) for name in parts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {name: found[name] for name in parts if name in found}
