"""Refreshes of feeds that the dashboard starts."""

import logging
import threading
from collections import Counter
from pathlib import Path

from urlward.config import Config, FeedTable
from urlward.engine.errors import UrlwardError
from urlward.feeds.apart import refresh_apart

logger = logging.getLogger("urlward.records")


class Refreshes:
    """Refreshes of feeds in threads of their own; their results are in the feeds' facts, as those of any
    refresh.

    Args:
        config: of the feeds.
        state: the state folder.
    """

    def __init__(self, config: Config, state: Path) -> None:
        self._config = config
        self._state = state
        self._begun: Counter[str] = Counter()
        self._counting = threading.Lock()

    def begin(self, feed: FeedTable) -> str:
        """Start a refresh of the feed, after any that is under way; returns what to say of it."""
        with self._counting:
            # One that waits for its turn will do what is asked for.
            if self._begun[feed.name] > 1:
                return f"{feed.name}: about to be fetched already"
            self._begun[feed.name] += 1
        threading.Thread(target=self._refresh, args=(feed,), name=f"refresh {feed.name}", daemon=True).start()
        return f"{feed.name}: being fetched"

    def _refresh(self, feed: FeedTable) -> None:
        try:
            refresh_apart(feed, self._config, self._state, wait=True)
        except UrlwardError as e:
            logger.error("list %s: %s", feed.name, e)
        except Exception as e:  # noqa: BLE001 - its text could name an entry
            logger.error("list %s: a bug: %s", feed.name, type(e).__name__)
        finally:
            with self._counting:
                self._begun[feed.name] -= 1
