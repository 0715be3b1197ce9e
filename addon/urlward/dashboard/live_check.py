"""URL checks in the recorder, which filters nothing itself: lists are loaded on demand."""

import threading
from pathlib import Path
from typing import NamedTuple

from urlward.config import Config
from urlward.dashboard.sources import Row
from urlward.feeds.keeper import Keeper
from urlward.feeds.setup import make_keeper, make_neighbours, make_policy
from urlward.lists.explain import Checker
from urlward.lists.formats import AUTO
from urlward.lists.source import read_budget
from urlward.policy.allows import current_allows
from urlward.policy.neighbours import Neighbours
from urlward.policy.policy import Policy
from urlward.samples import SAMPLE
from urlward.state.watch import Signature

FORGET = 300.0
"""Seconds without a question after which the lists' memory is given back."""

type _Seen = tuple[Signature | str | None, ...]


class _Loaded(NamedTuple):
    seen: _Seen
    keeper: Keeper
    neighbours: Neighbours | None
    policy: Policy | None


class Checks:
    """Checker of URLs as the filter decides. Thread-safe.

    Args:
        config: the filter's.
        state: the state folder.
        list_format: of the sources.
    """

    def __init__(self, config: Config, state: Path, list_format: str = AUTO) -> None:
        self._format = list_format
        self._config = config.model_copy(update={"state": str(state)})
        self._state = state
        self._paths = [Path(path) for path in config.list] or ([] if config.feed else [SAMPLE])
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._forget: threading.Timer | None = None

    def check(self, url: str, client: str, at: float | None, now: float) -> Row:
        """Check a URL; the result is as of ``urlward check --explain --json``.

        Args:
            url: as typed.
            client: address, or empty.
            at: seconds since 1970-01-01 UTC; None for now.
            now: likewise.

        Raises:
            UrlwardError: a list is bad.
        """
        with self._lock:
            loaded = self._in_force(now)
            if loaded.neighbours is not None:
                loaded.neighbours.refresh()
            checker = Checker(loaded.keeper.matcher, loaded.policy, client, now if at is None else at)
            found = checker.check(url)
            if "error" not in found:
                explanation, protected = checker.explain(url)
                found["explanation"] = {**explanation.as_json(), "protected": protected}
        return found

    def close(self) -> None:
        """Unload the lists."""
        with self._lock:
            self._loaded = None
            if self._forget is not None:
                self._forget.cancel()

    def _in_force(self, now: float) -> _Loaded:
        if self._loaded is None or self._loaded.seen != self._seen(self._loaded.keeper, now):
            self._loaded = None  # not both in memory at a time
            self._loaded = self._load(now)
        if self._forget is not None:
            self._forget.cancel()
        self._forget = threading.Timer(FORGET, self.close)
        self._forget.daemon = True
        self._forget.start()
        return self._loaded

    def _load(self, now: float) -> _Loaded:
        config = self._config
        key = Path(config.key) if config.key else None
        budget = read_budget(config.max_errors, "max_errors")
        keeper = make_keeper(
            self._paths, config, key_file=key, trust=config.trust, budget=budget, format=self._format
        )
        seen = self._seen(keeper, now)
        keeper.load()
        neighbours = make_neighbours(config)
        return _Loaded(seen, keeper, neighbours, make_policy(config, keeper, neighbours))

    def _seen(self, keeper: Keeper, now: float) -> _Seen:
        """Fingerprint that changes with the lists or the temporary allows."""
        files = (Signature.of(file.path) for file in keeper.files)
        return (*files, *(allow.id for allow in current_allows(self._state, now)))
