"""Refresh of one feed: fetch, check, put in force, record.

Whatever goes wrong on the way changes nothing but the facts; the last good artifact stays in force.

It is done in a process of its own (`urlward.feeds.feed`).
"""

import json
import logging
import os
import random as random_module
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from urlward.engine.artifact import HEADER_SIZE, Artifact, parse, read_header
from urlward.engine.delta import apply_delta, changes
from urlward.engine.digest import Key
from urlward.engine.errors import (
    ArtifactError,
    KeyFileError,
    RotationError,
    UrlwardError,
    fault_report,
    is_bug,
)
from urlward.feeds.candidate import Candidate, Look, Said, Unchanged, compiler_of
from urlward.feeds.feed import NO_STATE, Outcome, Own, failure
from urlward.feeds.guards import RefusedError, check_size
from urlward.feeds.own import FORMAT, compiled
from urlward.feeds.schedule import Random, Turn, after_success
from urlward.feeds.source import (
    HEAD_ONLY,
    NO_VALIDATORS,
    FeedOrigin,
    FetchError,
    Validators,
    beside,
    origin,
    text_key,
)
from urlward.feeds.status import alarms, resting
from urlward.feeds.store import FEEDS, LISTS, BusyError, Facts, FeedStore, Refused
from urlward.lists.source import ChangingError, SourceError, whole_copy
from urlward.lists.worker import read_request, say, say_log
from urlward.policy.own import FILE as OWN_FILE
from urlward.progress import Progress, silent
from urlward.state.folder import StateError
from urlward.units import counted

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable
    from urlward.feeds.fetch import Answer


logger = logging.getLogger("urlward.lists")

ACCEPTED_FOR = 7 * 86_400.0
"""Seconds for which an operator's word is good."""

_REASONS: dict[type[Exception], str] = {
    KeyFileError: "key",
    RotationError: "rotation",
    SourceError: "unreadable",
    StateError: NO_STATE,
}
_ASK_AGAIN = frozenset({"html", "empty", "absent", "truncated", "damaged"})
"""What is wrong with a body that the server may soon have right again."""


def main() -> None:
    """Run as the process that `urlward.feeds.feed.Feed.refresh` starts."""
    asked = read_request()
    say_log()
    json.dump(answer(asked), sys.stdout)


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a request says, and return the reply."""
    feed = cast("FeedTable", _Table(**asked["feed"]))
    config = cast("Config", _config(asked))
    try:
        if asked.get("attempt"):
            return attempt(feed, config, Path(asked["state"]))._asdict()
        return refresh(
            feed,
            config,
            Path(asked["state"]),
            wait=asked["wait"],
            own=Own(*asked["own"]) if asked["own"] else None,
            turn=Turn(asked.get("turns")),
            progress=say if asked["progress"] else silent,
        )._asdict()
    except BusyError as e:
        return {"busy": str(e)}
    except ChangingError as e:
        return {"changing": str(e)}
    except UrlwardError as e:
        return {"fault": str(e)}


class _Table(SimpleNamespace):
    """A feed's table. Its values were checked where they were read, and pydantic alone takes longer to import
    than most lists to compile.

    Between an upgrade and the reload behind it, who asks is of an earlier release: keys that came since have
    their defaults.
    """

    def __getattr__(self, key: str) -> Any:
        from urlward.config.feeds import FeedTable

        if key not in FeedTable.model_fields:
            raise AttributeError(key)
        return FeedTable.model_fields[key].get_default(call_default_factory=True)


def _config(asked: Mapping[str, Any]) -> SimpleNamespace:
    publish = SimpleNamespace(key=asked["text_key"]) if asked.get("text_key") else None
    gateway = SimpleNamespace(nat64=asked.get("nat64", ()))
    return SimpleNamespace(key=asked["key"], max_errors=asked["max_errors"], publish=publish, gateway=gateway)


def refresh(
    feed: "FeedTable",
    config: "Config",
    state: Path,
    *,
    now: float | None = None,
    random: Random = random_module.random,
    wait: bool = True,
    own: Own | None = None,
    turn: Turn | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Refresh a feed once, in this process, which has its text in memory from then on.

    Args:
        feed: which.
        config: the rest of the configuration.
        state: the state folder.
        now: seconds since 1970-01-01 UTC; the clock where not given.
        random: for the next run's jitter.
        wait: while another process is at it.
        own: where the list is one.
        turn: of this process, to compute.
        progress: told how far it is.

    Raises:
        BusyError: another process is at it.
        ChangingError: the list changes each time that it is read.
        StateError: the state folder cannot be used.
        KeyFileError: its key cannot.
    """
    looking = _looking(feed, config, state, now=now, wait=wait, own=own, turn=turn, progress=progress)
    with looking as (look, store):
        if text := resting(feed, look.facts):
            held, there = look.facts.held, look.in_force
            # Another than the one that it is held at: the roll back was cut short.
            cut = there is not None and held is not None and held.serial != there.header.serial
            # Who has paused a feed may have gone back to a list before, and not have the last in mind.
            wanted = look.facts.serial if held is None else held.serial
            if (there is None or cut) and store.put_back(wanted, or_last=held is None):
                how = "lost, and put in force again" if there is None else "put in force"
                text = f"{how} as it is kept; {text}"
                return Outcome("new", text, look.now + feed.interval)
            return Outcome("unchanged", text, look.now + feed.interval)
        return _refresh(look, store, random)


