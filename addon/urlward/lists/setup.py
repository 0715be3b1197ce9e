"""From what an operator has set to the lists in force, and what they mean for whom."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from urlward.config import Config
from urlward.config.policy import PolicyError, Use, check_policy
from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.loaded import LoadedList, load
from urlward.lists.build import compile_sources, find_key, read_key
from urlward.lists.exceptions import TemporaryAllows
from urlward.lists.feed_store import FeedStore
from urlward.lists.keeper import Keeper
from urlward.lists.kept import ListFile
from urlward.lists.neighbours import Neighbours
from urlward.lists.policy import Policy
from urlward.lists.source import Budget
from urlward.lists.state import local_key, state_folder
from urlward.lists.trust import read_trust
from urlward.samples import PROTECTED


def make_keeper(
    paths: Sequence[Path],
    config: Config,
    *,
    key_file: Path | None = None,
    trust: Sequence[str] = (),
    budget: Budget | None = None,
) -> Keeper:
    """The keeper of some list files and of a configuration's feeds, which has loaded nothing yet.

    Args:
        paths: sources and artifacts.
        config: names the feeds, the state folder and what is protected.
        key_file: of the lists' key.
        trust: public keys and rotation statements of who may have signed `paths`.
        budget: of bad lines in a source.

    Raises:
        UrlwardError: a key, a folder or a protecting list cannot be used.
    """
    state = state_folder(config.state) if config.feed or config.state else None
    local = local_key(state) if state is not None else None
    key = find_key(key_file, paths, local)
    trusted = read_trust(trust) if trust else None
    files = [ListFile(path, trust=trusted) for path in paths]
    for feed in config.feed:
        assert state is not None
        own = (read_key(Path(feed.key)),) if feed.key else ()
        store = FeedStore(state, feed.name)
        files.append(
            ListFile(
                store.path,
                (*own, *filter(None, [local])),
                feed.name,
                stored=True,
                guarded=feed.protect and feed.use != "allow",
            )
        )
    guards = any(file.guarded for file in files)
    return Keeper(
        files,
        key,
        budget,
        protected=_protected(config) if guards else (),
        exceptions=TemporaryAllows(state, local) if state is not None and local is not None else None,
    )


def make_neighbours(config: Config) -> Neighbours | None:
    """What tells MAC addresses, where a configuration names any."""
    return Neighbours() if any(group.macs for group in config.group) else None


def make_policy(config: Config, keeper: Keeper | None, neighbours: Neighbours | None = None) -> Policy | None:
    """What a configuration says of clients; None where all lists block for all of them at all times.

    Args:
        config: the configuration.
        keeper: of the lists, which rules may name; it has loaded them.
        neighbours: of `make_neighbours`.

    Raises:
        PolicyError: a rule names a list that there is none of, or a feed is called as a list of `keeper` is.
    """
    names = list(keeper.names) if keeper is not None else []
    for n, feed in enumerate(config.feed):
        if names.count(feed.name) > 1:
            # What is said of the one would hold for the other.
            raise PolicyError(f"feed.{n} has the name of another list, {feed.name}")
    uses: dict[str, Use] = dict.fromkeys(names, "block")
    uses |= {feed.name: feed.use for feed in config.feed}
    check_policy(config.group, config.rule, config.schedule, config.pages, uses)
    policy = Policy(config, uses, neighbours)
    return None if policy.is_trivial else policy


def _protected(config: Config) -> list[LoadedList]:
    """The lists of what guarded lists cannot block whole, under a key that nobody needs to know."""
    paths = [PROTECTED] * config.protect + [Path(path) for path in config.protected]
    if not paths:
        return []
    key = Key(secrets.token_bytes(KEY_SIZE))
    data, _ = compile_sources(paths, key, name="protected", budget=Budget(count=0))
    return [load(data, key)]
