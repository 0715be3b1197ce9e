"""Logs of the processes beside the filter: their handler, and for whoever looks for a fault the last lines
of one and its threads' stacks.
"""

import logging
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from urlward.engine.dates import time_text
from urlward.lines import say


class LineHandler(logging.Handler):
    """Log handler with one line a message, as the filter writes them: to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        say(record.getMessage().split("\n", 1)[0], warning=record.levelno >= logging.WARNING)


MOST = 1_000
"""Log lines that are kept."""


class LastLines(logging.Handler):
    """Log handler that keeps the last lines, in memory alone."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=MOST)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        text = record.getMessage().split("\n", 1)[0]
        self._lines.append(f"{time_text(record.created)} {record.levelname} {record.name}: {text}")

    def lines(self) -> list[str]:
        """The lines that are kept, the oldest first."""
        with self.lock or threading.Lock():
            return list(self._lines)


last_lines = LastLines()
"""Those of this process."""


def inside() -> dict[str, Any]:
    """Log lines, and the stack of each thread: places in the code alone, no value."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = [
        {
            "thread": names.get(ident, ""),
            "stack": [
                f"{Path(place.filename).stem}:{place.lineno} {place.name}"
                for place in traceback.extract_stack(frame, limit=40)
            ],
        }
        for ident, frame in sys._current_frames().items()
    ]
    return {"time": time_text(time.time()), "log": last_lines.lines(), "threads": stacks}
