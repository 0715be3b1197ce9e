"""Check of a feed's body: whether it may become the list in force, and the facts to judge that by."""

import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from urlward.engine.artifact import MAGIC, Artifact, Header, check_key, networks, parse
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, NewerVersionError, TruncatedError, WrongKeyError
from urlward.feeds.apart import Own
from urlward.feeds.candidate import NOTHING_SAID, Candidate, Said, Unchanged
from urlward.feeds.facts import Facts
from urlward.feeds.guards import SNIFFED, RefusedError, check_head, check_size
from urlward.feeds.source import NO_VALIDATORS, Validators, content, recipe
from urlward.feeds.text import Compiled, compile_text
from urlward.feeds.turns import Turn
from urlward.lists.rotations import restore_rotations, take_rotation
from urlward.lists.trust import Trust, TrustError, check_dates, read_trust
from urlward.progress import Progress, silent
from urlward.state.folder import made_folder
from urlward.state.keys import read_key

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable

logger = logging.getLogger("urlward.lists")

_REASONS: dict[type[ArtifactError], str] = {
    TruncatedError: "truncated",
    NewerVersionError: "newer-version",
    WrongKeyError: "key",
}


@dataclass
class Look:
    """Check of one feed's body.

    Attributes:
        feed: at which.
        config: the rest of the configuration.
        state: the state folder.
        ward: path of the artifact in force.
        key: the local one; that of a list of the operator's own.
        facts: what is remembered.
        in_force: the artifact in force.
        now: seconds since 1970-01-01 UTC.
        own: where the list is one.
        progress: told how far compiling is.
        turn: of this process, to compute.
    """

    feed: "FeedTable"
    config: "Config"
    state: Path
    ward: Path
    key: Key
    facts: Facts
    in_force: Artifact | None
    now: float
    own: Own | None = None
    progress: Progress = silent
    turn: Turn = field(default_factory=Turn)

    @property
    def recipe(self) -> str:
        """Recipe of the feed as it is configured."""
        return recipe(self.feed, self.key)

    @property
    def moved(self) -> bool:
        """Whether the list in force is of a feed that was configured otherwise."""
        return self.facts.recipe not in ("", self.recipe)

    @cached_property
    def trust(self) -> Trust:
        """Trust for the feed's signers.

        Raises:
            KeyFileError, RotationError: what the operator named cannot be used.
        """
        if self.own is not None:
            return read_trust(self.own.trust)
        trust = read_trust(self.feed.trust)
        if not trust.keys:
            return trust
        return restore_rotations(trust, self._rotations, self.state)

    @property
    def trusted(self) -> str:
        """Keys of the signers that the operator named, as text to compare."""
        return ",".join(sorted(map(str, self.trust.keys)))

    @property
    def before(self) -> int | None:
        """Number of entries that the candidate's is compared with."""
        return None if self.in_force is None or self.moved else self.in_force.meta["entries"]

    @property
    def body_is_known(self) -> bool:
        """Whether the remembered digest is of the body that the list in force was made of."""
        facts, in_force = self.facts, self.in_force
        if self.moved or in_force is None or facts.checksum != in_force.header.checksum.hex():
            return False
        # Whoever trusts others than before wants to know what they have signed.
        return facts.trusted == self.trusted

    @property
    def validators(self) -> Validators:
        """Validators of the body that the list in force was made of."""
        facts = self.facts
        if not self.body_is_known:
            return NO_VALIDATORS
        return Validators(facts.etag, facts.last_modified, facts.validators_of)

    def body(self, fd: int, said: Said = NOTHING_SAID) -> Unchanged | Candidate:
        """Check a body.

        Args:
            fd: a descriptor of its bytes.
            said: of it.

        Raises:
            UrlwardError: it is not to be taken.
        """
        head = os.pread(fd, SNIFFED, 0)
        if head.startswith(MAGIC):
            return self.artifact(os.pread(fd, os.fstat(fd).st_size, 0), said)
        if self.own is None:
            check_head(head)
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            digest = content(file, self.key, self.recipe)
        return self.text(fd, digest, said)

    def text(self, text: int | Path, digest: str = "", said: Said = NOTHING_SAID) -> Unchanged | Candidate:
        """Check a text; compiles it unless it is known.

        Args:
            text: a descriptor of its bytes, or the folder that they are in.
            digest: of the bytes; empty for a folder.
            said: of it.

        Raises:
            UrlwardError: it is not to be taken.
        """
        if self.trust.keys and self.own is None:
            raise RefusedError("unsigned", "a text, where nothing but a signed artifact is trusted")
        if self.trust.keys and any(self._last_issue.signer if self._last_issue is not None else ()):
            raise RefusedError("unsigned", "not signed: a text, in the place of a signed artifact")
        if digest and self.body_is_known and digest == self.facts.content:
            return Unchanged(digest, said.validators, said.fresh_for)
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
            own=self.own,
            progress=self.progress,
        )
        if self.own is not None:
            if self.facts.whole and not (made.whole or self.own.first):
                raise RefusedError("half", f"{self.own.path}: its last line has no end: half-written?")
            _tell(self.own.path, made)
        self.facts.whole = made.whole
        if made.equal:
            return Unchanged(digest, said.validators, said.fresh_for)
        artifact = parse(made.data)
        return Candidate(
            made.data,
            artifact.header,
            artifact.meta["entries"],
            "text",
            digest or f"folder {artifact.header.checksum.hex()}",
            said.validators,
            said.fresh_for,
            counts=(made.added, made.removed),
            bad=made.bad,
            unsupported=made.unsupported,
            first=made.first,
            format=made.format,
        )

    def artifact(self, data: bytes, said: Said = NOTHING_SAID) -> Unchanged | Candidate:
        """Check an artifact.

        Args:
            data: its bytes.
            said: of it.

        Raises:
            UrlwardError: it is not to be taken.
        """
        try:
            artifact = parse(data)
            header = artifact.header
            networks(artifact, self.key_of(header))  # that they open is proof that the key is the right one
        except ArtifactError as e:
            raise RefusedError(_REASONS.get(type(e), "damaged"), str(e)) from e
        self._check_trust(header, said)
        self.facts.whole = True
        mark = header.checksum.hex()
        if self.in_force is not None and header.checksum == self.in_force.header.checksum:
            return Unchanged(mark, said.validators, said.fresh_for)
        entries = artifact.meta["entries"]
        return Candidate(data, header, entries, "artifact", mark, said.validators, said.fresh_for)

    def key_of(self, header: Header) -> Key:
        """Key that a foreign artifact was compiled under; the local one is nobody else's.

        Raises:
            RefusedError, KeyFileError, WrongKeyError: it is not to be had.
        """
        if self.own is not None:
            check_key(header, self.key)
            return self.key
        name = self.feed.key or self.config.key
        if name is None:
            raise RefusedError("key", f"compiled under key {header.key_id.hex()}, and the feed has no `key`")
        key = read_key(Path(name))
        check_key(header, key)
        return key

    @property
    def _rotations(self) -> Path:
        """Folder of the rotation statements that this feed has brought; another's mean nothing here."""
        return self.state / "trust" / self.feed.name

    @property
    def _own_serial(self) -> int:
        """Serial in force, where it is one of ours; they rise whatever the clock does."""
        if self.in_force is None or self.in_force.header.key_id != self.key.id:
            return 0
        return self.in_force.header.serial

    @property
    def _last_issue(self) -> Header | None:
        """Last issue of the operator's own list: what is in force; nothing counts from before this run."""
        if self.own is None or self.own.first or self.in_force is None:
            return None
        return self.in_force.header

    def _check_own(self, own: Own, header: Header) -> None:
        """Check the dates of an own artifact: without a trust nobody vouches for them, so that they are
        only reported."""
        last = self._last_issue
        if self.trust.keys:
            serial, checksum = (last.serial, last.checksum) if last is not None else (0, b"")
            told = self.trust.check(header, last_serial=serial, last_checksum=checksum, now=self.now).message
        else:
            try:
                told = check_dates(header, now=self.now, grace=self.feed.grace).message
            except TrustError as e:
                told = f"{e}; taken, since no trust is set"
        if told:
            logger.warning("list %s: %s", own.path, told)

    def _check_trust(self, header: Header, said: Said) -> None:
        if self.own is not None:
            self._check_own(self.own, header)
            return
        try:
            self._check(self.trust, header)
        except TrustError as e:
            statement = said.rotation() if e.reason == "unknown signer" else None
            if statement is None:
                raise
            made_folder(self._rotations.parent, self.state)
            folder = made_folder(self._rotations, self.state)
            self._check(take_rotation(self.trust, statement, folder), header)

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


def _tell(path: str, made: Compiled) -> None:
    """Log the format that an own text is read as, and the lines that are not taken."""
    if made.format:
        logger.info("list %s: read as format %s, by its first lines", path, made.format)
    if made.bad:
        logger.warning(
            "list %s: %d of %d lines could not be read; first: %s", path, made.bad, made.lines, made.first
        )
    if made.unsupported:
        # Nothing is wrong with the list, and it is so at each reading.
        logger.info(
            "list %s: %d lines are of a kind that cannot be taken; first: %s",
            path, made.unsupported, made.first_unsupported,
        )  # fmt: skip
    if made.partly:
        logger.info(
            "list %s: %d lines are taken in part: they mean more than entries can say", path, made.partly
        )
