"""Passwords for the explicit proxy, as mitmproxy's option ``proxyauth`` configures them.

A hash is slow so that it cannot be guessed. It is computed in a thread of low priority beside the event loop,
one at a time and by turns of the networks that ask (`urlward.proxy.threads`), and what came out is
remembered under a key that this filter's workers alone have: a request costs no hash, and guesses cost others
nothing.
A password is right by a line of the file: while that stays, no change of other lines has it looked at again.
"""

import asyncio
import binascii
import hmac
import logging
import math
import mmap
import os
import random
import re
import time
import zlib
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import argon2
import bcrypt
from cachetools import TTLCache

from urlward.engine.errors import UrlwardError
from urlward.lists.run_folder import RunFolder, inherited
from urlward.plan import MOST_USERS, SHARED, USERS, VERIFIED
from urlward.proxy.mitm import ldap
from urlward.proxy.threads import Threads
from urlward.records.privacy import network_of
from urlward.regular import read_regular, without_bom
from urlward.state.path_watch import PathWatch
from urlward.state.watch import Signature

REMEMBERED: Final = 10_000
"""Wrong passwords that are remembered."""

RIGHT_FOR: Final = 600.0
WRONG_FOR: Final = 60.0
"""Seconds for which passwords are remembered: right ones where no file has hashes of them, and wrong ones."""

MOST_WAITING: Final = 4_096
"""Connections that wait for a password to be looked at."""

FULL_FOR: Final = 30.0
"""Seconds after which a waiting room that was full, and has not been so again, is no trouble any more."""

LOOK: Final = 0.5
"""Seconds between two looks at whether the file has changed, and two tries to have a thread."""

AGAIN: Final = 5.0
"""Seconds after which a file that cannot be used is read again though it has not changed."""

_DIGEST: Final = 16
_SET: Final = 8 * _DIGEST
_EMPTY: Final = bytes(_DIGEST)

_NICE = 5
_LONGEST = 72
"""Bytes of a password that bcrypt heeds; ``htpasswd`` cuts it there as well."""

_OVERDUE = 10
"""Times as long as others may a look take before nothing is said of when the next ones will be done."""

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}").fullmatch
_MOST_ARGON2 = {"time_cost": 64, "memory_cost": 1 << 18, "parallelism": 64}
"""Passes, KiB and lanes; more would be a wait for everybody."""

logger = logging.getLogger("urlward")

type Done = Callable[[], None]

type Check = Callable[[bytes, bytes, str], bool]
"""Whether a user has a password, by a line as `_Pair` has it; may be slow, and may raise."""


def read_users(path: Path) -> dict[bytes, str]:
    """Users, and the hashes of their passwords, of lines ``user:hash``; of two for one user the first counts.

    Raises:
        UrlwardError: unreadable, without users, or with a line that is not one.
    """
    return _users_of(path, _read(path))


def _read(path: Path) -> bytes:
    try:
        return without_bom(read_regular(path, MOST_USERS))
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e


def _users_of(path: Path, data: bytes) -> dict[bytes, str]:
    users: dict[bytes, str] = {}
    for number, line in enumerate(data.splitlines(), 1):
        user, colon, hashed = line.strip().partition(b":")
        if not user or user.startswith(b"#"):
            if colon and not user:
                raise UrlwardError(f"{path}:{number}: no user")
            continue
        if not _is_known(hashed.decode("latin-1")):
            what = "not a hash by bcrypt (as of htpasswd -B) or Argon2, or one that takes too long"
            raise UrlwardError(f"{path}:{number}: {what}")
        users.setdefault(user, hashed.decode("latin-1"))
    if not users:
        raise UrlwardError(f"{path}: no users")
    return users


def _is_known(hashed: str) -> bool:
    if not hashed.startswith("$argon2"):
        return _BCRYPT(hashed) is not None
    try:
        found = argon2.extract_parameters(hashed)
    except argon2.exceptions.InvalidHashError:
        return False
    return all(getattr(found, name) <= most for name, most in _MOST_ARGON2.items())


def _matches(password: bytes, hashed: str) -> bool:
    if not hashed.startswith("$argon2"):
        return bcrypt.checkpw(password[:_LONGEST], hashed.encode())
    try:
        return argon2.PasswordHasher().verify(hashed, password)
    except argon2.exceptions.VerifyMismatchError:
        return False


