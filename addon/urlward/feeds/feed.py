"""Feed: where a list comes from, and its refresh in a process of its own.

Every list is one: a table of the configuration, or a path that the operator names (`--list`), which has no
schedule. That process fetches, reads, compiles and writes, and ends (`urlward.feeds.refresh`): whoever asks
for it is told how it went, and never has a byte of a body.
"""

import logging
import random as random_module
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from urlward.engine.artifact import VERSION
from urlward.engine.digest import Key
from urlward.feeds.guards import ACCEPTABLE
from urlward.feeds.schedule import LONGEST, Random, after_failure, after_success
from urlward.feeds.source import recipe, text_key
from urlward.feeds.status import alarms
from urlward.feeds.store import FEEDS, LISTS, BusyError, Facts, FeedStore
from urlward.lists.build import name_of
from urlward.lists.source import ChangingError, ErrorBudget
from urlward.lists.worker import ask
from urlward.progress import Progress, silent
from urlward.state.folder import StateError, other_owner

if TYPE_CHECKING:
    import subprocess

    from urlward.config import Config, FeedTable

logger = logging.getLogger("urlward.lists")

MODULE = "urlward.feeds.refresh"
"""What the process of a refresh runs."""

NO_STATE = "state"
"""Reason of a failure that is the state folder's, such as a full disk, and not the list's."""

_MOST = 1 << 50
"""Times its entries that a list may grow, bytes that it may have and seconds that it may stay as it is, of
lists whose size and age are the operator's business."""