def attempt(feed: "FeedTable", config: "Config", state: Path) -> Outcome:
    """Fetch and judge what a feed has, in this process, and keep nothing of it.

    Raises:
        StateError: the state folder cannot be used.
        KeyFileError: its key cannot.
    """
    store, now = FeedStore(state, feed.name), time.time()
    facts, in_force = store.facts(), store.in_force()
    _prepare(facts, in_force, now)
    facts.checksum, facts.accepted = "", None  # so that it is judged, known or not
    look = Look(feed, config, state, store.path, text_key(config, state), facts, in_force, now, keeps=False)
    look.versions = store.versions
    try:
        found = take(look)
        if isinstance(found, Unchanged):
            return Outcome("unchanged", f"{counted(facts.entries, 'entry')}, as in force", 0.0)
        _guard(look, found)
        _note(look, found)
        return Outcome("new", _told(facts, found, accepted=False), 0.0)
    except Exception as e:  # noqa: BLE001 - whatever it is, who has asked is told
        reason, text = _reason(e), _text(e)
        return Outcome("failed", f"{reason}: {text}", 0.0, reason, text)


@contextmanager
def _looking(
    feed: "FeedTable",
    config: "Config",
    state: Path,
    *,
    now: float | None = None,
    wait: bool,
    own: Own | None = None,
    turn: Turn | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[Look, FeedStore]]:
    """Context of a look at a feed, under its lock; changes of its facts are written."""
    key = text_key(config, state) if own is None else Key(bytes.fromhex(own.secret))
    store = FeedStore(state, feed.name, FEEDS if own is None else LISTS)
    with store.locked(wait=wait):
        moment = time.time() if now is None else now
        facts, in_force = store.facts(), store.in_force()
        # Of other feeds the filter says it, which comes to no harm by what is not there.
        if own is not None and in_force is None:
            store.mend_artifact()
        _prepare(facts, in_force, moment)
        found = Look(feed, config, state, store.path, key, facts, in_force, moment, own, progress)
        found.turn, found.versions = turn or found.turn, store.versions
        yield found, store
        facts.alarms = alarms(feed, facts, store.header(), moment)
        store.write_facts(facts)


def _prepare(facts: Facts, in_force: Artifact | None, now: float) -> None:
    # What a clock that ran ahead has noted would keep a feed from being stale until then.
    facts.since, facts.last_success = min(facts.since or now, now), min(facts.last_success, now)
    facts.last_attempt = now
    if facts.accepted is not None and facts.accepted.at + ACCEPTED_FOR < now:
        facts.accepted = None
    if facts.used is not None and facts.used.at + ACCEPTED_FOR < now:
        facts.used = None
    if in_force is not None:
        facts.serial, facts.entries = in_force.header.serial, in_force.entries


