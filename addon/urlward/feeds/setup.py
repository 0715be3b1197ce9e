"""Setup of the lists in force, and the policy on them, from a configuration."""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from urlward.config import Config, Problem, Use
from urlward.config.policy import policy_notes, policy_problems
from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.errors import KeyFileError
from urlward.engine.loaded import LoadedList, load
from urlward.engine.matcher import Matcher
from urlward.engine.nat64 import Nat64
from urlward.engine.verdict import decide
from urlward.feeds.keeper import Keeper, ListFile
from urlward.feeds.store import FeedStore
from urlward.lists.allows import TemporaryAllows
from urlward.lists.build import compile_sources, find_key
from urlward.lists.formats import AUTO, DEFAULTS, format_named
from urlward.lists.run_folder import inherited
from urlward.lists.source import NO_FOLDER, ErrorBudget, SourceError, read_budget
from urlward.lists.trust import read_trust
from urlward.policy.neighbours import Neighbours
from urlward.policy.own import NAME as OWN
from urlward.policy.policy import Policy
from urlward.samples import PROTECTED
from urlward.state.folder import KEY_FILE, local_key, state_folder
from urlward.state.keys import read_key
from urlward.state.path_watch import PATIENCE, silent

logger = logging.getLogger("urlward.lists")


def make_keeper(
    paths: Sequence[Path],
    config: Config,
    *,
    key_file: Path | None = None,
    trust: Sequence[str] = (),
    budget: ErrorBudget | None = None,
    format: str = AUTO,  # noqa: A002 - the word
    writes: bool = True,
    filters: bool = False,
    follows: bool = True,
) -> Keeper:
    """Make the keeper of some list files and of a configuration's feeds, which has loaded nothing yet.

    Args:
        paths: sources and artifacts.
        config: names the feeds, the state folder and what is protected.
        key_file: of the lists' key.
        trust: public keys and rotation statements of who may have signed `paths`.
        budget: of bad lines in a source.
        format: of the sources, one of `urlward.lists.formats.FORMATS`.
        writes: whether the state folder and its key may be made, where they are missing.
        filters: whether this is a filter, which has feeds' artifacts fetched anew that are no good, and those
            of `paths` in the state folder.
        follows: whether it looks after `paths`; one of several workers does so for all.

    Raises:
        UrlwardError: a key, a folder or a protecting list cannot be used.
    """
    format_named(format, DEFAULTS)
    run = inherited()
    # Where workers have what is in force, another is not to wait for a file system that hangs.
    hang = silent(paths, PATIENCE) if run is not None and run.has_any else set[Path]()
    answering = [path for path in paths if path not in hang]
    for path in answering:
        if path.is_dir():
            raise SourceError(f"{path}: {NO_FOLDER}")
    state = state_folder(config.state) if config.keeps_state else None
    local = local_key(state) if state is not None and writes else None
    if state is not None and not writes:
        with suppress(KeyFileError):  # where it is missing or damaged, a start makes or mends it
            local = read_key(state / KEY_FILE)
    key = find_key(key_file, answering, local)
    read_trust(trust)  # so that what is wrong with it is said of it
    files = [ListFile(path, trust=tuple(map(str, trust)), silent=path in hang) for path in paths]
    published = None if config.publish is None else config.publish.key
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
                key_files=(*map(Path, filter(None, (feed.key, published))), state / KEY_FILE),
                state=state if filters else None,
            )
        )
    if state is not None:
        store = FeedStore(state, OWN)
        files.append(
            ListFile(
                store.path,
                (*filter(None, [local]),),
                OWN,
                stored=True,
                key_files=(state / KEY_FILE,),
                optional=True,
                state=state if filters else None,
            )
        )
    guards = any(file.guarded for file in files)
    return Keeper(
        files,
        key,
        budget,
        protected=_protected(config) if guards else (),
        exceptions=TemporaryAllows(state, local) if state is not None and local is not None else None,
        format=format,
        state=state if filters else None,
        follows=follows,
        nat64=Nat64(config.gateway.nat64),
    )


def configured_keeper(
    config: Config,
    paths: Sequence[Path] = (),
    *,
    key_file: Path | None = None,
    trust: Sequence[str] = (),
    budget: ErrorBudget | None = None,
    format: str = AUTO,  # noqa: A002 - the word
) -> Keeper:
    """Make the keeper of who decides as a filter would, and is none.

    Arguments are as of `make_keeper`; what is not given is as the configuration has it.

    Raises:
        UrlwardError: as `make_keeper`.
    """
    return make_keeper(
        paths or [Path(path) for path in config.list],
        config,
        key_file=key_file or (Path(config.key) if config.key else None),
        trust=trust or config.trust,
        budget=budget or read_budget(config.max_errors, "max_errors"),
        format=format,
    )


