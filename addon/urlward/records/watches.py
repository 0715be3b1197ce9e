"""Watches: emit events for changes of feeds, allows, lists, gateway rules and traffic, and known files."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.feeds.status import alarms
from urlward.feeds.store import FeedStore
from urlward.policy.allows import current_allows
from urlward.policy.own import FILE as OWN_FILE
from urlward.policy.own import NAME as OWN
from urlward.records.event import Kind
from urlward.records.metrics import NONE, PUBLISHING, TROUBLES, RulesFacts
from urlward.state.audit import signed_head
from urlward.state.folder import StateError, damaged_lately, locked, read_kept, write_kept

logger = logging.getLogger("urlward.records")

LOOK = 2.0
"""Seconds between two looks."""

FILES_AGAIN = 600.0
"""Seconds until a list's known files are an alarm again; those between are counted in that one."""

AT_START = 60.0
"""Seconds before the first look in which what happened is told too: these processes were starting then."""

ALARMS = "alarms.json"
"""In the state folder: alarms that last, for the process after this one."""

SETTLED = 5
"""Looks after which who does not say any more that something is wrong does not, because it is over."""

_REFUSED = "refused-list"
_BY_THEMSELVES = ("lease-lost", "waits")
"""Kinds of what a publisher says that nothing ends."""

type _Of = tuple[str, str]
"""An alarm's kind, and whose it is."""

_RESTORED: _Of = ("rules-removed", "")

type Tell = Callable[..., None]
"""Records an event of a kind with a detail, and a ``list`` where it is of one."""