def _refresh(look: Look, store: FeedStore, random: Random) -> Outcome:
    try:
        found = take(look)
        if isinstance(found, Candidate):
            accepted = _guard(look, found)
            _put_in_force(look, store, found)
            text = _told(look.facts, found, accepted=accepted)
        else:
            text = f"{counted(look.facts.entries, 'entry')}, as before"
        return _succeeded(look, found, text, random)
    except Exception as e:
        if look.own is not None and isinstance(e, ChangingError):
            raise  # neither good nor bad, and looked at again in a moment
        # Whatever it is, `urlward feeds status` has to tell.
        return _failed(look, e, random, back=isinstance(e, FetchError) and _put_back(look, store))


def _put_back(look: Look, store: FeedStore) -> bool:
    """Put the last list that is kept in force where the one that was is lost and cannot be had anew: without
    any, nothing on it would be blocked for as long. Returns whether it is."""
    if look.own is not None or look.in_force is not None:
        return False
    with suppress(StateError):
        return store.put_back(look.facts.serial, or_last=True)
    return False


def _guard(look: Look, found: Candidate) -> bool:
    if look.own is not None or look.feed.format == FORMAT:
        return False
    facts = look.facts
    try:
        return check_size(look.feed, found.entries, look.before, facts.accepted, found.content)
    except RefusedError as e:
        if look.was_in_force(found):
            return False
        same = facts.refused is not None and facts.refused.content == found.content
        at = facts.refused.at if same and facts.refused else look.now
        facts.refused = Refused(e.reason, found.content, e.entries, e.before, at)
        raise


def _put_in_force(look: Look, store: FeedStore, found: Candidate) -> None:
    store.write_artifact(found.data)
    _note(look, found)


def _note(look: Look, found: Candidate) -> None:
    """Note in the facts what is put in force."""
    facts = look.facts
    facts.added, facts.removed = found.counts or _count(look, found)
    facts.serial, facts.entries, facts.kind = found.header.serial, found.entries, found.kind
    facts.bad, facts.unsupported = found.bad, found.unsupported
    facts.last_change = look.now
    facts.checksum = found.header.checksum.hex()
    facts.etag = facts.last_modified = facts.validators_of = ""
    if found.kind == "artifact":
        facts.highest = max(found.header.serial, 0 if look.moved else facts.highest)
    facts.accepted, facts.used = None, facts.accepted or facts.used


def _count(look: Look, found: Candidate) -> tuple[int, int]:
    if look.own is not None:
        return 0, 0  # which nobody asks for
    if look.in_force is None:
        return found.entries, 0
    if look.in_force.header.key_id != found.header.key_id:
        return found.entries, look.in_force.entries
    return changes(look.in_force, parse(found.data))


def _succeeded(look: Look, found: Candidate | Unchanged, text: str, random: Random) -> Outcome:
    facts, feed = look.facts, look.feed
    if isinstance(found, Unchanged) and look.in_force is not None:
        facts.checksum = look.in_force.header.checksum.hex()
        facts.kind = "artifact" if found.content == facts.checksum else "text"
    facts.recipe, facts.trusted, facts.content = look.recipe, look.trusted, found.content
    facts.compiler = compiler_of(facts.checksum)
    if found.validators is not None:
        said = found.validators
        facts.etag, facts.last_modified, facts.validators_of = said.etag, said.last_modified, said.of
    facts.last_success = look.now
    facts.failures, facts.reason, facts.error = 0, "", ""
    facts.refused, facts.not_before = None, 0.0
    fresh_for = _within(found.fresh_for, feed.stale_limit)
    planned = after_success(look.now, feed.interval, feed.jitter, random, fresh_for=fresh_for)
    facts.next_run = planned if look.own is None else 0.0
    return Outcome("new" if isinstance(found, Candidate) else "unchanged", text, facts.next_run)


def _failed(look: Look, error: Exception, random: Random, *, back: bool) -> Outcome:
    reason = _reason(error)
    outcome = failure(
        look.feed,
        look.facts,
        look.now,
        reason,
        _text(error),
        own=look.own,
        has_list=back or look.in_force is not None,
        refused=isinstance(error, RefusedError | ArtifactError) and reason not in _ASK_AGAIN,
        retry_after=error.retry_after if isinstance(error, FetchError) else None,
        random=random,
    )
    return (
        outcome._replace(text=f"lost, and an earlier one put in force; {outcome.text}") if back else outcome
    )


