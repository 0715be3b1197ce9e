"""Sessions of the dashboard: a visitor has the token, or a session of the last hours; and a rate limit of
attempts with wrong secrets, by address.

``admin.token`` in the state folder is the token, ``admin.json`` the secret that sessions are signed with and
which of them were ended before their time. A session is worth nothing when the token is another.
"""

import hashlib
import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from tornado.web import create_signed_value, decode_signed_value

from urlward.regular import read_regular
from urlward.state.folder import is_damage, locked, made_folder, set_aside, write_private

BURST = 5
"""Wrong guesses in a row."""

EVERY = 12.0
"""Seconds after which one more is let."""

MAX_ADDRESSES = 10_000


class WrongGuesses:
    """Counter of wrong guesses by address: a leaky bucket."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds that an address has to wait; 0 where it may guess.

        Args:
            address: whose guess.
            now: seconds of a clock that is not set.
        """
        return max(0.0, self._level(address, now) - (BURST - 1) * EVERY)

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong guess."""
        self._full_at[address] = now + self._level(address, now) + EVERY
        self._full_at.move_to_end(address)
        # An address that was pushed out has had ten thousand others after it.
        while len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)

    def _level(self, address: str, now: float) -> float:
        return max(0.0, self._full_at.get(address, 0.0) - now)


SESSION = 12 * 3_600
"""Seconds that a session lasts."""

MAX_NAME = 64
_FILE = "admin.json"
_DAY = 86_400


class Visitor(NamedTuple):
    """Visitor: name and session of whoever is logged in.

    Attributes:
        name: as given, for the record; the token is the same for all.
        id: of the session; empty without one.
    """

    name: str
    id: str = ""


class Sessions:
    """Session manager: signs sessions, and knows which are in force.

    Args:
        state: the state folder.
        token: that all sessions were given for.

    Raises:
        StateError: the folder cannot be used.
    """

    def __init__(self, state: Path, token: str) -> None:
        self._path = made_folder(state) / _FILE
        self._token = token.encode()
        with locked(state):
            self._secret, self._ended = self._read()
            self._write()
        key = hmac.digest(self._secret.encode(), self._token, "sha256")
        self._key = key.hex()
        self.name = f"urlward-{hashlib.sha256(key).hexdigest()[:8]}"
        """Name of the cookie. Cookies know no ports, and a machine may have more than one filter."""

    def is_token(self, given: str) -> bool:
        """Compare with the token, in constant time."""
        return hmac.compare_digest(given.encode(errors="replace"), self._token)

    def begin(self, name: str, now: float) -> str:
        """Start a session; returns the cookie's value."""
        value = json.dumps([secrets.token_hex(8), int(now), name])
        return create_signed_value(self._key, self.name, value, clock=lambda: now).decode()

    def visitor(self, cookie: str | None, now: float) -> Visitor | None:
        """Visitor of a cookie's session; None where it is none, is over or was ended."""
        if not cookie:
            return None
        value = decode_signed_value(
            self._key, self.name, cookie, max_age_days=SESSION / _DAY, clock=lambda: now
        )
        if value is None:
            return None
        id_, begun, name = json.loads(value)
        over = not begun - 60 <= now < begun + SESSION or id_ in self._ended
        return None if over else Visitor(name, id_)

    def end(self, visitor: Visitor, now: float | None = None) -> None:
        """End a session; it stays ended when this process begins anew.

        Raises:
            StateError: that cannot be written down; it is ended as long as this process lives.
        """
        moment = time.time() if now is None else now
        self._ended[visitor.id] = moment + SESSION
        self._ended = {id_: until for id_, until in self._ended.items() if until > moment}
        with locked(self._path.parent):
            self._write()

    def _read(self) -> tuple[str, dict[str, float]]:
        try:
            found = json.loads(read_regular(self._path))
            return str(found["secret"]), {str(id_): float(t) for id_, t in found["ended"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            if os.path.lexists(self._path) and not (isinstance(e, OSError) and not is_damage(e)):
                set_aside(self._path.parent, self._path, "damaged", "whoever was in has to come in anew")
            return secrets.token_hex(32), {}

    def _write(self) -> None:
        kept = {"version": 1, "secret": self._secret, "ended": self._ended}
        write_private(self._path, json.dumps(kept).encode() + b"\n")
