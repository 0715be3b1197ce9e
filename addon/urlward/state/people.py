"""People of the dashboard: who gets in, by which token, and in which role.

``people.json`` in the state folder has a name, a role and the SHA-256 of a token for each, never a token.
Tokens are 32 random bytes, or as hard to guess (`urlward.state.token`): nobody finds one by trying, however
fast its digest is computed, and a slow one, as passwords need, would only slow each request of a script down.
Digests are compared in constant time.

One person comes from a file: `ADMIN` has the token in ``admin.token`` (`admit`), by which the first gets in.
"""

import hashlib
import hmac
import logging
import re
import secrets
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal, get_args

from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.state.audit import append_in_lock
from urlward.state.folder import KeptFile, locked, made_folder, unusable
from urlward.state.token import read_token, token_of
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.records")

Role = Literal["viewer", "operator"]
"""What somebody may do: see, or also change. Each may what those before may."""

ROLES: tuple[Role, ...] = get_args(Role)

FILE = "people.json"

ADMIN = "admin"
"""Name of the person whose token is in a file."""

MOST = 500
MAX_NAME = 64
LONGEST_DAYS = 3_650

_DAY = 86_400
_NAME = re.compile(r"[^\W_](?:[\w.@'+-]| (?! )){0,63}(?<! )").fullmatch
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class Person:
    """Person who may use the dashboard.

    Attributes:
        name: unique, whatever the case of its letters.
        role: of `ROLES`.
        digest: SHA-256 of the token, in hexadecimal.
        created: seconds since 1970-01-01 UTC, as is `until`.
        until: the token is good before this time; 0 for always.
        grant: changes with the token and the role; sessions are bound to it.
    """

    name: str
    role: Role
    digest: str = field(repr=False)
    created: int
    until: int = 0
    grant: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def is_current(self, now: float) -> bool:
        """Whether the token is still good."""
        return not self.until or now < self.until


def may(role: Role, needed: Role) -> bool:
    """Whether a role includes another."""
    return ROLES.index(role) >= ROLES.index(needed)


def add_person(
    state: Path,
    name: str,
    role: str,
    who: str,
    *,
    now: float,
    days: int | None = None,
    token: Path | None = None,
) -> tuple[Person, str]:
    """Add a person.

    Args:
        state: the state folder.
        name: of letters, digits and ``. @ ' + - _``, in words.
        role: of `ROLES`.
        who: adds them.
        now: seconds since 1970-01-01 UTC.
        days: that the token is good for; None for always.
        token: file with the token, where none is to be made.

    Returns:
        The person, and the token, which is kept nowhere. Who is there already with that token, and differs in
        nothing, stays.

    Raises:
        UrlwardError: a value is not as above, or the name or token is somebody's.
        UrlwardError: the token could be guessed, or others can read its file.
        StateError: the folder cannot be used.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not _NAME(name):
        raise UrlwardError(
            f"name: at most {MAX_NAME} letters, digits and . @ ' + - _ in words, a letter or digit first"
        )
    if days is not None and not 0 < days <= LONGEST_DAYS:
        raise UrlwardError(f"days: 1 to {LONGEST_DAYS}")
    until = 0 if days is None else int(now) + days * _DAY
    secret = secrets.token_urlsafe(32) if token is None else token_of(token)
    person = Person(name, role_of(role), digest_of(secret), int(now), until)
    with locked(made_folder(state)):
        people = read_people(state)
        same = [one for one in people if _differs_in_nothing(one, person)]
        if same:
            return same[0], secret
        if any(_same_name(one.name, name) for one in people) or _same_name(name, ADMIN):
            raise UrlwardError(f"{name}: is there already")
        if any(one.digest == person.digest for one in people):
            raise UrlwardError("token: is somebody else's")
        if len(people) >= MOST:
            raise UrlwardError(f"at most {MOST} people")
        _audit(state, now, who, "person-added", person)
        _KEPT.write(state, [*people, person])
    return person, secret


def _differs_in_nothing(one: Person, other: Person) -> bool:
    fields = attrgetter("name", "role", "digest", "until")
    return bool(fields(one) == fields(other))


def remove_person(state: Path, name: str, who: str, *, now: float, token_file: Path) -> Person:
    """Remove a person, whose token and sessions are worth nothing from here on.

    Args:
        state: the state folder.
        name: whose.
        who: removes them.
        now: seconds since 1970-01-01 UTC.
        token_file: `ADMIN`'s, which goes too.

    Raises:
        UrlwardError: nobody has that name, nobody else is an operator, or the token's file is the
            configuration's.
        StateError: the folder cannot be used.
    """
    with locked(made_folder(state)):
        people = read_people(state)
        person = _named(people, name)
        _keep_an_operator(people, person, now)
        if person.name == ADMIN and token_file.parent != state and token_file.exists():
            raise UrlwardError(
                f"{ADMIN}: has the token in {token_file}: take admin.token_file from the configuration"
            )
        _audit(state, now, who, "person-removed", person)
        if person.name == ADMIN and token_file.parent == state:
            try:
                token_file.unlink(missing_ok=True)  # first: a start lets in who has one that was left
            except OSError as e:
                raise unusable(token_file, e) from e
        _KEPT.write(state, [one for one in people if one is not person])
    return person


def change_role(state: Path, name: str, role: str, who: str, *, now: float) -> Person:
    """Give a person another role; their sessions end.

    Raises:
        UrlwardError: nobody has that name, there is no such role, or nobody else is an operator.
        StateError: the folder cannot be used.
    """
    wanted = role_of(role)
    with locked(made_folder(state)):
        people = read_people(state)
        person = _named(people, name)
        if person.role == wanted:
            return person
        _keep_an_operator(people, person, now)
        changed = replace(person, role=wanted, grant=secrets.token_hex(8))
        _audit(state, now, who, "person-role", changed, before=person.role)
        _KEPT.write(state, [changed if one is person else one for one in people])
    return changed


def admit(state: Path, token_file: Path, now: float) -> None:
    """Let `ADMIN` in by the token in a file, as an operator where they are new.

    The file is made where there is none and it is needed: where nobody else is an operator, or `ADMIN` has
    been let in by it before, so that removing it gives another token.

    Args:
        state: the state folder.
        token_file: of the token.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: others can read it, or it could be guessed.
        StateError: the folder or the file cannot be used.
    """
    people = read_people(made_folder(state))
    needed = any(one.name == ADMIN for one in people) or not _operators(people, now)
    if not needed and not token_file.exists():
        return
    digest = digest_of(read_token(token_file))
    with locked(state):
        people = read_people(state)
        admin = next((one for one in people if one.name == ADMIN), None)
        if admin is None:
            admin = Person(ADMIN, "operator", digest, int(now))
            _audit(state, now, "", "person-added", admin)
            _KEPT.write(state, [admin, *people])
        elif admin.digest != digest:
            changed = replace(admin, digest=digest, grant=secrets.token_hex(8))
            _audit(state, now, "", "person-token", changed)
            _KEPT.write(state, [changed if one is admin else one for one in people])


class People:
    """People of a state folder, as of now: another process may add or remove some. Thread-safe; costs a
    ``stat`` where nothing has changed.

    Args:
        state: the folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path = state / FILE
        self._lock = threading.Lock()
        self._known: tuple[Signature | None, list[Person]] = (None, [])

    def by_token(self, token: str, now: float) -> Person | None:
        """Whose token it is; None where it is nobody's, or no longer good."""
        digest = digest_of(token)
        found = [one for one in self._people() if hmac.compare_digest(one.digest, digest)]
        return next((one for one in found if one.is_current(now)), None)

    def by_grant(self, grant: str, now: float) -> Person | None:
        """Who a session was begun by; None where they are gone, or have another role or token since."""
        return next((one for one in self._people() if one.grant == grant and one.is_current(now)), None)

    def _people(self) -> list[Person]:
        with self._lock:
            signature = Signature.of(self._path)
            if signature != self._known[0] or signature is None:
                try:
                    self._known = signature, read_people(self._state)
                except UrlwardError as e:
                    logger.error("admin: nobody gets in: %s", e)
                    self._known = signature, []
            return self._known[1]


