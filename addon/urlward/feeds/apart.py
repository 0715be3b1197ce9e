"""Start of a feed's refresh in a process of its own.

That process fetches, reads, compiles and writes, and ends (`urlward.feeds.refresh`): whoever asks for it
is told how it went, and never has a byte of a body.
"""

import logging
import random as random_module
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from urlward.feeds.alarms import alarms
from urlward.feeds.facts import Facts
from urlward.feeds.guards import ACCEPTABLE
from urlward.feeds.schedule import LONGEST, Random, after_failure, after_success
from urlward.feeds.store import FEEDS, LISTS, BusyError, FeedStore
from urlward.lists.memory import ChangingError
from urlward.lists.worker import ask
from urlward.progress import Progress, silent
from urlward.state.folder import StateError

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable

logger = logging.getLogger("urlward.lists")

MODULE = "urlward.feeds.refresh"
"""What the process of a refresh runs."""


class Own(NamedTuple):
    """Request fields for a list named on the command line (`urlward.feeds.own`), beyond those of other feeds.

    Attributes:
        path: of it.
        name: that its text is compiled with.
        secret: its key, in hexadecimal; of a text and of artifacts.
        trust: public keys and files of who may sign artifacts; not every file's name is text for a feed's.
        first: whether nothing of it is in force yet, so that nothing is there to go by either.
    """

    path: str
    name: str
    secret: str
    trust: Sequence[str]
    first: bool


class Outcome(NamedTuple):
    """Outcome of a refresh.

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
    feed: "FeedTable",
    config: "Config",
    state: Path,
    *,
    wait: bool = True,
    own: Own | None = None,
    turns: int | None = None,
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
        turns: memory file by which refreshes take turns (`urlward.feeds.turns`), if they do.
        progress: told how far it is; then somebody waits for it, so that it goes before other work.
        started: called with the process, which may be killed.

    Raises:
        BusyError: another process is at it.
        ChangingError: the list changes each time that it is read.
        StateError: the state folder cannot be used, or its key.
    """
    request = request_for(feed, config, state, wait=wait, own=own, progress=progress is not silent)
    passed = [] if turns is None else [turns]

    def heard(what: str | int, said: Any) -> None:
        if isinstance(what, int):
            logger.log(what, "%s", said)
        else:
            progress(what, said)

    try:
        answer = ask(
            MODULE, {**request, "turns": turns}, heard, started, computes=feed.path is not None, passed=passed
        )
    except OSError as e:
        return _not_done(feed, state, e, own)
    if "busy" in answer:
        raise BusyError(answer["busy"])
    if "changing" in answer:
        raise ChangingError(answer["changing"])
    if "fault" in answer:
        raise StateError(answer["fault"])
    return Outcome(**answer)


def request_for(
    feed: "FeedTable", config: "Config", state: Path, *, wait: bool, own: Own | None, progress: bool
) -> dict[str, Any]:
    """What the process is asked, which knows neither configuration nor its defaults."""
    return {
        "feed": {**feed.model_dump(mode="json"), "stale_limit": feed.stale_limit},
        # All else that matters to a feed.
        "key": config.key,
        "max_errors": config.max_errors,
        "state": str(state),
        "wait": wait,
        "own": own,
        "progress": progress,
        "at_once": own is not None and own.first,
    }


def _not_done(feed: "FeedTable", state: Path, error: OSError, own: Own | None) -> Outcome:
    """Record in the facts that the process has failed."""
    store = FeedStore(state, feed.name, FEEDS if own is None else LISTS)
    with store.locked():
        now, facts, header = time.time(), store.facts(), store.header()
        facts.since, facts.last_attempt = facts.since or now, now
        text = error.strerror or type(error).__name__
        outcome = failure(feed, facts, now, "system", text, own=own, has_list=header is not None)
        facts.alarms = alarms(feed, facts, header, now)
        store.write_facts(facts)
    return outcome


def failure(
    feed: "FeedTable",
    facts: Facts,
    now: float,
    reason: str,
    error: str,
    *,
    own: Own | None,
    has_list: bool,
    refused: bool = False,
    retry_after: float | None = None,
    random: Random = random_module.random,
) -> Outcome:
    """Record a failure in a feed's facts.

    Args:
        feed: whose.
        facts: what is remembered.
        now: seconds since 1970-01-01 UTC.
        reason, error: in a word and in a sentence.
        own: where the list is one.
        has_list: whether one is in force.
        refused: whether a body was there, which will be no better in a moment.
        retry_after: seconds that the server wants to be left alone.
        random: for the next run's jitter.
    """
    if own is not None and not error.startswith(own.path):
        error = f"{own.path}: {error}"
    facts.failures += 1
    facts.reason, facts.error = reason, error
    facts.not_before = now + min(retry_after, LONGEST) if retry_after else 0.0
    if refused:
        facts.next_run = after_success(now, feed.interval, feed.jitter, random)
    else:
        facts.next_run = after_failure(
            now, feed.interval, feed.jitter, random, failures=facts.failures, retry_after=retry_after
        )
    stays = "the last good one stays in force" if has_list else "there is no list yet"
    hint = f"; `urlward feeds accept {feed.name}` lets it through once" if reason in ACCEPTABLE else ""
    return Outcome("failed", f"{reason}: {error}; {stays}{hint}", facts.next_run, reason, error)
