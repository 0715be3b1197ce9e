"""Check of a feed's body: whether it may become the list in force, compiled where it is a text.

All of it happens in a process that ends with the refresh.
"""

import logging
import os
from collections.abc import Buffer, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urlward.engine.artifact import HEADER_SIZE, MAGIC, Artifact, Header, check_key, networks, parse
from urlward.engine.delta import changes
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.feeds.feed import Own
from urlward.feeds.guards import RefusedError, check_head, check_size
from urlward.feeds.schedule import Turn
from urlward.feeds.source import NO_VALIDATORS, Validators, content, recipe
from urlward.feeds.store import Facts, Version
from urlward.lists.build import Issue, compile_sources
from urlward.lists.formats import SNIFFED, FormatError, FormatOptions
from urlward.lists.source import ErrorBudget, SourceError, read_artifact
from urlward.lists.trust import Trust, check_dates, read_trust, restore_rotations, take_rotation
from urlward.progress import Progress, silent
from urlward.state.folder import made_folder
from urlward.state.keys import read_key

if TYPE_CHECKING:
    from urlward.config import Config, FeedTable

logger = logging.getLogger("urlward.lists")


class CompiledText(NamedTuple):
    """Result of compiling a text.

    Attributes:
        data: the artifact.
        equal: whether it is the list in force but for serial and date.
        added, removed: entries, against the list in force.
        lines: that it has.
        bad, unsupported, partly: lines that were not taken, or not all of.
        whole: whether the last line has its end.
        format: that it was recognised to be of; empty where that was said, or is the grammar.
        first, first_unsupported: where the first of those lines is, and what is wrong there.
        first_wide: likewise, of the lines that block too much.
        roots: words where most entries are root pages alone (`Report.roots_alone`).
    """

    data: bytes
    equal: bool
    added: int
    removed: int
    lines: int
    bad: int
    unsupported: int
    partly: int
    whole: bool
    first: str = ""
    first_unsupported: str = ""
    first_wide: str = ""
    format: str = ""
    roots: str = ""


@cache
def _code() -> bytes:
    code = blake2b(digest_size=16)
    here = Path(__file__).parents[1]
    for path in sorted(path for room in ("engine", "lists") for path in (here / room).rglob("*.py")):
        code.update(path.read_bytes())
    return code.digest()


def compiler_of(checksum: str) -> str:
    """Digest of an artifact's checksum and of the code that compiles, of which another release may make
    another artifact of the same text; in hexadecimal."""
    return blake2b(checksum.encode(), key=_code(), digest_size=16).hexdigest()


def compile_text(
    feed: "FeedTable",
    text: int | Path,
    *,
    key: Key,
    budget: str,
    serial: int,
    old: Path,
    own: Own | None = None,
    progress: Progress = silent,
) -> CompiledText:
    """Compile a text; takes ten seconds for a million entries.

    Args:
        feed: whose text it is.
        text: a descriptor of its bytes, or the folder that they are in.
        key: to compile under.
        budget: of bad lines.
        serial: of the artifact.
        old: the artifact in force, which need not be there.
        own: where the list is one.
        progress: told how far it is.

    Raises:
        RefusedError: no list in this format.
    """
    try:
        allowed = ErrorBudget.parse(budget)
    except ValueError as e:
        raise RefusedError("settings", f"max_errors: {e}") from e
    path = Path(f"/proc/self/fd/{text}") if isinstance(text, int) else text
    if isinstance(text, int) and not path.exists():
        raise RefusedError("system", "/proc is not mounted, by which a process reads what another has")
    # The path of a descriptor says nothing to anybody.
    shown = feed.name if own is None else own.path
    try:
        data, report = compile_sources(
            [path],
            key,
            name=feed.name if own is None else own.name,
            budget=allowed,
            issue=Issue(serial=serial),
            format=feed.format,
            options=FormatOptions(feed.columns, feed.delimiter, feed.category, take=feed.take),
            progress=progress,
        )
    except SourceError as e:
        words = str(e).removeprefix(f"{path}: ").replace(str(path), shown)
        raise RefusedError(_reason(e), words) from e
    first, first_unsupported, first_wide = (
        str(lines[0]).replace(str(path), shown) if lines else ""
        for lines in (report.bad_lines, report.unsupported_lines, report.wide)
    )
    return CompiledText(
        data,
        *_compare(data, old, count=own is None),
        report.lines,
        report.bad,
        report.unsupported,
        report.partly,
        report.ends_with_newline,
        first,
        first_unsupported,
        first_wide,
        report.recognised.get(str(path), ""),
        report.roots_alone,
    )


def _reason(error: SourceError) -> str:
    if isinstance(error.__cause__, FormatError):
        return "format"
    if isinstance(error.__cause__, OSError):
        return "unreadable"
    return "bad-lines" if error.bad_lines or error.__cause__ else "empty"


def _compare(data: Buffer, path: Path, *, count: bool) -> tuple[bool, int, int]:
    """Compare with the list in force: whether they are the same, and, if asked, how many entries are new
    and gone."""
    new = parse(data)
    try:
        before = read_artifact(path)
        old = parse(before)
    except UrlwardError:
        return False, new.entries, 0
    if old.header.key_id != new.header.key_id:
        return False, new.entries, old.entries
    # All but serial, dates and signature: the same list is the same bytes.
    equal = memoryview(before)[HEADER_SIZE:] == memoryview(data)[HEADER_SIZE:]
    return equal, *(changes(old, new) if count else (0, 0))


