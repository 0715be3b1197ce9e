"""Lease: which of several publishers leads, and the token that fences it off from those before.

No clocks are compared. Who holds the lease writes it anew all the time; another takes it when it has seen the
same one for the whole of its term, by its own clock that nobody sets. Each holder has a higher token than the
one before, and whatever it writes carries that: `urlward.publish.rollout` refuses a lower one.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from urlward.engine.errors import UrlwardError
from urlward.publish.place import CONTROL, NEW, ListPlace, OvertakenError, PlaceError

NAME = f"{CONTROL}/lease.json"


class LeaseLostError(UrlwardError):
    """Another publisher leads, or may."""


class _Record(msgspec.Struct):
    token: int
    holder: str
    beat: int = 0
    free: bool = False


class Lease:
    """Lease on a place.

    Args:
        place: which.
        term: seconds of silence after which another may take it.
        clock: seconds, of a clock that is not set.

    Attributes:
        token: of this holder; 0 where it never was one.
        other: who else holds it, as was seen last.
    """

    def __init__(self, place: ListPlace, term: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = 0
        self.other = ""
        self._place = place
        self._term = term
        self._clock = clock
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._tag = NEW
        self._beat = 0
        self._since = 0.0
        self._seen = ("", 0.0)
        self._lost = True
        self._lock = threading.Lock()
        self._end = threading.Event()

    def take(self, least: int = 0) -> bool:
        """Take the lease if it is free, or its holder has been silent for its term.

        Args:
            least: token that is known from elsewhere, should the lease have been deleted.

        Raises:
            PlaceError: the place cannot be used.
        """
        found, before = self._place.read(NAME), self._clock()
        record = None if found is None else _parse(found.data)
        # Our own is one that was let go when the place was away for its term.
        if found is not None and record is not None and not record.free and record.holder != self._holder:
            self.other = record.holder
            if found.tag != self._seen[0]:
                self._seen = found.tag, before
            if before - self._seen[1] < self._term:
                return False
        token = 1 + max(least, 0 if record is None else record.token)
        try:
            self._write(_Record(token, self._holder), NEW if found is None else found.tag, before)
        except OvertakenError:
            return False
        self.token, self._lost = token, False
        return True

    def renew(self) -> None:
        """Write it anew.

        Raises:
            LeaseLostError: another has it.
            PlaceError: the place cannot be used.
        """
        with self._lock:
            self._check()
            before = self._clock()
            try:
                self._write(_Record(self.token, self._holder, self._beat + 1), self._tag, before)
            except OvertakenError:
                # Perhaps by ourselves, where the answer to a write was lost.
                found = self._place.read(NAME)
                record = None if found is None else _parse(found.data)
                if found is None or record is None or record.holder != self._holder:
                    self._lost = True
                    raise LeaseLostError(self._said(record)) from None
                self._tag, self._beat, self._since = found.tag, record.beat, before

    def check(self) -> None:
        """Check that no other can have it yet.

        Raises:
            LeaseLostError: one can.
        """
        with self._lock:
            self._check()

    def keep(self) -> threading.Thread:
        """Start a thread that renews it, until it is lost or released, in place of one before."""
        self._end.set()
        end = self._end = threading.Event()

        def run() -> None:
            while not end.wait(self._term / 3):
                try:
                    self.renew()
                except LeaseLostError:
                    return
                except PlaceError:
                    continue  # whoever publishes says so

        thread = threading.Thread(target=run, name="lease", daemon=True)
        thread.start()
        return thread

    def release(self) -> None:
        """Leave it to others at once."""
        self._end.set()
        with self._lock:
            if self._lost:
                return
            self._lost = True
            try:
                self._place.write(NAME, msgspec.json.encode(_Record(self.token, "", free=True)), self._tag)
            except PlaceError:
                return  # it ends by itself

    def _write(self, record: _Record, over: str, before: float) -> None:
        self._tag = self._place.write(NAME, msgspec.json.encode(record), over)
        self._beat, self._since = record.beat, before

    def _check(self) -> None:
        if not self._lost and self._clock() - self._since >= self._term:
            self._lost = True
        if self._lost:
            raise LeaseLostError(self._said(None))

    def _said(self, record: _Record | None) -> str:
        who = f", {record.holder}," if record is not None and record.holder else ""
        return f"{self._place}: another publisher{who} leads, or may: nothing is written here any more"


def leader_of(place: ListPlace) -> str:
    """Who holds a place's lease, as it was written last: a machine and a process; empty for nobody.

    Raises:
        PlaceError: the place cannot be used.
    """
    found = place.read(NAME)
    record = None if found is None else _parse(found.data)
    return "" if record is None else record.holder


def _parse(data: bytes) -> _Record | None:
    """Parse a lease; None for what is none, in whose place another may be written."""
    try:
        return msgspec.json.decode(data, type=_Record)
    except msgspec.MsgspecError:
        return None