class _File:
    """Password file. The last valid version is kept for workers that start while it is not.

    Args:
        path: its name.
        run: the run folder that this worker shares with others; None where it is the only one.

    Attributes:
        path: its name.
        users: as they were read last.
        wrong: why they are not those of the file as it is now; empty where they are.
        seen: the signature of the file as it was read first.

    Raises:
        UrlwardError: it cannot be used, and no other worker could.
    """

    def __init__(self, path: Path, run: RunFolder | None) -> None:
        self.path = path
        self.wrong = ""
        self._run = run
        self._mark = os.fsencode(path.absolute()) + b"\0"
        self.seen = Signature.of(path)
        try:
            self.users = self.read()
        except UrlwardError as e:
            kept = self._kept()
            if kept is None:
                raise
            self.users, self.wrong = kept, str(e)

    def read(self) -> dict[bytes, str]:
        """Read the file, and keep it if it is valid.

        Raises:
            UrlwardError: it is not.
        """
        data = _read(self.path)
        users = _users_of(self.path, data)
        if self._run is not None:
            self._run.keep(USERS, self._mark + data)
        return users

    def _kept(self) -> dict[bytes, str] | None:
        kept = self._run.kept(USERS) if self._run is not None else None
        if kept is None or not kept.startswith(self._mark):
            return None
        return _users_of(self.path, kept.removeprefix(self._mark))

    def check(self, _user: bytes, password: bytes, hashed: str) -> bool:
        """Check credentials, as `Check`; equally slow for a user that does not exist."""
        return _matches(password, hashed or next(iter(self.users.values()))) and bool(hashed)


def _check_of(spec: str) -> Check:
    """The check for mitmproxy's option when it names no file."""
    if spec == "any":
        return lambda _user, _password, _line: True
    if spec.startswith("ldap"):
        try:
            check = ldap(spec)
        except Exception as e:  # noqa: BLE001 - its text has the password of the option in it
            raise UrlwardError(f"proxyauth: the LDAP server cannot be asked: {type(e).__name__}") from None
        return lambda user, password, _line: check(
            user.decode(errors="replace"), password.decode(errors="replace")
        )
    user, colon, password = spec.encode().partition(b":")
    if not colon or b":" in password:
        raise UrlwardError("proxyauth: USER:PASSWORD, @FILE, any or ldap… is needed")
    token = user + b":" + password
    return lambda user, password, _line: hmac.compare_digest(user + b":" + password, token)


class _Pair(NamedTuple):
    """User and password that a client has sent.

    Attributes:
        user: as sent.
        password: as sent.
        line: by which they are right or wrong: the user's hash, empty where there is no such user; without a
            file, a span of time.
        digest: of all.
    """

    user: bytes
    password: bytes
    line: str
    digest: bytes


