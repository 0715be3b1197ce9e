"""Asking for a refresh of a feed, which is done in a process of its own.

That process fetches, reads, compiles and writes, and ends (`urlward.lists.feed_refresh`): whoever asks for it
is told how it went, and never has a byte of a body.
"""

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from urlward.config import Config, FeedTable
from urlward.lists.build import Progress, silent
from urlward.lists.feed_store import BusyError
from urlward.lists.memory import ChangingError
from urlward.lists.state import StateError
from urlward.lists.worker import ask

logger = logging.getLogger("urlward.lists")

MODULE = "urlward.lists.feed_refresh"
"""What the process of a refresh runs."""


class Own(NamedTuple):
    """What a list that the operator names on the command line has beyond other feeds (`urlward.lists.own`).

    Attributes:
        path: of it.
        name: that its text is compiled with.
        secret: its key, in hexadecimal; of a text and of artifacts.
        first: whether nothing of it is in force yet, so that nothing is there to go by either.
    """

    path: str
    name: str
    secret: str
    first: bool


class Outcome(NamedTuple):
    """How a refresh went.

    Attributes:
        state: ``new`` where another list is in force, ``failed`` where the last good one had to stay.
        text: what to say of it, without the feed's name.
        next_run: when the feed is to be asked next, seconds since 1970-01-01 UTC.
        reason, error: of a failure, in a word and in a sentence.
    """

    state: Literal["new", "unchanged", "failed"]
    text: str
    next_run: float
    reason: str = ""
    error: str = ""


def refresh_apart(
    feed: FeedTable,
    config: Config,
    state: Path,
    *,
    wait: bool = True,
    own: Own | None = None,
    progress: Progress = silent,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> Outcome:
    """Refresh a feed once, in a process of its own.

    Args:
        feed: which.
        config: the rest of the configuration.
        state: the state folder.
        wait: while another process is at it.
        own: where the list is one.
        progress: told how far it is; then somebody waits for it, so that it goes before other work.
        started: called with the process, which may be killed.

    Raises:
        BusyError: another process is at it.
        ChangingError: the list changes each time that it is read.
        StateError: the state folder cannot be used, or its key.
    """
    request = {
        "feed": feed.model_dump(mode="json"),
        # All else that matters to a feed.
        "key": config.key,
        "max_errors": config.max_errors,
        "state": str(state),
        "wait": wait,
        "own": own,
        "progress": progress is not silent,
        "at_once": own is not None and own.first,
    }

    def heard(what: str | int, said: Any) -> None:
        if isinstance(what, int):
            logger.log(what, "%s", said)
        else:
            progress(what, said)

    try:
        answer = ask(MODULE, request, heard, started, computes=feed.path is not None)
    except OSError as e:
        # What it needs would make each process that asks larger and slower to start.
        from urlward.lists.feed_refresh import not_refreshed

        return not_refreshed(feed, config, state, e, own)
    if "busy" in answer:
        raise BusyError(answer["busy"])
    if "changing" in answer:
        raise ChangingError(answer["changing"])
    if "fault" in answer:
        raise StateError(answer["fault"])
    return Outcome(**answer)