class Watches:
    """Watches the state folder and the workers' reports, and emits events for changes.

    Args:
        feeds: the configuration's.
        state: the state folder.
        tell: records.
        refused: by list, why what its file has now is not in force; None where no worker says.
        rules: how a gateway's rules are; None where no worker says.
        troubles: what workers say of traffic, by kind and worker.
        known: how many known files workers have met, by list, and how many were too many to be learned.
        publishing: what a publisher says is wrong, by kind and what it is about.
        resting: whether another publisher looks after the feeds.
        lost: why an included file of the configuration is missed; empty where none is.
        alarm: raises and ends an alarm.
        lasts: takes an alarm that lasts, which the process before this one has raised.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        feeds: Sequence[FeedTable],
        state: Path,
        tell: Tell,
        *,
        refused: Callable[[], Mapping[str, str] | None] = lambda: None,
        rules: Callable[[], RulesFacts | None] = lambda: None,
        troubles: Callable[[], Mapping[tuple[str, str], str]] = dict,
        known: Callable[[], tuple[Mapping[str, float], float]] = lambda: ({}, 0.0),
        publishing: Callable[[], Mapping[tuple[str, str], str]] = dict,
        resting: Callable[[], bool] = lambda: False,
        lost: Callable[[], str] = str,
        alarm: Tell = lambda *_, **__: None,
        lasts: Callable[[str, str, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feeds = [(feed, FeedStore(state, feed.name)) for feed in feeds]
        self._own_store = FeedStore(state, OWN)
        self._own_fails = ""
        self._state = state
        self._tell = tell
        self._refused = refused
        self._rules = rules
        self._look_for_troubles = troubles
        self._known = known
        self._met: dict[tuple[str, str], tuple[float, float]] = {}
        self._look_at_publisher = publishing
        self._resting = resting
        self._look_for_lost = lost
        self._alarm = alarm
        self._take_over = lasts
        self._clock = clock
        self._seen: dict[str, tuple[float, float, frozenset[str]]] = {}
        self._allows: frozenset[str] | None = None
        self._damaged: frozenset[str] | None = None
        self._head = 0
        self._looks = 0
        self._lasting: dict[_Of, str] = {}
        """Texts of alarms that last, and how often rules have been put right."""
        self._of_before: frozenset[_Of] = frozenset()
        """Those of them that the process before this one has raised, and nothing has been heard of since."""
        self._kept: dict[_Of, str] | None = None
        """What the file has."""

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.to_thread(self.resume)
        while True:
            await asyncio.to_thread(self.look)
            self.look_at_lists()
            self.look_at_rules()
            self.look_at_traffic()
            self.look_at_files()
            self.look_at_publishing()
            await asyncio.to_thread(self.keep)
            await asyncio.sleep(LOOK)

    def resume(self) -> None:
        """Take over the alarms that last from the process before this one.

        What it has raised is not raised again, and its end is told, also of what has ended with it.
        """
        if self._kept is not None:
            return  # this one has failed, and begun again
        without = "alarms that last are raised again"
        try:
            found = read_kept(self._state / ALARMS, 1, "alarms", _lasting, StateError, without)
        except UrlwardError as e:
            logger.error("records: %s; %s", e, without)
            return
        self._lasting, self._kept = dict(found), dict(found)
        self._of_before = frozenset(self._lasting)
        for (kind, whose), text in found:
            self._take_over(kind, text, whose)

    def keep(self) -> None:
        """Keep the alarms that last for the process after this one."""
        lasting = dict(self._lasting)
        if lasting == self._kept:
            return
        rows = [{"alarm": kind, "whose": whose, "text": text} for (kind, whose), text in lasting.items()]
        try:
            with locked(self._state):
                write_kept(self._state / ALARMS, 1, "alarms", rows)
        except (UrlwardError, OSError):
            return  # tried again with the next look; alarms of the disk are others' to raise
        self._kept = lasting

    def _compare(self, kinds: Iterable[str], found: Mapping[_Of, str]) -> list[_Of]:
        """Raise what has come to be wrong, or is another way.

        Args:
            kinds: of alarms that are looked at.
            found: texts of those that there are now.

        Returns:
            What is over.
        """
        before = {of for of in self._lasting if of[0] in kinds}
        for of, text in found.items():
            if self._lasting.get(of) != text:
                kind, whose = of
                fields = {"whose": whose} if whose else {}
                self._alarm(kind, text, **fields, **({"list": whose} if kind == _REFUSED else {}))
            self._lasting[of] = text
        self._of_before -= found.keys()
        over = before - found.keys()
        if self._looks < SETTLED:
            over -= self._of_before  # who has yet to say so may still do so
        for of in over:
            del self._lasting[of]
        return sorted(over)

    def look(self) -> None:
        """Look once. The first look emits nothing of what was there before these processes (`AT_START`)."""
        self._looks += 1
        if self._resting():
            self._seen.clear()  # what another has left undone is no news
        for feed, store in () if self._resting() else self._feeds:
            try:
                self._look_at(feed, store)
            except UrlwardError as e:
                logger.error("records: %s", e)
        for look in (self._look_at_own, self._look_at_allows):
            try:
                look()
            except UrlwardError as e:
                logger.error("records: %s", e)
        self._look_at_damaged()
        self._look_at_included()
        self._look_at_audit()

    def _look_at_own(self) -> None:
        there = (self._state / OWN_FILE).exists()
        self._own_fails = self._own_store.facts().error if there else ""

    def look_at_lists(self) -> None:
        """Look once at the workers' reports of their lists, in the thread that receives them."""
        refused = self._refused()
        if refused is None:
            return
        found = {
            (_REFUSED, name): f"list {why}; the last good one stays in force" for name, why in refused.items()
        }
        if self._own_fails:  # with a list from before that, or none
            found[_REFUSED, OWN] = f"list {OWN}: not in force as they are now: {self._own_fails}"
        for _, name in self._compare([_REFUSED], found):
            self._alarm("list-back", f"list {name}: what its file has is in force", whose=name, list=name)

    def look_at_rules(self) -> None:
        """Look once at the workers' reports of a gateway's rules, in the thread that receives them."""
        rules = self._rules()
        if rules is None:
            # A worker that filters, and has not spoken of any since the process before this one: it has none.
            of = "rules-wrong", ""
            if of in self._of_before and self._refused() is not None and self._compare([of[0]], {}):
                self._alarm("rules-right", "gateway: no rules are looked after any more")
            return
        before = int(self._lasting.get(_RESTORED, "0"))
        if rules.restored < before:
            before = 0  # another supervisor counts anew
        if times := rules.restored - before:
            text = f"gateway: {rules.hand}, and it was put right"
            self._alarm("rules-removed", text + (f"; {times} times" if times > 1 else ""))
        self._lasting[_RESTORED] = str(rules.restored)
        wrong = {("rules-wrong", ""): f"gateway: rules: {', '.join(rules.wrong)}"} if rules.wrong else {}
        if self._compare(["rules-wrong"], wrong):
            self._alarm("rules-right", "gateway: the rules are as they should be")

    def look_at_traffic(self) -> None:
        """Look once at the workers' reports of traffic, in the thread that receives them."""
        found = {of: f"worker {of[1]}: {why}" for of, why in self._look_for_troubles().items()}
        for kind, worker in self._compare(TROUBLES, found):
            end, text = TROUBLES[kind]
            self._alarm(end, f"worker {worker}: {text}, or that worker has ended", whose=worker)

    def look_at_files(self) -> None:
        """Look once at the workers' reports of known files, in the thread that receives them."""
        known, unlearned = self._known()
        for name, count in known.items():
            if met := self._since("known-file", name, count):
                named = "" if name == NONE else name
                text = f"known files of list {name}: {met} met" if named else f"a classifier has found {met}"
                self._alarm("known-file", f"{text}; urlward events --kind file", whose=name, list=named)
        if left := self._since("learned-full", "", unlearned):
            text = "known files: more than are learned of one host, or by one worker, in a day"
            self._alarm("learned-full", f"{text}, {left} times; see whose (urlward own reveal), and list it")

    def _since(self, alarm: str, of: str, count: float) -> int:
        """How often something has happened since that was an alarm; 0 where that is not due."""
        now = self._clock()
        before, at = self._met.get((alarm, of), (0.0, -FILES_AGAIN))
        if count <= before or 0 <= now - at < FILES_AGAIN:
            return 0
        self._met[alarm, of] = count, now
        return round(count - before)

    def look_at_publishing(self) -> None:
        """Look once at what a publisher says of itself, in the thread of its event loop."""
        found = {of: f"publish: {why}" for of, why in self._look_at_publisher().items()}
        for kind, about in self._compare([*PUBLISHING, *_BY_THEMSELVES], found):
            if kind in PUBLISHING:
                end, text = PUBLISHING[kind]
                self._alarm(end, f"publish: {about}: {text}", whose=about)

    def _look_at(self, feed: FeedTable, store: FeedStore) -> None:
        facts, now = store.facts(), self._clock()
        header = store.header()
        lasting = alarms(feed, facts, header, now)
        before = self._seen.get(feed.name)
        self._seen[feed.name] = facts.last_attempt, facts.last_change, frozenset(lasting)
        if before is None:
            is_new = _is_new(facts.since or facts.last_attempt, now)
            before = (
                0.0 if _is_new(facts.last_attempt, now) else facts.last_attempt,
                0.0 if _is_new(facts.last_change, now) else facts.last_change,
                frozenset(() if is_new else alarms(feed, facts, header, now - AT_START)),
            )
        attempted, changed, known = before
        # Not by which is later: the clock may have been set back.
        if facts.last_attempt != attempted and (facts.reason or facts.last_change != changed):
            failed = {"reason": facts.reason} if facts.reason else {}
            counts = {"entries": facts.entries, "added": facts.added, "removed": facts.removed}
            self._say("feed", counts | failed, feed.name, facts.serial)
        for kind in lasting.keys() - known:
            self._say("alarm", {"alarm": kind, "text": lasting[kind]}, feed.name, facts.serial)

    def _look_at_allows(self) -> None:
        now = self._clock()
        allows = {allow.id: allow for allow in current_allows(self._state, now)}
        known, self._allows = self._allows, frozenset(allows)
        if known is None:
            known = frozenset(id_ for id_, allow in allows.items() if not _is_new(allow.created, now))
        for id_ in sorted(allows.keys() - known):
            self._say("allow", {"id": id_, "action": "allowed", "until": time_text(allows[id_].until)})
        for id_ in sorted(known - allows.keys()):
            self._say("allow", {"id": id_, "action": "ended"})

    def _look_at_damaged(self) -> None:
        found, now = frozenset(damaged_lately(self._state, self._clock())), self._clock()
        if self._damaged is None:
            self._damaged = found.difference(damaged_lately(self._state, now, AT_START))
        for name in sorted(found - self._damaged):
            self._say("alarm", {"alarm": "set-aside", "text": f"damaged, and set aside: {name}"})
        self._damaged = found

    def _look_at_included(self) -> None:
        try:
            found = self._look_for_lost()
        except UrlwardError as e:
            logger.error("records: %s", e)
            return
        of = "included", "configuration"
        lost = self._lasting.get(of) or f"configuration: {found}"  # however it is missed
        for kind, whose in self._compare(["included"], {of: lost} if found else {}):
            self._alarm(f"{kind}-back", "configuration: the included file is there again", whose=whose)

    def _look_at_audit(self) -> None:
        """Keep the audit log's head in every store, so that not even who has the key changes it unseen.

        The first look tells it too: commands write to the log while nothing runs.
        """
        head = signed_head(self._state)
        if head is not None and head.hash and head.counter != self._head:
            self._head = head.counter
            self._say(
                "audit", {"line": head.seq, "hash": head.hash, "time": head.time, "counter": head.counter}
            )

    def _say(self, kind: Kind, detail: dict[str, Any], name: str = "", serial: int = 0) -> None:
        self._tell(kind, detail, list=name, serial=serial)


def _lasting(kept: dict[str, Any]) -> tuple[_Of, str]:
    of = str(kept["alarm"]), str(kept["whose"])
    return of, str(int(kept["text"]) if of == _RESTORED else kept["text"])


def _is_new(at: float, now: float) -> bool:
    """Whether it is newer than the start of these processes, by a clock that may have been set back since."""
    return now - AT_START < at <= now
