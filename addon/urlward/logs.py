"""Log handler of the processes beside the filter."""

import logging

from urlward.lines import say


class LineHandler(logging.Handler):
    """Log handler with one line a message, as the filter writes them: to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        say(record.getMessage().split("\n", 1)[0], warning=record.levelno >= logging.WARNING)
