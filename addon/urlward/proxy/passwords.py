"""Passwords of those who may use an explicit proxy, as mitmproxy's option ``proxyauth`` names them.

A hash is slow so that it cannot be guessed. It is computed in a thread of low priority beside the event loop,
one at a time and by turns of the addresses that ask, and what came out is remembered for a while under a key
that this process alone has: a request costs no hash, and guesses cost others nothing.
"""

import asyncio
import binascii
import hmac
import logging
import os
import re
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

import argon2
import bcrypt
from cachetools import TTLCache

from urlward.engine.errors import UrlwardError
from urlward.lists.feed_watch import PathWatch
from urlward.lists.files import read_regular

REMEMBERED: Final = 10_000
"""Passwords that are remembered, right ones and wrong ones each."""

RIGHT_FOR: Final = 600.0
WRONG_FOR: Final = 60.0
"""Seconds for which they are."""

MOST_WAITING: Final = 256
EACH_WAITING: Final = 16
"""Passwords that wait to be looked at, of all and of one address."""

LOOK: Final = 0.5
"""Seconds between two looks at whether the file has changed."""

_MOST_BYTES = 16 << 20
_NICE = 5
_LONGEST = 72
"""Bytes of a password that bcrypt heeds; ``htpasswd`` cuts it there as well."""

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}").fullmatch
_MOST_ARGON2 = {"time_cost": 64, "memory_cost": 1 << 18, "parallelism": 64}
"""Passes, KiB and lanes; more would be a wait for everybody."""

logger = logging.getLogger("urlward")

type Check = Callable[[bytes, bytes], bool]
"""Whether a user has a password; may be slow, and may raise."""


class PasswordError(UrlwardError):
    """Nobody can be asked for a password that way."""


def read_users(path: Path) -> dict[bytes, str]:
    """Users, and the hashes of their passwords, of lines ``user:hash``; of two for one user the first counts.

    Raises:
        PasswordError: unreadable, without users, or with a line that is not one.
    """
    users: dict[bytes, str] = {}
    try:
        lines = read_regular(path, _MOST_BYTES).splitlines()
    except OSError as e:
        raise PasswordError(f"{path}: {e.strerror or e}") from e
    for number, line in enumerate(lines, 1):
        user, colon, hashed = line.strip().partition(b":")
        if not user or user.startswith(b"#"):
            if colon and not user:
                raise PasswordError(f"{path}:{number}: no user")
            continue
        if not _is_known(hashed.decode("latin-1")):
            what = "not a hash by bcrypt (as of htpasswd -B) or Argon2, or one that takes too long"
            raise PasswordError(f"{path}:{number}: {what}")
        users.setdefault(user, hashed.decode("latin-1"))
    if not users:
        raise PasswordError(f"{path}: no users")
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
    """A file of users.

    Attributes:
        path: its name.
        users: as they were read last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = read_users(path)

    def check(self, user: bytes, password: bytes) -> bool:
        """As `Check`; as slow for a user that there is not."""
        users = self.users
        matches = _matches(password, users.get(user) or next(iter(users.values())))
        return matches and user in users


def _check_of(spec: str) -> Check:
    """What mitmproxy's option says, other than a file."""
    if spec == "any":
        return lambda _user, _password: True
    if spec.startswith("ldap"):
        from mitmproxy.addons.proxyauth import Ldap

        try:
            ldap = Ldap(spec)
        except Exception as e:  # noqa: BLE001 - its text has the password of the option in it
            raise PasswordError(f"proxyauth: the LDAP server cannot be asked: {type(e).__name__}") from None
        return lambda user, password: ldap(user.decode(errors="replace"), password.decode(errors="replace"))
    user, colon, password = spec.encode().partition(b":")
    if not colon or b":" in password:
        raise PasswordError("proxyauth: USER:PASSWORD, @FILE, any or ldap… is needed")
    token = user + b":" + password
    return lambda user, password: hmac.compare_digest(user + b":" + password, token)


