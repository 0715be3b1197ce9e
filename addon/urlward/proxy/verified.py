"""Verified passwords, as keyed digests in memory that the workers of one filter share.

A digest covers the user's hash too (`urlward.proxy.passwords`), so nothing has to be taken out: where that
line of the file changes nobody asks for the digest any more. Workers write without a lock. A digest that is
half of one and half of another is no password's, and one that is overwritten is found out anew.
"""

import mmap
import os
import random
from hashlib import blake2b
from typing import Final

from urlward.lists.run_folder import RunFolder

SIZE: Final = 4 << 20
"""Bytes; room for 262,144 passwords."""

MOST_USERS: Final = 16 << 20
"""Bytes of a file of users."""

VERIFIED, USERS = "passwords", "users"
SHARED: Final = {VERIFIED: SIZE, USERS: MOST_USERS + (64 << 10)}
"""Memory that the workers of one filter share (`RunFolder.memory`): bytes of right passwords, and of the last
good file of users with its name. It is taken as it is written to."""

_DIGEST = 16
_SET = 8 * _DIGEST
_EMPTY = bytes(_DIGEST)


class Verified:
    """Shared table of digests of verified passwords.

    Args:
        run: the run folder that this worker shares with others; None where it is the only one.
    """

    def __init__(self, run: RunFolder | None = None) -> None:
        fd = -1 if run is None else run.memory(VERIFIED)
        self._memory = mmap.mmap(fd, SIZE)
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
        return int.from_bytes(digest[:4]) % (SIZE // _SET) * _SET
