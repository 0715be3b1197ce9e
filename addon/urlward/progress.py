"""Progress bar for work that takes a while."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

type Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is, from 0 to 1."""

_BETWEEN = 0.25
"""Seconds between two times that it is drawn."""


def silent(what: str, share: float) -> None:
    """Progress that nobody watches."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Progress bar on standard error, where that is a terminal and the work takes over a second.

    It is drawn when it is told something, without a thread of its own: processes may be forked meanwhile.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True), transient=True, auto_refresh=False, redirect_stdout=False)
    task = bar.add_task("", total=1.0)
    drawn = time.monotonic() + 1 - _BETWEEN
    before = 0.0

    def tell(what: str, share: float) -> None:
        nonlocal drawn, before
        now = time.monotonic()
        if now - drawn < _BETWEEN or share >= 1:
            return
        drawn = now
        bar.start()
        if share < before:
            bar.reset(task)  # other work has begun
        before = share
        bar.update(task, description=escape(what), completed=share)
        bar.refresh()

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
