"""Trust: whose lists are accepted, and which of their issues; files of signing keys.

Trust begins with public keys that the operator names. A rotation statement (`urlward.engine.signing`)
signed by one of them passes it on to the next: from then on the old key's artifacts are good up to the
statement's serial alone. Whoever stole the old key can sign a statement too, so of two different ones by the
same key the first that was taken holds, and the second is refused loudly.

Statements that feeds have served are stored, so that a restart trusts whom the process before did: a folder
with one file for each key that has handed over, named after it. The first statement by a key that is taken
stays, also where several processes take one at the same moment.
"""

import logging
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from urlward.engine.artifact import Header
from urlward.engine.dates import time_text
from urlward.engine.errors import ArtifactError, KeyFileError, RotationError
from urlward.engine.signing import (
    ROTATION_MAGIC,
    SIGNING_KEY_SIZE,
    PublicKey,
    Rotation,
    SigningKey,
    check_signature,
    parse_public_key,
    parse_rotation,
    parse_signing_key,
    signer_of,
)
from urlward.lists.source import SourceError
from urlward.regular import read_regular, write_new
from urlward.state.folder import StateError, is_damage, set_aside
from urlward.state.keys import MAX_KEY_FILE, read_key_file, write_key_file
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")


def public_beside(path: Path) -> Path:
    """Path of the public half of a private key file."""
    return path.parent / f"{path.name}.pub"


def new_signing_key(path: Path) -> SigningKey:
    """Make a signing key: a private file for its owner alone, and the public one beside it.

    Raises:
        KeyFileError: one of them is there already, or cannot be written. Then neither is made.
    """
    key = SigningKey(secrets.token_bytes(SIGNING_KEY_SIZE))
    public = public_beside(path)
    write_key_file(path, key.pem(), 0o600)
    try:
        write_key_file(public, key.public.pem(), 0o644)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return key


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key file.

    Raises:
        KeyFileError: missing, unreadable or not a private key.
    """
    return read_key_file(path, parse_signing_key)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key file.

    Raises:
        KeyFileError: missing, unreadable or not a public key.
    """
    return read_key_file(path, parse_public_key)


GRACE = 7 * 86400.0
"""Seconds for which an expired list is still taken, under an alarm."""

MAX_ROTATIONS = 100
"""Statements that one trust takes in."""

_SHARE, _LONGEST = 10, 7 * 86400
_NAMED_KEYS = 3
_HEX = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class Validity:
    """Validity of an artifact: how long it may be used.

    Attributes:
        state: ``expiring`` in the last tenth of its time or the last week, whichever is shorter;
            ``expired`` when past it, but in grace.
        until: end of its time, seconds since 1970-01-01 UTC; 0 for none.
        message: a sentence for the alarm; empty where `state` is ``ok``.
        signer: whose signature has been verified; None where none was asked for.
    """

    state: Literal["ok", "expiring", "expired"]
    until: int
    message: str
    signer: PublicKey | None = None


