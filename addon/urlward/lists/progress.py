"""A progress bar for work that takes a while."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urlward.lists.build import Progress, silent


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """One on standard error, where that is a terminal and the work takes over a second."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    start = time.monotonic()
    bar = Bar(console=Console(stderr=True), transient=True, refresh_per_second=4, redirect_stdout=False)
    tasks: dict[str, Any] = {}

    def tell(what: str, share: float) -> None:
        if what not in tasks:
            if time.monotonic() - start < 1 or share >= 1:
                return
            bar.start()
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=share)

    try:
        yield tell
    finally:
        if tasks:
            bar.stop()