class Said(NamedTuple):
    """Response metadata that comes with a body.

    Attributes:
        validators: what it calls the body; None where it has not said.
        fresh_for: seconds that it calls it fresh.
        rotation: fetches the statement that lies beside the body; None where it has none.
    """

    validators: Validators | None = None
    fresh_for: float | None = None
    rotation: Callable[[], bytes | None] = lambda: None


NOTHING_SAID = Said()


class Unchanged(NamedTuple):
    """Result of a look: the list in force is what the feed has.

    Attributes:
        content: of the body.
        validators: what the server calls it; None where it has not said.
        fresh_for: seconds that it calls it fresh.
    """

    content: str
    validators: Validators | None
    fresh_for: float | None = None


class Candidate(NamedTuple):
    """Candidate: another list than the one in force; all checked but for its number of entries.

    Attributes:
        data: the artifact.
        header, entries: of it.
        kind: of the body: ``text`` or ``artifact``.
        content, validators, fresh_for: as for `Unchanged`.
        counts: entries added and removed; None where nobody has counted.
        bad, unsupported, first, format: of a text; see `CompiledText`.
        note: for the log.
    """

    data: bytes
    header: Header
    entries: int
    kind: str
    content: str
    validators: Validators | None
    fresh_for: float | None = None
    counts: tuple[int, int] | None = None
    bad: int = 0
    unsupported: int = 0
    first: str = ""
    format: str = ""
    note: str = ""


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
        keeps: whether a rotation statement that was served is kept; not where a feed is only tried.
        versions: gives the earlier artifacts that are kept.
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
    keeps: bool = True
    versions: Callable[[], Sequence[Version]] = tuple

    @property
    def recipe(self) -> str:
        """Recipe of the feed as it is configured."""
        return recipe(self.feed, self.key)

    @property
    def moved(self) -> bool:
        """Whether the list in force is of a feed that was configured otherwise."""
        return self.facts.are_of_another(self.recipe)

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
        return None if self.in_force is None or self.moved else self.in_force.entries

    @property
    def body_is_known(self) -> bool:
        """Whether the remembered digest is of the body that the list in force was made of."""
        facts, in_force = self.facts, self.in_force
        if self.moved or in_force is None or facts.checksum != in_force.header.checksum.hex():
            return False
        if facts.kind == "text" and facts.compiler != compiler_of(facts.checksum):
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
            # What this code makes of it may pass where what the release before made was refused.
            digest = content(file, self.key, self.recipe + _code().hex())
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
            artifact.entries,
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
            raise RefusedError(e.reason, str(e)) from e
        self._check_trust(header, said)
        self._check_name(artifact.meta["name"])
        self.facts.whole = True
        mark = header.checksum.hex()
        if self.in_force is not None and header.checksum == self.in_force.header.checksum:
            return Unchanged(mark, said.validators, said.fresh_for)
        entries = artifact.entries
        return Candidate(data, header, entries, "artifact", mark, said.validators, said.fresh_for)

    def kept(self, header: Header) -> bytes | None:
        """The artifact that a header begins, made of one that is or was in force and says the same."""
        for path in (self.ward, *(version.path for version in self.versions())):
            with suppress(SourceError, ArtifactError, OSError):
                if path.stat().st_size != header.size:
                    continue
                made = header.raw + bytes(memoryview(read_artifact(path))[HEADER_SIZE:])
                parse(made)
                return made
        return None

    def was_in_force(self, found: Candidate) -> bool:
        """Whether a candidate says what an earlier list said, and who is trusted has signed it anew: it takes
        back a list that was wrong, and its size is no surprise."""
        if found.kind != "artifact" or not self.trust.keys:
            return False
        body = memoryview(found.data)[HEADER_SIZE:]
        for version in self.versions():
            with suppress(SourceError):
                if memoryview(read_artifact(version.path))[HEADER_SIZE:] == body:
                    return True
        return False

    def key_of(self, header: Header) -> Key:
        """Key that a foreign artifact was compiled under; the local one is nobody else's.

        Raises:
            RefusedError, KeyFileError, ArtifactError: it is not to be had.
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
            except ArtifactError as e:
                told = f"{e}; taken, since no trust is set"
        if told:
            logger.warning("list %s: %s", own.path, told)

    def _check_trust(self, header: Header, said: Said) -> None:
        if self.own is not None:
            self._check_own(self.own, header)
            return
        try:
            self._check(self.trust, header)
        except ArtifactError as e:
            statement = said.rotation() if e.reason == "unknown signer" else None
            if statement is None:
                raise
            folder = None
            if self.keeps:
                made_folder(self._rotations.parent, self.state)
                folder = made_folder(self._rotations, self.state)
            self._check(take_rotation(self.trust, statement, folder), header)

    def _check_name(self, name: str) -> None:
        """Check that a list is not another one of those that its body signs with the same key, as a publisher
        does with all. Only where the one in force goes by the feed's name: others may name each issue.

        Raises:
            RefusedError: it is.
        """
        held = self.in_force
        if held is None or self.moved or self.own is not None or not any(held.header.signer):
            return
        if held.meta["name"] == self.feed.name != name:
            text = f"a list called {name}, and {self.feed.name} is in force: if renamed, rename the feed"
            raise RefusedError("another-list", text)

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


def _tell(path: str, made: CompiledText) -> None:
    """Log the format that an own text is read as, and the lines that are not taken."""
    if made.format:
        logger.info("list %s: read as format %s, by its first lines", path, made.format)
    if made.bad:
        logger.warning(
            "list %s: %d of %d lines could not be read; first: %s", path, made.bad, made.lines, made.first
        )
    if made.first_wide:
        logger.warning("list %s: blocks more than is usually meant; first: %s", path, made.first_wide)
    if made.roots:
        logger.warning("list %s: %s", path, made.roots)
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
