"""Fetch of a feed's body: from its path, or from its server by way of a delta or whole."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from urlward.engine.artifact import HEADER_SIZE, read_header
from urlward.engine.delta import apply_delta
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.feeds.candidate import Candidate, Said, Unchanged
from urlward.feeds.guards import RefusedError
from urlward.feeds.look import Look
from urlward.feeds.source import NO_VALIDATORS, FetchError, Origin, Validators, beside, origin
from urlward.lists import memory
from urlward.state.folder import StateError

if TYPE_CHECKING:
    from urlward.feeds.fetch import Answer

_OF_THE_BODY = frozenset({"truncated", "corrupt", "unsupported", "too-large", "bomb"})
"""Faults of one body, which another need not have."""

_OF_THE_SERVER = frozenset({401, 407, 429, 503})
"""Statuses that are meant for every request."""

_HEAD_ONLY = {"Range": f"bytes=0-{HEADER_SIZE - 1}", "Accept-Encoding": "identity"}


def take(look: Look) -> Unchanged | Candidate:
    """Fetch and check the feed's body.

    Raises:
        UrlwardError: nothing, or nothing good; `OSError` where it is the system's fault.
    """
    feed = look.feed
    if look.own is not None:
        return _own(look, Path(look.own.path), first=look.own.first)
    if feed.path is not None:
        return _at_path(look, Path(feed.path))
    source, note = origin(feed), ""
    if feed.delta and look.body_is_known and look.facts.kind == "artifact":
        by_delta, note = _by_delta(look, source)
        if by_delta is not None:
            return by_delta
        if look.validators == NO_VALIDATORS and (same := _by_header(look, source)):
            return same
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
    return _body(look, memory.whole_copy(path))


def _own(look: Look, path: Path, *, first: bool) -> Unchanged | Candidate:
    if not first and not path.exists():
        raise RefusedError("absent", f"{path}: gone")
    return _body(look, memory.whole_copy(path, as_is=first))


def _body(look: Look, fd: int) -> Unchanged | Candidate:
    try:
        with look.turn.taken():
            return look.body(fd)
    finally:
        os.close(fd)


def _whole(look: Look, source: Origin) -> Unchanged | Candidate:
    answer = _fetch(source, look.validators)
    if answer.kind == "absent":
        raise RefusedError("absent", "the server has no such file (404 or 410)")
    if answer.fd is None:
        return Unchanged(look.facts.content, answer.validators, answer.fresh_for)
    try:
        with look.turn.taken():
            return look.body(answer.fd, _said(look, answer, source))
    finally:
        os.close(answer.fd)


def _by_delta(look: Look, source: Origin) -> tuple[Candidate | None, str]:
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


def _by_header(look: Look, source: Origin) -> Unchanged | None:
    """Whether the whole artifact is the one that a delta led to, by its first bytes alone.

    A delta comes without the validators of the artifact that it leads to, and to fetch that for their
    sake would cost what the delta has saved.
    """
    assert look.in_force is not None
    try:
        answer = _fetch(source, headers=_HEAD_ONLY)
        data = _read(answer)
        if data is None or read_header(data) != look.in_force.header:
            return None
    except (ArtifactError, FetchError):
        return None  # the whole one will tell
    return Unchanged(look.facts.content, answer.validators, answer.fresh_for)


def _said(look: Look, answer: "Answer", source: Origin) -> Said:
    def rotation() -> bytes | None:
        try:
            with look.turn.left():
                return _read(_fetch(replace(source, url=beside(source.url, ".rotation"))))
        except FetchError:
            return None  # the signer that nobody knows is what matters

    return Said(answer.validators, answer.fresh_for, rotation)


def _fetch(
    source: Origin,
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