class Own(NamedTuple):
    """Request fields for a list that the operator names, beyond those of other feeds: the operator vouches
    for its size, a text may be where signed artifacts are trusted, and what is said of it names its path.

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
    first: bool = False


class Outcome(NamedTuple):
    """Outcome of a refresh.

    Attributes:
        state: ``new`` where another list is in force, ``failed`` where the last good one had to stay.
        text: what to say of it, without the feed's name.
        next_run: when the feed is to be asked next, seconds since 1970-01-01 UTC; 0 for no set time.
        reason, error: of a failure, in a word and in a sentence; no reason where its facts do not have it.
    """

    state: Literal["new", "unchanged", "failed"]
    text: str
    next_run: float
    reason: str = ""
    error: str = ""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """As the process has told it, which after an upgrade may be of a later release, and tell more."""
        return cls(**{name: answer[name] for name in cls._fields if name in answer})


class Feed:
    """Feed and its store.

    Args:
        table: its configuration.
        config: the rest of the configuration.
        state: the folder that the store is in.
        own: where the operator names the list.

    Attributes:
        name: of it in the log.
        path: that it is read from; None where a server has it.
        store: has its artifact.
    """

    def __init__(self, table: "FeedTable", config: "Config", state: Path, own: Own | None = None) -> None:
        self.table = table
        self.own = own
        self.name = table.name if own is None else own.path
        path = table.path if own is None else own.path
        self.path = None if path is None else Path(path)
        self.store = FeedStore(state, table.name, FEEDS if own is None else LISTS)
        self._config = config
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    @classmethod
    def named(
        cls,
        path: Path,
        key: Key,
        budget: ErrorBudget,
        format: str,  # noqa: A002 - the word
        trust: Sequence[str],
        state: Path,
    ) -> Self:
        """Make the feed of a list that the operator names.

        Args:
            path: of it.
            key: of its text, and of artifacts.
            budget: of bad lines.
            format: of its text, one of `urlward.lists.formats.FORMATS`.
            trust: public keys and rotation statements of who may sign artifacts.
            state: the folder that the store is in.
        """
        from urlward.config import Config, FeedTable  # which the process that refreshes has no use for

        # All that the artifact depends on besides the file's content.
        recipe = f"{VERSION} {key.id.hex()} {budget} {format} {sorted(trust)} {path.absolute()}"
        mark = blake2b(recipe.encode(errors="surrogateescape"), key=key.secret, digest_size=8).hexdigest()
        table = FeedTable(
            name=f"list-{mark}",
            path=f"list-{mark}",  # not every path is text; `Own` has it
            format=format,
            max_errors=str(budget),
            max_shrink=1.0,
            max_grow=float(_MOST),
            max_size=_MOST,
            stale_after=float(_MOST),
        )
        own = Own(str(path), name_of(path), key.secret.hex(), tuple(trust))
        return cls(table, Config(), state, own)

    def has_moved(self, facts: Facts) -> bool:
        """Whether what is in force is of the feed as it was configured before, such as at another URL.

        Raises:
            StateError, KeyFileError: the key that texts are compiled under is not to be had.
        """
        return facts.are_of_another(recipe(self.table, text_key(self._config, self._state)))

    def refresh(
        self,
        *,
        wait: bool = True,
        first: bool = False,
        turns: int | None = None,
        progress: Progress = silent,
    ) -> Outcome:
        """Refresh the store once, in a process of its own, which is the state folder's owner's: what root may
        read and a service may not is read for none of its feeds, whoever has written their tables.

        Args:
            wait: while another process is at it.
            first: nothing of a list that the operator names is in force in this run.
            turns: memory file by which refreshes take turns (`urlward.feeds.schedule`), if they do.
            progress: told how far it is; then somebody waits for it, so that it goes before other work.

        Raises:
            BusyError: another process is at it.
            ChangingError: the list changes each time that it is read.
            StateError: the state folder cannot be used, or its key.
        """
        self._given_up = False

        def heard(what: str | int, said: Any) -> None:
            if isinstance(what, int):
                logger.log(what, "%s", said)
            else:
                progress(what, said)

        request = self.request(wait=wait, first=first, progress=progress is not silent)
        owner = other_owner(self._state)
        try:
            answer = ask(
                MODULE,
                {**request, "turns": turns},
                heard,
                self._started,
                computes=self.path is not None,
                passed=[] if turns is None else [turns],
                owner=owner,
            )
        except OSError as e:
            if owner is not None and isinstance(e, PermissionError):
                who = f"{self._state} belongs to {owner.name}, who may not start {sys.executable}"
                raise StateError(f"{who}: use the urlward of their service") from e
            return self._not_done(e)
        finally:
            self._process = None
        if "busy" in answer:
            raise BusyError(answer["busy"])
        if "changing" in answer:
            raise ChangingError(answer["changing"])
        if "fault" in answer:
            raise StateError(answer["fault"])
        return Outcome.of(answer)

    def attempt(self) -> Outcome:
        """Fetch and judge what it has, in a process of its own, and keep nothing of it.

        Raises:
            StateError: the state folder cannot be used, or its key.
        """
        request = self.request(wait=False, first=False, progress=False)
        try:
            answer = ask(
                MODULE, {**request, "attempt": True}, computes=self.path is not None,
                owner=other_owner(self._state),
            )  # fmt: skip
        except OSError as e:
            text = e.strerror or type(e).__name__
            return Outcome("failed", f"system: {text}", 0.0, "system", text)
        if "fault" in answer:
            raise StateError(answer["fault"])
        return Outcome.of(answer)

    def request(self, *, wait: bool, first: bool, progress: bool) -> dict[str, Any]:
        """What the process is asked, which knows neither configuration nor its defaults."""
        return {
            "feed": {**self.table.model_dump(mode="json"), "stale_limit": self.table.stale_limit},
            # All else that matters to a feed.
            "key": self._config.key,
            "text_key": None if self._config.publish is None else self._config.publish.key,
            "max_errors": self._config.max_errors,
            "nat64": self._config.gateway.nat64,
            "state": str(self._state),
            "wait": wait,
            "own": None if self.own is None else self.own._replace(first=first),
            "progress": progress,
            "at_once": first,
        }

    def give_up(self) -> None:
        """Stop a refresh that is under way."""
        self._given_up = True
        if self._process is not None:
            self._process.kill()

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        if self._given_up:
            process.kill()

    def _not_done(self, error: OSError) -> Outcome:
        """Record in the facts that the process has failed, unless it was given up."""
        text = error.strerror or type(error).__name__
        if self._given_up:
            return Outcome("failed", text, 0.0)
        with self.store.locked():
            now, facts, header = time.time(), self.store.facts(), self.store.header()
            facts.since, facts.last_attempt = facts.since or now, now
            outcome = failure(
                self.table, facts, now, "system", text, own=self.own, has_list=header is not None
            )
            facts.alarms = alarms(self.table, facts, header, now)
            self.store.write_facts(facts)
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
    if own is not None and reason not in ("system", NO_STATE):
        facts.next_run = 0.0  # until its path changes
    elif refused:
        facts.next_run = after_success(now, feed.interval, feed.jitter, random)
    else:
        failures = facts.failures if own is None else 1
        facts.next_run = after_failure(
            now, feed.interval, feed.jitter, random, failures=failures, retry_after=retry_after
        )
    stays = "the last good one stays in force" if has_list else "there is no list yet"
    hint = f"; `urlward feeds accept {feed.name} --why TEXT` takes it once" if reason in ACCEPTABLE else ""
    return Outcome("failed", f"{reason}: {error}; {stays}{hint}", facts.next_run, reason, error)