def read_people(state: Path) -> list[Person]:
    """Read who there is, the expired included, in the order of adding.

    Raises:
        UrlwardError: of another version of urlward.
        StateError: it cannot be read.
    """
    return _KEPT.read(state)


def person_row(person: Person, now: float) -> dict[str, str | bool]:
    """Format a person as a JSON object, without what belongs to the token."""
    return {
        "name": person.name,
        "role": person.role,
        "created": time_text(person.created),
        "until": time_text(person.until) if person.until else "",
        "expired": not person.is_current(now),
    }


def role_of(text: str) -> Role:
    """Parse a role.

    Raises:
        UrlwardError: there is none of that name.
    """
    for role in ROLES:
        if role == text:
            return role
    raise UrlwardError(f"role: {' or '.join(ROLES)}")


def digest_of(token: str) -> str:
    """SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _same_name(one: str, other: str) -> bool:
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _named(people: Iterable[Person], name: str) -> Person:
    for one in people:
        if _same_name(one.name, name):
            return one
    raise UrlwardError("nobody has that name")


def _operators(people: Iterable[Person], now: float) -> list[Person]:
    return [one for one in people if one.role == "operator" and one.is_current(now)]


def _keep_an_operator(people: Iterable[Person], leaving: Person, now: float) -> None:
    if _operators(people, now) == [leaving]:
        raise UrlwardError(f"{leaving.name}: nobody else is an operator: add one before")


def _checked(person: Person) -> Person:
    texts = (person.name, person.digest, person.grant)
    if not all(isinstance(text, str) for text in texts) or not _DIGEST(person.digest) or not person.grant:
        raise ValueError("not a person")
    if person.role not in ROLES or not all(isinstance(time, int) for time in (person.created, person.until)):
        raise ValueError("not a role, or not times")
    return person


_KEPT = KeptFile(
    FILE, "people", Person, _checked,
    "nobody gets in by a token: a restart lets in who has the one in admin.token, `urlward admin add` others",
)  # fmt: skip


def _audit(state: Path, now: float, who: str, action: str, person: Person, **more: str) -> None:
    # Told first: whatever fails between the two, nobody is let in whom the record does not have.
    until = {"until": time_text(person.until)} if person.until else {}
    append_in_lock(state, who, action, now, name=person.name, role=person.role, **until, **more)
