"""Processes beside the filter: what they are told on standard input, and how they write their log."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urlward.config import Config, read_config
from urlward.lines import say
from urlward.lists.state import state_folder


def read_asked(asked: Mapping[str, Any]) -> tuple[Config, Path]:
    """The configuration that a process is to go by, and its state folder.

    Args:
        asked: ``config``, a file; and where they go before what stands there ``key`` and ``state``.

    Raises:
        ConfigError: it cannot be used.
        StateError: nor the folder.
    """
    config = read_config(Path(asked["config"]))
    if asked.get("key"):
        config = config.model_copy(update={"key": asked["key"]})
    return config, state_folder(asked.get("state") or config.state)


class Lines(logging.Handler):
    """One line a message, as the filter writes them: to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        say(record.getMessage().split("\n", 1)[0], warning=record.levelno >= logging.WARNING)
