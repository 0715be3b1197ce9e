"""What a look at a feed finds: that nothing has changed, or a candidate for the list in force."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from urlward.config import Config, FeedTable
from urlward.engine.artifact import HEADER_SIZE, MAGIC, Header, check_key, networks, parse, read_header
from urlward.engine.delta import apply_delta, read_change
from urlward.engine.digest import Key
from urlward.engine.errors import (
    ArtifactError,
    NewerVersionError,
    TruncatedError,
    UrlwardError,
    WrongKeyError,
)
from urlward.lists import memory
from urlward.lists.build import read_key
from urlward.lists.feed_facts import Facts
from urlward.lists.feed_guards import SNIFFED, RefusedError, check_head, check_size
from urlward.lists.feed_source import beside, content, origin, recipe
from urlward.lists.feed_store import InForce
from urlward.lists.feed_text import compile_text
from urlward.lists.fetch import Answer, FetchError, Origin, Validators, fetch
from urlward.lists.rotations import restore_rotations, take_rotation
from urlward.lists.state import StateError, made_folder
from urlward.lists.trust import Trust, TrustError, read_trust

_OF_THE_BODY = frozenset({"truncated", "corrupt", "unsupported", "too-large", "bomb"})
"""Faults of one body, which another need not have."""

_OF_THE_SERVER = frozenset({401, 407, 429, 503})
"""Statuses that are meant for every request."""

_HEAD_ONLY = {"Range": f"bytes=0-{HEADER_SIZE - 1}", "Accept-Encoding": "identity"}


class Unchanged(NamedTuple):
    """The list in force is what the feed has.

    Attributes:
        content: of the body.
        validators: what the server calls it; None where it has not said.
        fresh_for: seconds that it calls it fresh.
    """

    content: str
    validators: Validators | None
    fresh_for: float | None = None


class Candidate(NamedTuple):
    """Another list than the one in force; all checked but for its number of entries.

    Attributes:
        data: the artifact.
        header, entries: of it.
        kind: of the body: ``text`` or ``artifact``.
        content, validators, fresh_for: as for `Unchanged`.
        change: how the list in force becomes this one; empty where that is not known.
        counts: entries added and removed; None where nobody has counted.
        bad, unsupported, first: of a text; see `Compiled`.
        note: for the log.
    """

    data: bytes
    header: Header
    entries: int
    kind: str
    content: str
    validators: Validators | None
    fresh_for: float | None = None
    change: bytes = b""
    counts: tuple[int, int] | None = None
    bad: int = 0
    unsupported: int = 0
    first: str = ""
    note: str = ""


@dataclass
class Look:
    """One look at a feed.

    Attributes:
        feed: at which.
        config: the rest of the configuration.
        state: the state folder.
        ward: path of the artifact in force.
        key: the local one.
        facts: what is remembered.
        in_force: the artifact in force.
        now: seconds since 1970-01-01 UTC.
    """

    feed: FeedTable
    config: Config
    state: Path
    ward: Path
    key: Key
    facts: Facts
    in_force: InForce | None
    now: float

    @property
    def recipe(self) -> str:
        """Of the feed as it is configured."""
        return recipe(self.feed, self.key)

    @property
    def moved(self) -> bool:
        """Whether the list in force is of a feed that was configured otherwise."""
        return self.facts.recipe not in ("", self.recipe)

    @cached_property
    def trust(self) -> Trust:
        """Who may sign.

        Raises:
            KeyFileError, RotationError: what the operator named cannot be used.
        """
        trust = read_trust(self.feed.trust)
        return restore_rotations(trust, self._rotations) if trust.keys else trust

    @property
    def trusted(self) -> str:
        """Stands for those that the operator named."""
        return ",".join(sorted(map(str, self.trust.keys)))

    @property
    def before(self) -> int | None:
        """Entries that the candidate's number is compared with."""
        return None if self.in_force is None or self.moved else self.in_force.entries

    @property
    def body_is_known(self) -> bool:
        """Whether what is remembered of a body is of the one that the list in force was made of."""
        facts, in_force = self.facts, self.in_force
        if self.moved or in_force is None or facts.checksum != in_force.header.checksum.hex():
            return False
        # Whoever trusts others than before wants to know what they have signed.
        return facts.trusted == self.trusted

    @property
    def _rotations(self) -> Path:
        """Where the statements are that this feed has brought; another's mean nothing here."""
        return self.state / "trust" / self.feed.name

    @property
    def _validators(self) -> Validators:
        facts = self.facts
        if not self.body_is_known:
            return Validators()
        return Validators(facts.etag, facts.last_modified, facts.validators_of)

    def take(self) -> Unchanged | Candidate:
        """Look.

        Raises:
            UrlwardError: nothing to be had, or nothing good; `OSError` where it is the system's fault.
        """
        if self.feed.path is not None:
            return self._at_path(Path(self.feed.path))
        source = origin(self.feed)
        note = ""
        if self.feed.delta and self.body_is_known and self.facts.kind == "artifact":
            by_delta, note = self._by_delta(source)
            if by_delta is not None:
                return by_delta
            if self._validators == Validators() and (same := self._by_header(source)):
                return same
        found = self._whole(source)
        return found._replace(note=note) if isinstance(found, Candidate) else found

    # -- by HTTP

    def _whole(self, source: Origin) -> Unchanged | Candidate:
        answer = fetch(source, self._validators)
        if answer.kind == "absent":
            raise RefusedError("absent", "the server has no such file (404 or 410)")
        if answer.fd is None:
            return Unchanged(self.facts.content, answer.validators, answer.fresh_for)
        try:
            return self._body(answer.fd, answer.validators, answer.fresh_for, source)
        finally:
            os.close(answer.fd)

    def _by_delta(self, source: Origin) -> tuple[Candidate | None, str]:
        """The next artifact by a delta, and a word for the log; None where there is no delta that will do."""
        assert self.in_force is not None
        header = self.in_force.header
        url = beside(source.url, f".{header.serial}.delta")
        try:
            answer = fetch(replace(source, url=url))
            data = _read(answer)
            if data is None:
                return None, ""
            key = self._key_of(header)
            artifact, change = apply_delta(self.in_force.data, data, key)
            checked = self._artifact(artifact, None, answer.fresh_for, source)
        except FetchError as e:
            if e.reason not in _OF_THE_BODY and (e.status is None or e.status in _OF_THE_SERVER):
                raise
            return None, f"delta not used: {e}"
        except StateError:
            raise
        except UrlwardError as e:
            return None, f"delta not used: {e}"
        if isinstance(checked, Unchanged):
            return None, "delta not used: it changes nothing"
        said = read_change(change, key)
        added = parse(said.added).meta["entries"] if said.added else 0
        return checked._replace(change=change, counts=(added, len(said.removed)), note="by delta"), ""

    def _by_header(self, source: Origin) -> Unchanged | None:
        """Whether the whole artifact is the one that a delta led to, by its first bytes alone.

        A delta comes without the validators of the artifact that it leads to, and to fetch that for their
        sake would cost what the delta has saved.
        """
        assert self.in_force is not None
        try:
            answer = fetch(source, headers=_HEAD_ONLY)
            data = _read(answer)
            if data is None or read_header(data) != self.in_force.header:
                return None
        except (ArtifactError, FetchError):
            return None  # the whole one will tell
        return Unchanged(self.facts.content, answer.validators, answer.fresh_for)

    def _rotated(self, source: Origin) -> Trust | None:
        """The trust with the statement that the feed has beside its artifact; None where it has none."""
        try:
            statement = _read(fetch(replace(source, url=beside(source.url, ".rotation"))))
        except FetchError:
            return None  # the signer that nobody knows is what matters
        if statement is None:
            return None
        made_folder(self._rotations.parent)
        return take_rotation(self.trust, statement, made_folder(self._rotations))

    # -- from a path

    def _at_path(self, path: Path) -> Unchanged | Candidate:
        if path.is_dir():
            return self._text(path, "", None, None)
        if not path.exists():
            raise RefusedError("absent", f"{path}: no such file")
        if path.stat().st_size > self.feed.max_size:
            raise RefusedError("too-large", f"{path}: more than max_size, {self.feed.max_size} bytes")
        fd, _ = memory.sealed_copy(path)
        try:
            return self._body(fd, None, None, None)
        finally:
            os.close(fd)

    # -- bodies

    def _body(
        self, fd: int, validators: Validators | None, fresh_for: float | None, source: Origin | None
    ) -> Unchanged | Candidate:
        head = os.pread(fd, SNIFFED, 0)
        if head.startswith(MAGIC):
            data = os.pread(fd, os.fstat(fd).st_size, 0)
            return self._artifact(data, validators, fresh_for, source)
        check_head(head)
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            digest = content(file, self.key, self.recipe)
        return self._text(fd, digest, validators, fresh_for)

    def _text(
        self, text: int | Path, digest: str, validators: Validators | None, fresh_for: float | None
    ) -> Unchanged | Candidate:
        if self.trust.keys:
            raise RefusedError("unsigned", "a text, where nothing but a signed artifact is trusted")
        if digest and self.body_is_known and digest == self.facts.content:
            return Unchanged(digest, validators, fresh_for)
        refused = self.facts.refused
        if digest and refused is not None and digest == refused.content:
            check_size(self.feed, refused.entries, self.before, self.facts.accepted, digest)
        made = compile_text(
            self.feed,
            text,
            key=self.key,
            budget=self.feed.max_errors or self.config.max_errors,
            serial=max(int(self.now), self._own_serial + 1),
            old=self.ward,
        )
        if made.equal:
            return Unchanged(digest, validators, fresh_for)
        artifact = parse(made.data)
        return Candidate(
            made.data,
            artifact.header,
            artifact.meta["entries"],
            "text",
            digest or f"folder {artifact.header.checksum.hex()}",
            validators,
            fresh_for,
            counts=(made.added, made.removed),
            bad=made.bad,
            unsupported=made.unsupported,
            first=made.first,
        )

    def _artifact(
        self,
        data: bytes,
        validators: Validators | None,
        fresh_for: float | None,
        source: Origin | None,
    ) -> Unchanged | Candidate:
        try:
            artifact = parse(data)
            header = artifact.header
            networks(artifact, self._key_of(header))  # that they open is proof that the key is the right one
        except ArtifactError as e:
            raise RefusedError(_reason(e), str(e)) from e
        self._check_trust(header, source)
        mark = header.checksum.hex()
        if self.in_force is not None and header.checksum == self.in_force.header.checksum:
            return Unchanged(mark, validators, fresh_for)
        return Candidate(data, header, artifact.meta["entries"], "artifact", mark, validators, fresh_for)

    def _check_trust(self, header: Header, source: Origin | None) -> None:
        try:
            self._check(self.trust, header)
        except TrustError as e:
            if e.reason != "unknown signer" or source is None:
                raise
            rotated = self._rotated(source)
            if rotated is None:
                raise
            self._check(rotated, header)

    def _check(self, trust: Trust, header: Header) -> None:
        last, checksum = self._last(header)
        trust.check(header, last_serial=last, last_checksum=checksum, now=self.now, grace=self.feed.grace)

    def _last(self, header: Header) -> tuple[int, bytes]:
        """Serial and checksum of the last issue that the feed has had from the same body."""
        if self.in_force is None:
            return 0 if self.moved else self.facts.highest, b""
        held = self.in_force.header
        if self.moved and (held.signer != header.signer or not any(held.signer)):
            return 0, b""
        if held.key_id == self.key.id and not any(held.signer):
            return self.facts.highest, b""  # compiled here from a text, its serial is ours
        last = max(self.facts.highest, held.serial)
        return last, held.checksum if held.serial == last else b""

    @property
    def _own_serial(self) -> int:
        """The serial in force where it is one of ours; they rise whatever the clock does."""
        if self.in_force is None or self.in_force.header.key_id != self.key.id:
            return 0
        return self.in_force.header.serial

    def _key_of(self, header: Header) -> Key:
        """The key that an artifact was compiled under."""
        if header.key_id == self.key.id:
            return self.key
        name = self.feed.key or self.config.key
        if name is None:
            raise RefusedError("key", f"compiled under key {header.key_id.hex()}, and the feed has no `key`")
        key = read_key(Path(name))
        check_key(header, key)
        return key


def _read(answer: Answer) -> bytes | None:
    """The body of an answer, which is closed; None where it has none."""
    if answer.fd is None:
        return None
    try:
        return os.pread(answer.fd, os.fstat(answer.fd).st_size, 0)
    finally:
        os.close(answer.fd)


_REASONS: dict[type[ArtifactError], str] = {
    TruncatedError: "truncated",
    NewerVersionError: "newer-version",
    WrongKeyError: "key",
}


def _reason(error: ArtifactError) -> str:
    return _REASONS.get(type(error), "damaged")
