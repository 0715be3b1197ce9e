"""Rules watch: restores what others remove from the table, with the content of the sets.

A firewall reload (``flush ruleset``), a table, chain, rule, set or element deleted: the kernel tells of each
transaction (NFNLGRP_NFTABLES), and one transaction puts the table back as `urlward gateway up` and the
workers had made it. That takes milliseconds, and is done only where nobody has changed the rules since. What
urlward itself changes is known by the name of the thread that does it (`urlward.process.called`), which the
kernel tells with each transaction; so ``gateway down`` stays down. Whoever loads complete rules, such as
``gateway print`` has shown, is taken at their word, and gets the content of the sets.

With ``keep_source``, policy routing (`urlward.gateway.routing`) is looked after too: what is missing of it is
put back, and where another's rule comes before ours, ours is put before that. Whose hand it was the kernel
does not tell.

One process watches: the supervisor.
"""

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from urlward.engine.errors import UrlwardError, fault_text
from urlward.gateway.netlink import (
    Message,
    MessageKind,
    Netlink,
    generation_of,
    rules_changed,
)
from urlward.gateway.routing import Routing
from urlward.gateway.system import interface_faults
from urlward.gateway.table import ALIVE, NftError
from urlward.gateway.table_copy import (
    TableCopy,
    begins_anew,
    contested_for,
    elements_of,
    is_ours,
    is_structure,
)
from urlward.process import OURS, called
from urlward.proxy import notify
from urlward.records.metrics import RulesFacts

logger = logging.getLogger("urlward.gateway")

WINDOW = 60.0
"""Seconds in which removals are counted."""

MOST = 5
"""Removals in that time from which on somebody is to see to it."""

LOOK = 1.0
"""Seconds between two looks that need no notification."""

ONE_ACT = 1.0
"""Seconds in which rules of routing that another hand adds are counted as one: a tunnel has several."""

_GAP, _SHARE = 0.1, 4
"""Beyond `MOST`, seconds between two restorations, or so many times what the last has taken."""

_OF_INTERFACES = 20
"""Times that a look at interfaces has taken, to the next."""

_MOST_MOVES = 20
"""Times that rules of routing are put right at once within one act; after that, at the next look."""

_SAID_AGAIN = 1.0
"""Seconds between two lines in the log, beyond `MOST` too."""

_SWEEP = 60.0
"""Seconds after which elements whose time is up are looked for in the copy."""

_AGAIN_AND_AGAIN = f"; that is more than {MOST} times in a minute, end it"
_LOOK, _CLOSE = b"l", b"c"
"""What the thread is woken with."""

_AGAIN = 0.2
"""Seconds after which a restoration that the kernel has refused is tried again."""


def tell_manager(facts: RulesFacts) -> None:
    """Report to the service manager; without rules it gets no sign of life: a start restores them."""
    missing = "missing" in facts.wrong
    notify.withhold("rules: missing" if missing else "", "rules")
    if facts.wrong and not missing:
        notify.status(f"rules: {', '.join(facts.wrong)}")


