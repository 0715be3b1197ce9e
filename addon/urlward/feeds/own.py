"""Lists that the operator names (`--list`): feeds of a path, without a schedule.

It goes the way of every feed: a process that ends with its work reads and checks or compiles it, and puts an
artifact into a store, which filters look at. What it does not share with other feeds follows from `Own`: the
operator vouches for its size, a text may be where signed artifacts are trusted, and what is said of it names
its path.
"""

import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from urlward.config import Config, FeedTable
from urlward.engine.artifact import VERSION
from urlward.engine.digest import Key
from urlward.feeds.apart import Outcome, Own, refresh_apart
from urlward.feeds.store import LISTS, FeedStore
from urlward.lists.build import name_of
from urlward.lists.source import Budget
from urlward.progress import Progress, silent

_MOST = 1 << 50
"""Times its entries that a list may grow, and bytes that it may have: both are the operator's business."""


class OwnList:
    """List on the command line, and its store.

    Args:
        path: of it.
        key: of its text, and of artifacts.
        budget: of bad lines.
        format: of its text, one of `urlward.lists.formats.FORMATS`.
        trust: public keys and rotation statements of who may sign artifacts.
        state: the folder that the store is in.

    Attributes:
        path: of it.
        store: has its artifact.
    """

    def __init__(
        self,
        path: Path,
        key: Key,
        budget: Budget,
        format: str,  # noqa: A002 - the word
        trust: Sequence[str],
        state: Path,
    ) -> None:
        self.path = path
        # All that the artifact depends on besides the file's content.
        recipe = f"{VERSION} {key.id.hex()} {budget} {format} {sorted(trust)} {path.absolute()}"
        mark = blake2b(recipe.encode(errors="surrogateescape"), key=key.secret, digest_size=8).hexdigest()
        self.store = FeedStore(state, f"list-{mark}", LISTS)
        self._secret = key.secret.hex()
        self._trust = tuple(trust)
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._feed = FeedTable(
            name=self.store.name,
            path=self.store.name,  # not every path is text; `Own` has it
            format=format,
            max_errors=str(budget),
            max_shrink=1.0,
            max_grow=float(_MOST),
            max_size=_MOST,
        )

    def refresh(self, *, first: bool = False, progress: Progress = silent) -> Outcome:
        """Refresh the store from the file; one process at a time.

        Args:
            first: nothing of it is in force in this run.
            progress: told how far it is.

        Raises:
            ChangingError: the file changes each time that it is read.
            StateError: the store cannot be used.
        """
        self._given_up = False
        own = Own(str(self.path), name_of(self.path), self._secret, self._trust, first)
        try:
            return refresh_apart(
                self._feed, Config(), self._state, own=own, progress=progress, started=self._started
            )
        finally:
            self._process = None

    def give_up(self) -> None:
        """Stop a refresh that is under way."""
        self._given_up = True
        if self._process is not None:
            self._process.kill()

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        if self._given_up:
            process.kill()


def forget_others(state: Path, stores: Collection[FeedStore]) -> None:
    """Delete the artifacts of lists that are not named any more, or not in that way."""
    names = {store.name for store in stores}
    with suppress(OSError):
        for path in (state / LISTS).iterdir():
            if path.name.partition(".")[0] not in names and path.name.startswith("list-"):
                with suppress(OSError):
                    path.unlink()
