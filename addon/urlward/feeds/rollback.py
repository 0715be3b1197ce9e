"""Rollback of a feed: an earlier list is put in force again, and stays until it is released.

A feed that was rolled back is fetched no more, whatever its server has: a list that was wrong once is not to
come back by the next refresh. Releasing it has it fetched anew. Should the list that is in force be lost
meanwhile, or the rollback be cut short before it is in force, the next refresh puts it in force as it is
kept.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.engine.artifact import Artifact, networks, parse
from urlward.engine.errors import UrlwardError
from urlward.feeds.candidate import Look
from urlward.feeds.source import text_key
from urlward.feeds.store import FeedStore, Held
from urlward.lists.source import read_artifact
from urlward.state.audit import append

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable


def roll_back(
    feed: "FeedTable",
    config: "Config",
    state: Path,
    serial: int | None,
    *,
    why: str,
    who: str,
    now: float,
) -> Held:
    """Put an earlier list of a feed in force, and hold the feed there.

    What is not to be taken any more does not come back so: who signed it has to be trusted, its days not
    over, and its key one that there is.

    Args:
        feed: whose.
        config: the rest of the configuration.
        state: the state folder.
        serial: of the list; None for the one before that in force.
        why: one line, for the record.
        who: says so.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: there is no such list, it is damaged, or not to be taken.
        StateError: it cannot be written down.
    """
    store = FeedStore(state, feed.name)
    with store.locked():
        facts, header, versions = store.facts(), store.header(), store.versions()
        before = header.serial if header is not None else facts.serial
        wanted = [v for v in versions if (v.serial < before if serial is None else v.serial == serial)]
        if not wanted:
            kept = ", ".join(str(version.serial) for version in versions) or "none"
            which = "list before the one in force" if serial is None else f"list of serial {serial}"
            raise UrlwardError(f"{feed.name}: no {which} is kept; there are: {kept}")
        try:
            data = read_artifact(wanted[0].path)
            artifact = parse(data)
        except UrlwardError as e:
            raise UrlwardError(f"{feed.name}: the list of serial {wanted[0].serial} is damaged") from e
        try:
            look = Look(feed, config, state, store.path, text_key(config, state), facts, None, now)
            _check(look, artifact)
        except UrlwardError as e:
            raise UrlwardError(f"{feed.name}: the list of serial {wanted[0].serial} is not taken: {e}") from e
        held = Held(wanted[0].serial, before, now, who, why)
        # Told first: whatever fails from here on, nothing is in force that the record does not have.
        append(
            state, who, "rolled-back", now,
            feed=feed.name, why=why, serial=held.serial, before=before, entries=artifact.entries,
        )  # fmt: skip
        facts.held, facts.refused, facts.accepted = held, None, None
        store.write_facts(facts)
        with suppress(OSError):
            os.utime(wanted[0].path)  # so that it is kept longest
        store.write_artifact(bytes(data))
        facts.added = facts.removed = 0
        facts.serial, facts.entries = held.serial, artifact.entries
        facts.last_change = now
        store.write_facts(facts)
    return held


def release(feed: "FeedTable", state: Path, *, why: str, who: str, now: float) -> Held:
    """Release a feed that is held; it is to be refreshed then. Returns what held it.

    Raises:
        UrlwardError: it is not held.
        StateError: it cannot be written down.
    """
    store = FeedStore(state, feed.name)
    with store.locked():
        facts = store.facts()
        held = facts.held
        if held is None:
            raise UrlwardError(f"{feed.name}: not held at an earlier list")
        append(state, who, "released", now, feed=feed.name, why=why, serial=held.serial)
        facts.held = None
        store.write_facts(facts)
    return held


def _check(look: Look, artifact: Artifact) -> None:
    """Check an earlier artifact as one that is fetched, but for its serial and size.

    Raises:
        UrlwardError: it is not to be taken.
    """
    header = artifact.header
    networks(artifact, look.key if header.key_id == look.key.id else look.key_of(header))
    look.trust.check(header, last_serial=0, now=look.now, grace=look.feed.grace)
