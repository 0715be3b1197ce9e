"""Checking a URL in the recorder, which filters nothing itself: lists are loaded when somebody asks."""

import threading
import time
from pathlib import Path

from urlward.config import Config
from urlward.lists.check_commands import Checker
from urlward.lists.files import Signature
from urlward.lists.keeper import Keeper
from urlward.lists.policy import Policy
from urlward.lists.report import read_budget
from urlward.lists.setup import make_keeper, make_neighbours, make_policy
from urlward.lists.state import state_folder
from urlward.records.admin.sources import Row
from urlward.samples import SAMPLE

FORGET = 300.0
"""Seconds without a question after which the lists' memory is given back."""

_ALLOWS = "allows.json"

type _Seen = tuple[Signature | None, ...]


class Checks:
    """Answers as the filter would. May be asked from several threads.

    Args:
        config: the filter's.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._paths = [Path(path) for path in config.list] or ([] if config.feed else [SAMPLE])
        self._lock = threading.Lock()
        self._loaded: tuple[_Seen, Keeper, Policy | None] | None = None
        self._forget: threading.Timer | None = None

    def check(self, url: str, client: str, at: float | None) -> Row:
        """As ``urlward check --explain --json`` has it.

        Raises:
            UrlwardError: a list is bad.
        """
        now = time.time() if at is None else at
        with self._lock:
            keeper, policy = self._in_force()
            checker = Checker(keeper.matcher, policy, client, now)
            found = checker.check(url)
            if "error" not in found:
                explanation, protected = checker.explain(url)
                found["explanation"] = {**explanation.as_json(), "protected": protected}
        return found

    def close(self) -> None:
        """Give the lists' memory back."""
        with self._lock:
            self._loaded = None
            if self._forget is not None:
                self._forget.cancel()

    def _in_force(self) -> tuple[Keeper, Policy | None]:
        config = self._config
        state = state_folder(config.state) if config.feed or config.state else None
        if self._loaded is None or self._loaded[0] != self._seen(self._loaded[1], state):
            self._loaded = None  # not both in memory at a time
            key = Path(config.key) if config.key else None
            budget = read_budget(config.max_errors, "max_errors")
            keeper = make_keeper(self._paths, config, key_file=key, trust=config.trust, budget=budget)
            seen = self._seen(keeper, state)
            keeper.load()
            neighbours = make_neighbours(config)
            if neighbours is not None:
                neighbours.refresh()
            self._loaded = seen, keeper, make_policy(config, keeper, neighbours)
        if self._forget is not None:
            self._forget.cancel()
        self._forget = threading.Timer(FORGET, self.close)
        self._forget.daemon = True
        self._forget.start()
        return self._loaded[1:]

    def _seen(self, keeper: Keeper, state: Path | None) -> _Seen:
        paths = [file.path for file in keeper.files]
        return tuple(Signature.of(path) for path in [*paths, *([state / _ALLOWS] if state else [])])