def make_neighbours(config: Config) -> Neighbours | None:
    """Make the table of neighbours, where a configuration names MAC addresses."""
    named = {mac for group in config.group for mac in group.macs}
    return Neighbours(named) if named else None


def make_policy(config: Config, keeper: Keeper | None, neighbours: Neighbours | None = None) -> Policy | None:
    """Make the policy of a configuration; None where all lists block for all clients at all times.

    Args:
        config: the configuration.
        keeper: of the lists, which rules may name; it has loaded them.
        neighbours: of `make_neighbours`.

    Raises:
        ConfigError: a rule names a list that there is none of, or a feed is called as a list of `keeper` is.
    """
    names = list(keeper.names) if keeper is not None else []
    uses: dict[str, Use] = dict.fromkeys(names, "block")
    uses |= {feed.name: feed.use for feed in config.feed}
    # What is said of the one would hold for the other.
    twice = (n for n, feed in enumerate(config.feed) if names.count(feed.name) > 1)
    problems = [Problem(f"feed.{n}.name", f"another list is called {config.feed[n].name} too") for n in twice]
    problems += policy_problems(config.group, config.rule, config.schedule, config.pages, uses)
    if problems:
        raise config.refused(*problems)
    policy = Policy(config, uses, neighbours)
    return None if policy.is_trivial else policy


def listed_objections(config: Config, keeper: Keeper, policy: Policy | None) -> Problem | None:
    """Problems where a list blocks the address that the block page's form posts to.

    A feed's list may do so from one refresh to the next, and must not keep the filter from starting: that is
    said in the log.

    Args:
        config: names the address.
        keeper: of the lists; it has loaded them.
        policy: of `make_policy`.
    """
    if config.objections is None:
        return None
    now = time.time()
    in_no_group = decide if policy is None else policy.view("", now).decide
    verdict = keeper.matcher.check_url(config.objections.url, now, in_no_group)
    if not verdict.blocked:
        return None
    text = (
        f"list {verdict.list} blocks it (entry {verdict.entry}), so that nobody could object: "
        "choose another address, or make an exception of it on a list, with @@"
    )
    if any(feed.name == verdict.list for feed in config.feed):
        logger.warning("objections.url: %s", text)
        return None
    return Problem("objections.url", text)


def tell_of_rules(config: Config, keeper: Keeper) -> None:
    """Log what of a policy may be meant otherwise, and categories of rules that none of their lists has.

    A list may come to have them, so that is no error; a rule is left out as long as such a list is not there.

    Args:
        config: has the rules.
        keeper: of the lists; it has loaded them.
    """
    # Own entries are not there before the first: there is nothing to wait for.
    of_lists: dict[str, set[str]] = {OWN: set()}
    of_lists |= {li.name: set(li.artifact.meta["by_category"]) for li in keeper.matcher.lists}
    told = [*policy_notes(config.group, config.rule, config.schedule)]
    tables = {"rule": config.rule} | {f"group.{n}.rule": each.rule for n, each in enumerate(config.group)}
    for where, rules in tables.items():
        for n, rule in enumerate(rules):
            names = rule.lists or keeper.names
            if rule.categories is None or not of_lists.keys() >= set(names):
                continue
            known = set().union(*(of_lists[name] for name in names))
            told += [
                Problem(f"{where}.{n}.categories.{i}", f"no entry of its lists has category {category}")
                for i, category in enumerate(rule.categories)
                if category not in known
            ]
    if told:
        for line in config.refused(*told).lines:
            logger.warning("%s", line)


def protecting(config: Config) -> Callable[[str], bool]:
    """Function that tells whether a configuration protects a host from feeds."""
    return Matcher((), protected=_protected(config)).protects


def _protected(config: Config) -> list[LoadedList]:
    """Load the lists of hosts that guarded lists cannot block whole, under a key that nobody needs to know.

    They are compiled in this process, which filters: what they name is no secret, since it must never be
    blocked, the shipped one is public, and the operator's own stands in a file that the configuration names.
    """
    paths = [PROTECTED] * config.protect + [Path(path) for path in config.protected]
    if not paths:
        return []
    key = Key(secrets.token_bytes(KEY_SIZE))
    data, _ = compile_sources(paths, key, name="protected", budget=ErrorBudget(count=0))
    listed = load(data, key)
    if listed.has_pages:
        logger.warning(
            "protected: it has pages or prefixes (http://…), which protect no host: write its name"
        )
    return [listed]
