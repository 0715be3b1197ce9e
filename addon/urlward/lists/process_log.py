"""How a process beside the filter writes its log."""

import logging
import sys
from typing import TextIO


class Lines(logging.Handler):
    """One line a message, as the filter writes them: to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        stream: TextIO = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            stream.write(record.getMessage().split("\n", 1)[0] + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # nobody reads any more