class RulesWatch:
    """Watch over the kernel's rules, which restores them.

    Args:
        interfaces: where clients come in.
        say: takes a line for the log.

    Attributes:
        facts: what is to be known of the rules now.
        on_facts: is told whenever that changes, in the watch's thread.
    """

    def __init__(self, interfaces: Sequence[str], say: Callable[[str], None] = logger.warning) -> None:
        self.facts = RulesFacts()
        self.on_facts: Callable[[RulesFacts], None] = lambda _: None
        self._interfaces = tuple(interfaces)
        self._say = say
        self._copy = TableCopy()
        """The table as it is to be."""
        self._kernel = TableCopy()
        """The table as it is; without elements."""
        self._generation = 0
        self._unaccounted: int | None = None
        """The generation that the last look has found, with no word of it."""
        self._resync_due = False
        """Whether notifications were lost, and the kernel has not been compared with the copy since."""
        self._pending: list[Message] = []
        self._there = False
        """Whether the table is in the kernel as the copy has it."""
        self._down = False
        self._ends = False
        self._last_hand = ""
        """Last change by another process, and which process it was."""
        self._restored = 0
        self._removals: deque[float] = deque(maxlen=MOST + 1)
        self._took = 0.0
        self._last = self._last_said = float("-inf")
        self._moves = 0
        self._interface_faults: tuple[str, ...] = ()
        self._fault = ""
        self._routing_looked = False
        self._routing_fault = ""
        self._looked = self._swept = self._interfaces_due = 0.0
        self._netlink: Netlink | None = None
        self._news: Netlink | None = None
        self._routing: Routing | None = None
        self._routing_news: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()

    def start(self) -> None:
        """Read the rules and start watching, in the network namespace of this thread.

        Raises:
            NftError: this process may not.
        """
        try:
            self._news, self._netlink = Netlink(notified=True), Netlink()
            self._routing_news, self._routing = rules_changed(), Routing()
            self._read()
            self._interface_faults = self._look_at_interfaces()
        except OSError as e:
            raise NftError.of(e) from e
        self._tell()
        self._thread = threading.Thread(target=self._run, name="rules-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """From here on, have the kernel take no worker to live: all were asked to end, and listen no more, so
        that for as long as it believes what they have said last, new connections would be refused."""
        self._ends = True
        self._wake.send(_LOOK)

    def close(self) -> None:
        """Stop watching; what is removed from here on is gone."""
        if self._thread is not None:
            self._wake.send(_CLOSE)
            self._thread.join()
            self._thread = None
        for one in (
            self._news,
            self._netlink,
            self._routing_news,
            self._routing,
            self._wake,
            self._woken,
        ):
            if one is not None:
                one.close()

    # -- the thread

    def _run(self) -> None:
        assert self._news is not None
        assert self._routing_news is not None
        poll = select.poll()
        for one in (self._news, self._routing_news, self._woken):
            poll.register(one.fileno(), select.POLLIN)
        with called(OURS):
            while True:
                ready = dict(poll.poll(self._wait() * 1000))
                if self._woken.fileno() in ready and self._woken.recv(1) == _CLOSE:
                    return
                try:
                    self._step()
                except Exception as e:  # noqa: BLE001 - whatever it is, the next transaction is to be seen
                    self._failed(e)
                with suppress(Exception):  # nor does whoever is told end the watch
                    self._tell()

    def _wait(self) -> float:
        if self._resync_due or self._ends:
            return _AGAIN
        return LOOK if self._there or not self._copy else max(self._due() - time.monotonic(), 0.0)

    def _due(self) -> float:
        """Time from which the next restoration is allowed."""
        if self._fault:
            return self._last + _AGAIN
        if self._contested:
            return self._last + max(_GAP, _SHARE * self._took)
        return 0.0

    @property
    def _contested(self) -> bool:
        return len(self._removals) > MOST and self._removals[0] > time.monotonic() - WINDOW

    def _step(self) -> None:
        # Read whatever becomes of the rest: what is left unread would wake this again at once.
        routing_changed = self._routing_changed()
        try:
            self._read_news()
        except NftError:
            self._resync_due = True
            self._forget_news()
        if self._resync_due:
            self._resync()
            self._resync_due = False
        now = time.monotonic()
        due = now >= self._looked + LOOK
        if due:
            self._looked = now
            if now >= self._interfaces_due:
                self._interface_faults = self._look_at_interfaces()
                # Where there are ten thousand, one look takes a third of a second.
                self._interfaces_due = now + _OF_INTERFACES * (time.monotonic() - now)
            self._look()
        if now >= self._swept + _SWEEP:
            self._swept = now
            self._copy.drop_old()
        if not self._there and self._copy and now >= self._due():
            self._restore()
        if self._ends and self._there and self._copy.has(ALIVE):
            # Again where one has said that it lives since: they are asked at the same time.
            assert self._netlink is not None
            self._netlink.commit([self._copy.emptied(ALIVE)], self._generation)
        if routing_changed or due:
            self._routing_looked = False
            self._restore_routing()
            self._routing_looked = True
        if self._there and self._routing_looked:
            self._fault = ""

    def _forget_news(self) -> None:
        assert self._news is not None
        while True:
            try:
                for _ in self._news.notifications():
                    pass
            except NftError:
                continue
            return

    def _read_news(self) -> None:
        assert self._news is not None
        for message in self._news.notifications():
            if message.kind != MessageKind.NEWGEN:
                if is_ours(message):
                    self._pending.append(message)
                continue
            generation, process, name = generation_of(message.body)
            pending, self._pending = self._pending, []
            if _is_later(generation, self._generation):
                self._generation = generation
                self._take(pending, process, name)

    def _take(self, messages: list[Message], process: int, name: str) -> None:
        """Process a transaction that concerns the table."""
        if not messages:
            return
        assert self._netlink is not None
        for message in messages:
            if is_structure(message):
                self._kernel.apply(message, elements=False)
        ours = name == OURS
        if any(map(begins_anew, messages)):
            if messages[0].port == self._netlink.port:  # what this watch itself has put back
                self._copy.take_structure(self._kernel, same=True)
                return
            self._begin_anew(messages, ours=ours)
            if not ours:
                self._removed(name, process)
        elif ours:
            for message in messages:
                self._copy.apply(message)
            if not self._copy:
                self._there, self._down = False, True
        elif self._harms(messages):
            self._removed(name, process)

    def _begin_anew(self, messages: list[Message], *, ours: bool) -> None:
        """Take over complete new rules; workers have what they had put into sets."""
        known, before = bool(self._copy), TableCopy()
        before.take_structure(self._copy)
        self._copy.take_structure(self._kernel)
        for message in messages:
            if message.kind == MessageKind.NEWSETELEM or (
                ours and message.kind in (MessageKind.DELSETELEM, MessageKind.DELSET)
            ):
                self._copy.apply(message, structure=False)
        self._there = self._there if known and ours else not known
        if not self._there:
            self._copy.take_digest(before)
        self._down = False

    def _harms(self, messages: list[Message]) -> bool:
        """Whether another's change is to be undone; elements that it adds for steering are accepted."""
        harm = False
        for message in messages:
            if is_structure(message):
                return bool(self._copy)
            name, keys = elements_of(message)
            if message.kind == MessageKind.DELSETELEM:
                harm = harm or any(self._copy.stays(name, key) for key in keys)
            elif self._copy.may_grow(name):
                self._copy.apply(message)
            else:
                harm = True
        return harm and bool(self._copy)

    def _removed(self, name: str, process: int) -> None:
        by = f"{name or 'somebody'} (process {process})" if process else name or "somebody"
        self._last_hand = f"{by} took rules away"
        if self._there:
            self._removals.append(time.monotonic())
        self._there = False

    # -- looks, and what comes of them

    def _read(self) -> None:
        assert self._netlink is not None
        self._copy, self._generation = TableCopy.read(self._netlink)
        self._kernel.take_structure(self._copy)
        self._there = bool(self._copy)
        if self._copy.awaken():  # while nobody watched
            self._removed("", 0)
        self._pending.clear()

    def _look_at_interfaces(self) -> tuple[str, ...]:
        copy = self._copy
        return tuple(
            interface_faults(
                self._interfaces, redirects=copy.redirects, marks=copy.keeps_source, routes=copy.steers
            )
        )

    def _look(self) -> None:
        """Check whether the kernel's rules have changed without a notification."""
        assert self._netlink is not None
        generation, before = self._netlink.generation(), self._unaccounted
        self._unaccounted = None
        if generation == self._generation or self._pending:
            return
        assert self._news is not None
        poll = select.poll()
        poll.register(self._news.fileno(), select.POLLIN)
        if poll.poll(0):
            return
        if before is not None and _is_later(before, self._generation):
            self._resync()
        else:  # the kernel counts first, and tells afterwards
            self._unaccounted = generation

    def _resync(self) -> None:
        """Compare the kernel with the copy, after notifications were lost."""
        assert self._netlink is not None
        found, self._generation = TableCopy.read(self._netlink)
        self._pending.clear()
        self._kernel = TableCopy()
        self._kernel.take_structure(found)
        if not self._copy:
            self._copy, self._there, self._down = found, bool(found), self._down and not found
        elif found.setups() and found.setups().keys() != self._copy.setups().keys():
            lacks = found.lacks(self._copy)
            self._copy.take_structure(found)
            self._copy.take_elements(found)
            if lacks:
                self._removed("", 0)
        elif not found.same_as(self._copy) or found.lacks(self._copy):
            self._removed("", 0)
        else:
            self._copy.take_elements(found)
            self._there = True

    def _restore(self) -> None:
        assert self._netlink is not None
        began = time.monotonic()
        self._last = began
        contested = self._contested
        if not self._netlink.commit(self._copy.messages(WINDOW if contested else 0.0), self._generation):
            return  # what has come meanwhile says what is to be done
        self._took = time.monotonic() - began
        self._there = True
        self._restored += 1
        self._fault = ""
        if not contested or began >= self._last_said + _SAID_AGAIN:
            self._last_said = began
            back = f"they are back after {self._took * 1000:.0f} ms"
            self._log(f"gateway: {self._last_hand}; {back}{_AGAIN_AND_AGAIN if contested else ''}")

    def _routing_changed(self) -> bool:
        """Whether routing is to be checked before its time, since somebody has changed a rule of it."""
        assert self._routing_news is not None
        changed = False
        with suppress(OSError):
            while self._routing_news.recv(1 << 16):
                changed = True
        if self._moves >= _MOST_MOVES and time.monotonic() < self._removals[-1] + ONE_ACT:
            return False  # another watches as well as this one: not at once, then, but at the next look
        return changed and not self._contested

    def _restore_routing(self) -> None:
        assert self._routing is not None
        said, why = "", ""
        if self._copy.keeps_source:
            try:
                said = self._routing.up()
            except UrlwardError as e:
                why = str(e)
        if said:
            now = time.monotonic()
            new = not self._removals or now >= self._removals[-1] + ONE_ACT
            if new:
                self._removals.append(now)
                self._moves = 0
            self._moves += 1
            self._restored += 1
            self._last_hand = said
            if self._contested:
                self._tell_kernel()
            few = self._moves <= _MOST_MOVES and not self._contested
            if few or now >= self._last_said + _SAID_AGAIN:
                self._last_said = now
                self._log(f"gateway: {said}; it is put right{_AGAIN_AND_AGAIN if self._contested else ''}")
        if why and why != self._routing_fault:
            self._log(f"gateway: {why}")
        self._routing_fault = why

    def _tell_kernel(self) -> None:
        """Record for ``gateway status`` that another goes on changing, where no rule has to be restored."""
        assert self._netlink is not None
        for messages in contested_for(WINDOW):
            with suppress(OSError, NftError):
                self._netlink.commit(messages, self._generation)
                return

    def _failed(self, error: Exception) -> None:
        why = fault_text(error)
        if self._fault != why:
            self._fault = why
            self._log(f"gateway: the rules cannot be looked after: {why}")

    def _log(self, line: str) -> None:
        with suppress(Exception):  # a log without room is no reason to watch no more
            self._say(line)

    def _tell(self) -> None:
        wrong = []
        if not self._there:
            wrong.append("down" if self._down else "missing")
        if self._contested:
            wrong.append(f"removed more than {MOST} times in a minute")
        if (self._fault or self._resync_due) and "missing" not in wrong:
            wrong.append("not watched")
        wrong += [one for one in (self._routing_fault, *self._interface_faults) if one]
        facts = RulesFacts(self._restored, self._last_hand, tuple(wrong))
        if facts != self.facts:
            self.facts = facts
            self.on_facts(facts)


def _is_later(one: int, than: int) -> bool:
    """Compare generation numbers, which wrap around after 32 bits."""
    return 0 < (one - than) % (1 << 32) < 1 << 31