class Passwords:
    """Looks passwords up.

    Args:
        spec: value of mitmproxy's option ``proxyauth``: ``USER:PASSWORD``, ``@FILE``, ``any`` or ``ldap…``.

    Raises:
        PasswordError: it is none, or the file cannot be used.
    """

    def __init__(self, spec: str) -> None:
        self._file = _File(Path(spec[1:]).expanduser()) if spec.startswith("@") else None
        self._check = self._file.check if self._file is not None else _check_of(spec)
        self._secret = os.urandom(32)
        self._right: TTLCache[bytes, bool] = TTLCache(REMEMBERED, RIGHT_FOR)
        self._wrong: TTLCache[bytes, bool] = TTLCache(REMEMBERED, WRONG_FOR)
        self._asked: dict[bytes, list[Callable[[], None]]] = {}
        """Who is to be told of what is looked at, or waits for that."""
        self._turns: dict[str, deque[tuple[bytes, bytes]]] = {}
        """What waits of each address; the first one's turn is next."""
        self._work: SimpleQueue[tuple[asyncio.AbstractEventLoop, bytes, bytes]] = SimpleQueue()
        self._thread: Thread | None = None
        self._busy = False
        self._epoch = 0

    def known(self, token: bytes) -> bool | None:
        """Whether credentials are right; None where that is not known (any more).

        Args:
            token: user and password as in RFC 7617 section 2, in Base64.
        """
        digest = self._digest(token)
        return True if digest in self._right else False if digest in self._wrong else None

    def ask(self, token: bytes, address: str, done: Callable[[], None]) -> bool:
        """Have credentials looked at that are not known.

        Args:
            token: they.
            address: of who has sent them.
            done: called later in this thread, when `known` tells.

        Returns:
            Whether there was room for that.
        """
        digest = self._digest(token)
        waiting = self._asked.get(digest)
        if waiting is not None:
            if len(waiting) >= MOST_WAITING:
                return False
            waiting.append(done)
            return True
        if len(self._asked) >= MOST_WAITING or len(self._turns.get(address, ())) >= EACH_WAITING:
            return False
        self._asked[digest] = [done]
        self._turns.setdefault(address, deque()).append((digest, token))
        self._next()
        return True

    async def watch(self) -> None:
        """Look after the file until cancelled; one that cannot be used leaves the last one in force."""
        if self._file is None:
            return
        watch = PathWatch(self._file.path)
        watch.acted()
        while True:
            await asyncio.sleep(LOOK)
            if not watch.changed():
                continue
            watch.acted()
            if not self._file.path.exists():
                logger.error("proxy users: %s is gone; those read before stay", self._file.path)
                continue
            try:
                users = await asyncio.to_thread(read_users, self._file.path)
            except PasswordError as e:
                logger.error("proxy users: %s; those read before stay", e)
                continue
            self._file.users = users
            self._epoch += 1
            self._right.clear()
            self._wrong.clear()
            logger.info("proxy users: %d read from %s", len(users), self._file.path)

    def _digest(self, token: bytes) -> bytes:
        return blake2b(token, key=self._secret, digest_size=16).digest()

    def _next(self) -> None:
        if self._busy or not self._turns:
            return
        address, waiting = next(iter(self._turns.items()))
        digest, token = waiting.popleft()
        del self._turns[address]
        if waiting:
            self._turns[address] = waiting  # behind the others
        self._busy = True
        if self._thread is None:
            # A daemon, since an LDAP server that is silent cannot be interrupted.
            self._thread = Thread(target=self._run, name="urlward-passwords", daemon=True)
            self._thread.start()
        self._work.put((asyncio.get_running_loop(), digest, token))

    def _run(self) -> None:
        os.nice(_NICE)  # of this thread alone, on Linux
        while True:
            loop, digest, token = self._work.get()
            epoch = self._epoch
            try:
                user, colon, password = binascii.a2b_base64(token).partition(b":")
                right = bool(colon) and self._check(user, password)
            except binascii.Error:
                right = False
            except Exception as e:  # noqa: BLE001 - whatever it is, nobody gets in by it
                logger.error("proxy users: a password could not be looked at: %s", type(e).__name__)
                right = False
            try:
                loop.call_soon_threadsafe(self._looked_at, digest, right, epoch)
            except RuntimeError:
                return  # the loop has ended

    def _looked_at(self, digest: bytes, right: bool, epoch: int) -> None:
        self._busy = False
        if epoch == self._epoch:  # else by a file that is not in force any more
            (self._right if right else self._wrong)[digest] = True
        waiting = self._asked.pop(digest)
        self._next()
        for done in waiting:
            done()
