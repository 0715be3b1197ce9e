"""Poll of a feed's artifact: its first bytes alone, every few seconds, so that a new one is seen at once.

The header of an artifact names its serial, and is replaced with it as a whole, so it is all the pointer that
a list needs. A server that has nothing new answers 304, without a body. What is new is fetched and judged by
an ordinary refresh (`urlward.feeds.refresh`); no list's text is ever asked for here.
"""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from urlward.engine.artifact import HEADER_SIZE, Header, read_header
from urlward.engine.errors import ArtifactError
from urlward.feeds.source import HEAD_ONLY, NO_VALIDATORS, FetchError, Validators, origin

if TYPE_CHECKING:
    from urlward.config import FeedTable

logger = logging.getLogger("urlward.lists")

MOST = 60.0
"""Seconds between two looks at most, at a server that fails or cannot be polled."""


class PollError(FetchError):
    """A server that cannot be polled for what is new."""


def peek(feed: "FeedTable", validators: Validators) -> tuple[Header | None, Validators]:
    """Ask for the header of a feed's artifact; None where it has not changed.

    Args:
        feed: whose.
        validators: of the last time.

    Raises:
        FetchError: there is none; `PollError` where what is there is none.
    """
    from urlward.feeds.fetch import fetch  # brings urllib3, which nothing else here needs

    source = replace(origin(feed), timeout=feed.connect_timeout, max_bytes=HEADER_SIZE)
    try:
        answer = fetch(source, validators, headers=HEAD_ONLY)
    except FetchError as e:
        if e.reason == "too-large":
            raise PollError("its server gives no parts of files", e.reason) from e
        raise
    if answer.fd is None:
        return None, answer.validators
    try:
        return read_header(os.pread(answer.fd, HEADER_SIZE, 0)), answer.validators
    except ArtifactError as e:
        raise PollError("what its server has is no artifact", "unsupported") from e
    finally:
        os.close(answer.fd)


async def poll(
    feed: "FeedTable",
    in_force: Callable[[], Header | None],
    ask: Callable[[], None],
    settled: Callable[[], Awaitable[None]],
) -> None:
    """Poll a feed until cancelled; a server that cannot be polled is tried seldom.

    What was there may have been a page of somebody else's (maintenance, a captive portal).

    Args:
        feed: with `poll`.
        in_force: gives the header of the artifact in force.
        ask: has the feed refreshed; once for a header, since what a refresh refuses is there at the next look
            too, and servers that share a name need not have validators in common.
        settled: waits for the end of a refresh that is under way, which may bring what was found.
    """
    assert feed.poll is not None
    validators, wait = NO_VALIDATORS, feed.poll
    asked: Header | None = None
    said = ""
    # Nodes that start together are not to ask together.
    await asyncio.sleep(wait * random.random())
    while True:
        await asyncio.sleep(wait * (0.9 + random.random() / 5))
        try:
            found, validators = await asyncio.to_thread(peek, feed, validators)
        except PollError as e:
            if said != str(e):
                logger.warning("list %s: poll: %s: it is looked at each interval alone", feed.name, e)
            said, validators, wait = str(e), NO_VALIDATORS, max(MOST, feed.poll)
            continue
        except FetchError:
            wait = min(2 * wait, max(MOST, feed.poll))  # its refreshes say what is wrong
            continue
        wait, said = feed.poll, ""
        if found is None or found in (asked, in_force()):
            continue
        await settled()
        if found != in_force():
            asked = found
            ask()