class _Term(NamedTuple):
    """Term of a signing key: from a time on, and up to a serial where it has been retired."""

    start: int
    retired: Rotation | None


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust: public keys, and the rotation statements from one key to the next; without keys, nothing has to
    be signed.

    Args:
        keys: named by the operator.
        rotations: statements, in any order; those that lead from no trusted key count for nothing.

    Raises:
        RotationError: two of them contradict each other, they run in a circle, or are too many.
    """

    keys: frozenset[PublicKey] = frozenset()
    rotations: tuple[Rotation, ...] = ()
    _terms: dict[PublicKey, _Term] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_terms", _terms(self.keys, self.rotations))

    def with_rotation(self, rotation: Rotation) -> "Trust":
        """Extend the trust by one more statement; itself where it has that already.

        Raises:
            RotationError: its old key is not trusted, or it contradicts what has been taken.
        """
        if rotation in self.rotations:
            return self
        if rotation.old not in self._terms:
            raise RotationError(
                f"a rotation from {rotation.old.short}, which is not trusted ({_listed(self._terms)})"
            )
        return Trust(self.keys, (*self.rotations, rotation))

    def check(
        self,
        header: Header,
        *,
        last_serial: int,
        now: float,
        last_checksum: bytes = b"",
        grace: float = GRACE,
    ) -> Validity:
        """Check whether an artifact may be taken, and for how long.

        Args:
            header: of `urlward.engine.artifact.read_header`, so that nothing of a refused artifact need be
                parsed. Only `urlward.engine.artifact.parse` ties the rest of one to its header.
            last_serial: of the last issue taken; 0 for none.
            now: seconds since 1970-01-01 UTC.
            last_checksum: of the last issue taken; another artifact of the same serial is refused. Empty
                where it is not known.
            grace: seconds for which an expired artifact is still taken.

        Raises:
            ArtifactError: why not.
        """
        signer = self.check_signer(header, now=now)
        check_serial(header, last_serial, last_checksum)
        return check_dates(header, now=now, grace=grace, signer=signer)

    def check_signer(self, header: Header, *, now: float) -> PublicKey | None:
        """Check that an artifact has been signed by a trusted key; None where this trust has no keys.

        Raises:
            ArtifactError: ``unsigned``, ``unknown signer``, ``bad signature``, ``key not yet in use``,
                ``retired key``.
        """
        if not self.keys:
            return None
        known = _listed(self._terms)
        signer = signer_of(header)
        term = self._terms.get(signer) if signer else None
        if signer and term is None:
            text = f"signed by {signer.short}, trusted: {known}; is a rotation statement missing?"
            raise ArtifactError(text, "unknown signer")
        try:
            signer = check_signature(header)
        except ArtifactError as e:
            if e.reason == "unsigned":
                raise ArtifactError(f"not signed, trusted: {known}", "unsigned") from e
            raise ArtifactError(str(e), "bad signature") from e
        _check_term(header, signer, self._terms[signer], now)
        return signer


def read_trust(paths: Sequence[str | Path]) -> Trust:
    """Make a trust of the operator's settings.

    Args:
        paths: files of public keys or of rotation statements, and public keys of 64 hexadecimal digits; none
            of them for a trust without keys.

    Raises:
        KeyFileError: a file is missing or neither, or there are statements and no key.
        RotationError: a statement is none, or contradicts another.
    """
    keys: list[PublicKey] = []
    rotations: list[Rotation] = []
    for path in paths:
        found = _read(path)
        if isinstance(found, Rotation):
            rotations.append(found)
        else:
            keys.append(found)
    if paths and not keys:
        # A trust without keys would take everything.
        raise KeyFileError("trust: rotation statements alone; name the public key that they begin with")
    return Trust(frozenset(keys), tuple(dict.fromkeys(rotations)))


def check_serial(header: Header, last_serial: int, last_checksum: bytes = b"") -> None:
    """Refuse an issue that has been overtaken; see `Trust.check`.

    Raises:
        ArtifactError: ``older serial``, ``forked serial``.
    """
    serial = header.serial
    if serial < last_serial:
        text = f"serial {serial}, but {last_serial} has been taken: an older artifact, served again"
        raise ArtifactError(text, "older serial")
    if serial == last_serial and last_checksum and last_checksum != header.checksum:
        found, expected = header.checksum.hex(), last_checksum.hex()
        text = f"serial {serial} has been taken with checksum {expected}, this one has {found}"
        raise ArtifactError(f"{text}: two artifacts of one serial", "forked serial")


def check_dates(header: Header, *, now: float, grace: float, signer: PublicKey | None = None) -> Validity:
    """Check an artifact's dates, and for how long it is good; see `Trust.check`.

    Raises:
        ArtifactError: ``not yet valid``, ``expired``.
    """
    start, until = header.valid_from, header.valid_until
    if now < start:
        text = f"valid from {time_text(start)}, which is to come (is the clock right?)"
        raise ArtifactError(text, "not yet valid")
    if not until:
        return Validity("ok", until, "", signer)
    end = time_text(until)
    if now >= until + grace:
        text = f"expired at {end}, and the {_span(grace)} of grace are over: a newer issue is needed"
        raise ArtifactError(text, "expired")
    if now >= until:
        left = _span(until + grace - now)
        return Validity("expired", until, f"expired at {end}, is not taken any more in {left}", signer)
    if until - now <= min(max(until - (start or header.created), 0) / _SHARE, _LONGEST):
        return Validity("expiring", until, f"expires at {end}, in {_span(until - now)}", signer)
    return Validity("ok", until, "", signer)


def _check_term(header: Header, signer: PublicKey, term: _Term, now: float) -> None:
    if now < term.start:
        start = time_text(term.start)
        text = f"signed by {signer.short}, which signs from {start} (is the clock right?)"
        raise ArtifactError(text, "key not yet in use")
    if term.retired is not None and header.serial > term.retired.last_serial:
        last, new = term.retired.last_serial, term.retired.new
        text = f"serial {header.serial} signed by {signer.short}, which was retired after serial {last}"
        raise ArtifactError(f"{text} for {new.short}", "retired key")


def _terms(keys: Iterable[PublicKey], rotations: Sequence[Rotation]) -> dict[PublicKey, _Term]:
    """Compute the terms of all keys, following the statements from each key to the last."""
    if len(rotations) > MAX_ROTATIONS:
        raise RotationError(f"{len(rotations)} rotation statements, at most {MAX_ROTATIONS} are taken")
    next_of: dict[PublicKey, Rotation] = {}
    for rotation in rotations:
        other = next_of.setdefault(rotation.old, rotation)
        if other != rotation:
            raise RotationError(
                f"two rotations from {rotation.old.short}, to {other.new.short} and to {rotation.new.short}: "
                "one of them may be a thief's, ask the list body"
            )
    terms: dict[PublicKey, _Term] = {}
    for root in keys:
        key, start, seen = root, 0, {root}
        while True:
            rotation_on = next_of.get(key)
            known = terms.get(key)
            terms[key] = _Term(min(start, known.start) if known else start, rotation_on)
            if rotation_on is None:
                break
            key, start = rotation_on.new, max(start, rotation_on.start)
            if key in seen:
                raise RotationError(f"rotations that lead back to {key.short}")
            seen.add(key)
    return terms


def _read(path: str | Path) -> PublicKey | Rotation:
    if isinstance(path, str) and _HEX.fullmatch(path):
        return parse_public_key(path.encode())
    return read_key_file(
        Path(os.path.expanduser(path)),  # noqa: PTH111 - never raises
        lambda data: parse_rotation(data) if data.startswith(ROTATION_MAGIC) else parse_public_key(data),
    )


def _listed(keys: Iterable[PublicKey]) -> str:
    names = sorted(key.short for key in keys)
    more = len(names) - _NAMED_KEYS
    return ", ".join(names[:_NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")


def _span(seconds: float) -> str:
    """Format a duration in the unit that fits it."""
    for unit, size in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds / 60, 0):.0f} minutes"


SUFFIX = ".rotation"


def take_rotation(trust: Trust, data: bytes, folder: Path | None) -> Trust:
    """Extend a trust by a served statement, which is stored; the same trust where it was known.

    Args:
        trust: what is trusted so far.
        data: the statement.
        folder: where statements are kept; made where it is missing. None where this one is not to be.

    Raises:
        RotationError: not a statement, not from a trusted key, or contradicting one taken before.
        SourceError: it cannot be kept, and has not been taken.
    """
    if len(data) > MAX_KEY_FILE:
        raise RotationError(f"not a rotation statement: {len(data)} bytes")
    rotation = parse_rotation(data)
    made = trust.with_rotation(rotation)
    if made is not trust and folder is not None:
        _keep(rotation, folder)
        logger.warning(
            "list %s: by a statement of %s another key signs from now on: %s; ask the body whether it is "
            "theirs, and name it in trust",
            folder.name,
            rotation.old.short,
            rotation.new,
        )
    return made


def restore_rotations(trust: Trust, folder: Path, state: Path | None = None) -> Trust:
    """Extend a trust by the stored statements; one that is invalid, or fits no more, is logged.

    Args:
        trust: what the operator gives.
        folder: where statements are kept; none where it is missing.
        state: the state folder, in which a statement that is none is set aside, so that it is taken anew from
            where it came; it stays where not given.
    """
    waiting = _kept(folder, state)
    reasons: dict[Path, RotationError] = {}
    before = None
    while before != len(waiting):
        # A statement may come in front of the one that its key is trusted by.
        before = len(waiting)
        for path, rotation in list(waiting.items()):
            try:
                trust = trust.with_rotation(rotation)
            except RotationError as e:
                reasons[path] = e
            else:
                del waiting[path]
    for path in waiting:
        logger.warning("trust %s: not counted: %s", path, reasons[path])
    return trust


def _kept(folder: Path, state: Path | None) -> dict[Path, Rotation]:
    found: dict[Path, Rotation] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        seen = Signature.of(path)
        try:
            found[path] = parse_rotation(read_regular(path))
        except (RotationError, KeyFileError, OSError) as e:
            if state is not None and (not isinstance(e, OSError) or is_damage(e)):
                with suppress(StateError):
                    set_aside(state, path, e, "taken anew beside the list", seen=seen)
                    continue
            logger.warning("trust %s: not counted: %s", path, e)
    return found


def _keep(rotation: Rotation, folder: Path) -> None:
    path = folder / f"{rotation.old}{SUFFIX}"
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_new(temporary, rotation.text(), 0o644)
        try:
            os.link(temporary, path)  # which, unlike a rename, never replaces
        except FileExistsError as e:
            if read_regular(path) != rotation.text():
                known = f"another rotation from {rotation.old.short} has been taken"
                raise RotationError(f"{path}: {known}") from e
        finally:
            temporary.unlink()
    except OSError as e:
        raise SourceError(f"{path}: {e.strerror or e}") from e