class Passwords:
    """Password check for clients of the explicit proxy, with a cache of results.

    Args:
        spec: value of mitmproxy's option ``proxyauth``: ``USER:PASSWORD``, ``@FILE``, ``any`` or ``ldap…``.
        run: the run folder that this worker shares with others; what it inherited where not given.

    Attributes:
        on_trouble: told of what is wrong, by `urlward.records.metrics.TROUBLES`; with no words of its end.

    Raises:
        UrlwardError: it is none, or the file cannot be used.
    """

    def __init__(self, spec: str, run: RunFolder | None = None) -> None:
        run = inherited() if run is None else run
        path = Path(os.path.expanduser(spec[1:]))  # noqa: PTH111 - never raises
        self._file = _File(path, run) if spec.startswith("@") else None
        self._check = self._file.check if self._file is not None else _check_of(spec)
        self._scope = b"" if self._file is not None else spec.encode()
        """Others than the file's users are right by how they are asked for, which may change."""
        self._right = Verified(run)
        self._wrong: TTLCache[bytes, bool] = TTLCache(REMEMBERED, WRONG_FOR)
        self._threads = Threads(self._look, "urlward-passwords", threads=1, most=MOST_WAITING, nice=_NICE)
        self._begun = 0.0
        self._seconds = 0.0
        """Seconds that one check takes, a mean of the last ones."""
        self._told = ""
        self._full_timer: asyncio.TimerHandle | None = None
        self.on_trouble: Callable[[str, str], None] = lambda _kind, _why: None

    def known(self, token: bytes) -> bool | None:
        """Whether credentials are right; None where that is not known (any more).

        Args:
            token: user and password as in RFC 7617 section 2, in Base64.
        """
        pair = self._pair(token)
        if pair is None:
            return False
        return True if pair.digest in self._right else False if pair.digest in self._wrong else None

    def ask(self, token: bytes, address: str, done: Callable[[], None]) -> bool:
        """Start a check of credentials whose result is not known.

        Args:
            token: they.
            address: of who has sent them.
            done: called later in this thread, when `known` tells, or when another gets this one's room.

        Returns:
            Whether there was room for that.
        """
        pair = self._pair(token)
        if pair is None:
            return False
        if self._threads.ask(network_of(address), pair, partial(self._looked_at, pair, done)) is None:
            self._full()
            return False
        return True

    def admits(self, token: bytes, address: str, done: Callable[[], None]) -> bool | None:
        """Whether credentials are right and there was room to see that, as `known` and `ask`; None where
        `done` will be called."""
        known = self.known(token)
        return None if known is None and self.ask(token, address, done) else bool(known)

    def close(self) -> None:
        """Forget all results: other passwords apply from now on."""
        if self._full_timer is not None:
            self._full_timer.cancel()
        for kind in ("users", "passwords"):
            self.on_trouble(kind, "")
        self.on_trouble = lambda _kind, _why: None

    @property
    def wait(self) -> int | None:
        """Seconds until the checks that wait now will be done; None where that is not known."""
        taken = time.monotonic() - self._begun
        if not self._seconds or taken > max(_OVERDUE * self._seconds, 1.0):
            return None
        return math.ceil(self._threads.works * self._seconds)

    async def watch(self) -> None:
        """Look after the file until cancelled; one that cannot be used leaves the last one in force."""
        if self._file is None:
            return
        watch, again = PathWatch(self._file.path, self._file.seen), float("inf")
        if self._file.wrong:
            self._unusable(self._file.wrong)
            again = 0.0
        while True:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            if not (await watch.aside(watch.changed) or now >= again):
                continue
            await watch.aside(watch.acted)
            again = float("inf")
            try:
                users = await watch.aside(self._file.read)
            except UrlwardError as e:
                gone = isinstance(e.__cause__, FileNotFoundError)
                self._unusable(f"{self._file.path} is gone" if gone else str(e))
                again = now + AGAIN  # whether it may be read is no part of its signature
                continue
            self._file.users, self._file.wrong, self._told = users, "", ""
            logger.info("proxy users: %d read from %s", len(users), self._file.path)
            self.on_trouble("users", "")

    def _unusable(self, why: str) -> None:
        text = f"proxy users: {why}; those read before stay"
        if text != self._told:
            logger.error("%s", text)
        self._told = text
        self.on_trouble("users", text)

    def _full(self) -> None:
        """Log that the waiting room is full."""
        if self._full_timer is None:
            text = f"proxy users: {MOST_WAITING} connections wait for a look at a password; others get 503"
            logger.error("%s", text)
            self.on_trouble("passwords", text)
        else:
            self._full_timer.cancel()
        self._full_timer = asyncio.get_running_loop().call_later(FULL_FOR, self._has_room)

    def _has_room(self) -> None:
        self._full_timer = None
        logger.info("proxy users: all find room to wait again")
        self.on_trouble("passwords", "")

    def _pair(self, token: bytes) -> _Pair | None:
        """User and password from credentials; None if they are malformed."""
        try:
            user, colon, password = binascii.a2b_base64(token).partition(b":")
        except binascii.Error:
            return None
        if not colon:
            return None
        if self._file is not None:
            line = self._file.users.get(user, "")
            if not line.startswith("$argon2"):
                password = password[:_LONGEST]
        else:
            # Of each user another one, so that not all are looked at again at once.
            line = f"{(time.monotonic() + zlib.crc32(user) % RIGHT_FOR) // RIGHT_FOR:.0f}"
        return _Pair(
            user, password, line, self._right.digest(self._scope, line.encode("latin-1"), user, password)
        )

    def _look(self, pair: _Pair) -> bool:
        """Look at a password, in the thread."""
        self._begun = time.monotonic()
        try:
            # Another worker may have looked meanwhile.
            right = pair.digest in self._right or self._check(pair.user, pair.password, pair.line)
        except Exception as e:  # noqa: BLE001 - whatever it is, nobody gets in by it
            logger.error("proxy users: a password could not be looked at: %s", type(e).__name__)
            right = False
        taken = time.monotonic() - self._begun
        self._seconds = (3 * self._seconds + taken) / 4 if self._seconds else taken
        return right

    def _looked_at(self, pair: _Pair, done: Done, right: bool | None) -> None:
        if right is None:
            self._full()
        elif not right:
            self._wrong[pair.digest] = True
        elif pair.digest not in self._right:
            self._right.add(pair.digest)
        done()


class Verified:
    """Table of keyed digests of verified passwords, in memory that the workers of one filter share.

    A digest covers the user's hash too, so nothing has to be taken out: where that line of the file changes
    nobody asks for the digest any more. Workers write without a lock. A digest that is half of one and half
    of another is no password's, and one that is overwritten is found out anew.

    Args:
        run: the run folder that this worker shares with others; None where it is the only one.
    """

    def __init__(self, run: RunFolder | None = None) -> None:
        fd = -1 if run is None else run.memory(VERIFIED)
        self._memory = mmap.mmap(fd, SHARED[VERIFIED])
        if run is not None:
            os.close(fd)
        self._key = blake2b(
            os.urandom(32) if run is None else run.secret, person=b"urlward password"
        ).digest()

    def digest(self, *parts: bytes) -> bytes:
        """Keyed digest of these parts."""
        lengths = b"".join(b"%d." % len(part) for part in parts)
        return blake2b(lengths + b"".join(parts), key=self._key, digest_size=_DIGEST).digest()

    def __contains__(self, digest: bytes) -> bool:
        """Whether a digest is known."""
        at = self._set_of(digest)
        return self._memory.find(digest, at, at + _SET) >= 0

    def add(self, digest: bytes) -> None:
        """Add a digest, in place of another where its set is full."""
        at = self._set_of(digest)
        found = self._memory[at : at + _SET]
        free = [n for n in range(0, _SET, _DIGEST) if found[n : n + _DIGEST] == _EMPTY]
        place = at + (free[0] if free else random.randrange(0, _SET, _DIGEST))
        self._memory[place : place + _DIGEST] = digest

    @staticmethod
    def _set_of(digest: bytes) -> int:
        return int.from_bytes(digest[:4]) % (SHARED[VERIFIED] // _SET) * _SET