def _told(facts: Facts, found: Candidate, *, accepted: bool) -> str:
    text = (
        f"{counted(facts.entries, 'entry')} fetched, serial {facts.serial}, +{facts.added} -{facts.removed}"
    )
    parts = [text]
    if found.note:
        parts.append(found.note)
    if accepted:
        parts.append("accepted by the operator")
    if found.format:
        parts.append(f"read as format {found.format}, by its first lines")
    if found.unsupported:
        parts.append(f"{found.unsupported} unsupported lines left out")
    if found.bad:
        parts.append(f"{counted(found.bad, 'bad line')} left out, first: {found.first}")
    return ", ".join(parts)


def _within(fresh_for: float | None, stale_limit: float) -> float | None:
    """Limit the time that a response is fresh, so that the feed does not go stale."""
    return None if fresh_for is None else min(fresh_for, stale_limit / 2)


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError | FetchError | ArtifactError):
        return str(error.reason).replace(" ", "-")
    unknown = "bug" if is_bug(error) else "system"
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), unknown)


def _text(error: Exception) -> str:
    # The reason in front of it says that it is a bug.
    return fault_report(error).removeprefix("a bug: ")


_OF_THE_BODY = frozenset({"truncated", "corrupt", "unsupported", "too-large", "bomb"})
"""Faults of one body, which another need not have."""

_OF_THE_SERVER = frozenset({401, 407, 429, 503})
"""Statuses that are meant for every request."""


def take(look: Look) -> Unchanged | Candidate:
    """Fetch and check the feed's body.

    Raises:
        UrlwardError: nothing, or nothing good; `OSError` where it is the system's fault.
    """
    feed = look.feed
    if look.own is not None:
        return _own(look, Path(look.own.path), first=look.own.first)
    if feed.format == FORMAT:
        return _own_entries(look)
    if feed.path is not None:
        return _at_path(look, Path(feed.path))
    source, note = origin(feed, nat64=look.config.gateway.nat64), ""
    if feed.exchange is not None:
        return _by_exchange(look, source)
    if feed.delta and look.body_is_known and look.facts.kind == "artifact":
        by_delta, note = _by_delta(look, source)
        if by_delta is not None:
            return by_delta
        if (look.validators == NO_VALIDATORS or look.versions()) and (known := _by_header(look, source)):
            return known
    found = _whole(look, source)
    return found._replace(note=note) if isinstance(found, Candidate) else found


def _at_path(look: Look, path: Path) -> Unchanged | Candidate:
    if path.is_dir():
        with look.turn.taken():
            return look.text(path)
    if not path.exists():
        raise RefusedError("absent", f"{path}: no such file")
    most = look.feed.max_size
    if path.stat().st_size > most:
        raise RefusedError("too-large", f"{path}: more than max_size, {most} bytes")
    return _body(look, whole_copy(path))


def _own_entries(look: Look) -> Unchanged | Candidate:
    before = look.in_force
    serial = max(int(look.now), (before.header.serial if before is not None else 0) + 1)
    data = compiled(look.state, look.key, serial, look.now)
    if before is not None and before.entries and not (look.state / OWN_FILE).exists():
        # Whoever removes the last one leaves a file without entries.
        raise RefusedError("absent", f"{OWN_FILE} is gone, or was damaged: what was compiled of it stays")
    artifact = parse(data)
    entries = artifact.entries
    if before is None or before.header.key_id != look.key.id:
        counts = entries, 0
    elif before.sections == artifact.sections:
        return Unchanged("", None)
    else:
        counts = changes(before, artifact)
    return Candidate(data, artifact.header, entries, "text", "", None, counts=counts)


def _own(look: Look, path: Path, *, first: bool) -> Unchanged | Candidate:
    if not first and not path.exists():
        raise RefusedError("absent", f"{path}: gone")
    return _body(look, whole_copy(path, as_is=first))


def _body(look: Look, fd: int) -> Unchanged | Candidate:
    try:
        with look.turn.taken():
            return look.body(fd)
    finally:
        os.close(fd)


