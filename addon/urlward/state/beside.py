"""Common parts of the processes that run apart from the filter: their input and their log."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urlward.config import Config, read_config
from urlward.lines import say
from urlward.state.folder import state_folder


def read_asked(asked: Mapping[str, Any]) -> tuple[Config, Path]:
    """Read the configuration that a process is started with, and find its state folder.

    Args:
        asked: ``config``, a file; and where they go before what stands there ``key``, ``state``, ``list``,
            ``trust`` and ``max_errors``.

    Raises:
        ConfigError: it cannot be used.
        StateError: nor the folder.
    """
    config = read_config(Path(asked["config"]))
    config = config.model_copy(
        update={name: asked[name] for name in ("key", "max_errors") if asked.get(name)}
        | {name: tuple(asked[name]) for name in ("list", "trust") if name in asked}
    )
    return config, state_folder(asked.get("state") or config.state)


class LineHandler(logging.Handler):
    """Log handler with one line a message, as the filter writes them: to standard error from WARNING on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        say(record.getMessage().split("\n", 1)[0], warning=record.levelno >= logging.WARNING)
