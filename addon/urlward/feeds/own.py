"""The list ``own-entries``: its feed, and what adds to it and removes from it.

It is compiled as any list is, in a process that ends with it, from ``own.json`` in the state folder
(`urlward.policy.own`), as soon as an entry is added or removed: workers map what has come within the time of
any other list.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.engine.artifact import dump
from urlward.engine.compiler import Compiler
from urlward.engine.digest import Key
from urlward.engine.errors import EntryError, UrlwardError
from urlward.engine.grammar import parse_line
from urlward.feeds.feed import Feed
from urlward.policy.own import (
    FILE,
    NAME,
    Draft,
    OwnEntry,
    add_own,
    line_of,
    own_entries,
    remove_own,
    warnings_of,
)
from urlward.state.folder import local_key

if TYPE_CHECKING:
    from urlward.config import Config

FORMAT = "sealed entries"
"""Format of ``own.json``, which no other feed has."""

_HOUR = 3_600.0

logger = logging.getLogger("urlward.lists")


class UnsureError(UrlwardError):
    """An entry that blocks more than is usually meant, added by who has not said that it is.

    Attributes:
        warnings: why.
    """

    def __init__(self, warnings: list[str]) -> None:
        super().__init__("; ".join(warnings))
        self.warnings = warnings


def own_feed(config: "Config", state: Path) -> Feed:
    """Make the feed of a state folder's own entries."""
    from urlward.config import FeedTable  # which the process that compiles has no use for

    table = FeedTable.model_construct(
        name=NAME, path=str(state / FILE), format=FORMAT, interval=_HOUR, stale_after=24 * _HOUR
    )
    # Its entries are sealed under the folder's key, whatever else is published.
    return Feed(table, config.model_copy(update={"publish": None}), state)


def add_to_own(
    config: "Config",
    state: Path,
    made: Draft,
    who: str,
    *,
    sure: bool,
    protects: Callable[[str], bool],
) -> OwnEntry:
    """Add an entry, and put it in force.

    Args:
        config: the filter's.
        state: the state folder.
        made: of `urlward.policy.own.draft`.
        who: adds it.
        sure: whether it may block more than is usually meant.
        protects: whether a host is protected.

    Raises:
        UnsureError: it does, and nobody has said so.
        UrlwardError: it cannot be added, or not be put in force.
    """
    if not sure and (warnings := warnings_of(made, protects)):
        raise UnsureError(warnings)
    added = add_own(state, local_key(state), made, who, now=time.time())
    _compile(config, state, f"{added.id} is added, but not in force yet")
    return added


def remove_from_own(config: "Config", state: Path, id_: str, why: str, who: str) -> OwnEntry:
    """Remove an entry, and put it out of force.

    Raises:
        UrlwardError: there is none of that id, or the list cannot be compiled.
    """
    removed = remove_own(state, id_, why, who, now=time.time())
    _compile(config, state, f"{removed.id} is removed, but still in force")
    return removed


def compiled(state: Path, key: Key, serial: int, now: float) -> bytes:
    """Compile the entries into an artifact. Call it in a process that ends soon.

    Args:
        state: the state folder.
        key: its local key.
        serial: of the artifact.
        now: seconds since 1970-01-01 UTC.

    What an earlier release took for an entry, and this one does not, is not in force, and the log says so.

    Raises:
        UrlwardError: the entries cannot be read, or one of them does not open.
    """
    compiler = Compiler(key)
    for entry in own_entries(state):
        try:
            compiler.add(parse_line(line_of(entry, key))[0])
        except (EntryError, IndexError):
            logger.error("own entry %s is not one of the list grammar, and is not in force", entry.id)
    return dump(compiler.finish(), key, name=NAME, serial=serial, created=int(now))


def _compile(config: "Config", state: Path, otherwise: str) -> None:
    """Compile the list; `otherwise` says how things are where that fails."""
    outcome = own_feed(config, state).refresh()
    if outcome.state == "failed":
        raise UrlwardError(f"{otherwise}: {outcome.text}; a filter that runs tries again by itself")