def _by_exchange(look: Look, source: FeedOrigin) -> Unchanged | Candidate:
    # Its clients are imported where there is one alone.
    from urlward.feeds.exchange import SUFFIX, fetched

    path = look.ward.with_name(f"{look.feed.name}{SUFFIX}")
    return _body(look, fetched(look.feed, source, path, look.key, keeps=look.keeps))


def _whole(look: Look, source: FeedOrigin) -> Unchanged | Candidate:
    answer = _fetch(source, look.validators)
    if answer.kind == "absent":
        from urlward.feeds.fetch import parse, peer

        where = peer(parse(answer.url, "where it led"))
        raise RefusedError("absent", f"{where}: no such file (404 or 410)")
    if answer.fd is None:
        return Unchanged(look.facts.content, answer.validators, answer.fresh_for)
    try:
        with look.turn.taken():
            return look.body(answer.fd, _said(look, answer, source))
    finally:
        os.close(answer.fd)


def _by_delta(look: Look, source: FeedOrigin) -> tuple[Candidate | None, str]:
    """Fetch the next artifact by a delta, and a word for the log; None where there is no delta that will
    do."""
    assert look.in_force is not None
    header = look.in_force.header
    try:
        answer = _fetch(replace(source, url=beside(source.url, f".{header.serial}.delta")))
        data = _read(answer)
        if data is None:
            return None, ""
        key = look.key_of(header)
        with look.turn.taken():
            artifact = apply_delta(look.in_force, data, key, look.feed.max_size)
            found = look.artifact(artifact, _said(look, answer, source)._replace(validators=None))
    except FetchError as e:
        if e.reason not in _OF_THE_BODY and (e.status is None or e.status in _OF_THE_SERVER):
            raise
        return None, f"delta not used: {e}"
    except StateError:
        raise
    except UrlwardError as e:
        return None, f"delta not used: {e}"
    if isinstance(found, Unchanged):
        return None, "delta not used: it changes nothing"
    return found._replace(note="by delta"), ""


def _by_header(look: Look, source: FeedOrigin) -> Unchanged | Candidate | None:
    """Take the artifact by its first bytes alone, where the rest of it is here already.

    It is in force, where a delta led to it: that comes without the validators of the artifact, and to fetch
    this for their sake would cost what the delta has saved. Or it is or was, and its body has issued it anew.
    """
    assert look.in_force is not None
    try:
        answer = _fetch(source, look.validators, headers=HEAD_ONLY)
        if answer.kind == "unchanged":
            return Unchanged(look.facts.content, answer.validators, answer.fresh_for)
        if (data := _read(answer)) is None:
            return None
        header = read_header(data)
    except (ArtifactError, FetchError):
        return None  # the whole one will tell
    said = _said(look, answer, source)
    if header == look.in_force.header:
        return Unchanged(look.facts.content, said.validators, said.fresh_for)
    with look.turn.taken():
        # A server that gives no parts of files has given all of it.
        made = data if len(data) > HEADER_SIZE else look.kept(header)
        if made is None:
            return None
        found = look.artifact(made, said)
    if isinstance(found, Candidate) and made is not data:
        return found._replace(note="as it was kept")
    return found


def _said(look: Look, answer: "Answer", source: FeedOrigin) -> Said:
    def rotation() -> bytes | None:
        try:
            with look.turn.left():
                return _read(_fetch(replace(source, url=beside(source.url, ".rotation"))))
        except FetchError:
            return None  # the signer that nobody knows is what matters

    return Said(answer.validators, answer.fresh_for, rotation)


def _fetch(
    source: FeedOrigin,
    validators: Validators = NO_VALIDATORS,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> "Answer":
    from urlward.feeds.fetch import fetch  # brings urllib3, which a path does not need

    return fetch(source, validators, headers=headers)


def _read(answer: "Answer") -> bytes | None:
    """Read the body of a response, which is closed; None where it has none."""
    if answer.fd is None:
        return None
    try:
        return os.pread(answer.fd, os.fstat(answer.fd).st_size, 0)
    finally:
        os.close(answer.fd)


if __name__ == "__main__":
    main()
