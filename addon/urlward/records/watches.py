"""Watches: emit events for changes of feeds, allows, lists, gateway rules and traffic, and known files."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.feeds.status import alarms
from urlward.feeds.store import FeedStore
from urlward.policy.allows import current_allows
from urlward.records.event import Kind
from urlward.records.metrics import NONE, PUBLISHING, TROUBLES, RulesFacts
from urlward.state.audit import signed_head
from urlward.state.folder import damaged_lately

logger = logging.getLogger("urlward.records")

LOOK = 2.0
"""Seconds between two looks."""

FILES_AGAIN = 600.0
"""Seconds until a list's known files are an alarm again; those between are counted in that one."""

AT_START = 60.0
"""Seconds before the first look in which what happened is told too: these processes were starting then."""

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feeds = [(feed, FeedStore(state, feed.name)) for feed in feeds]
        self._state = state
        self._tell = tell
        self._refused = refused
        self._rules = rules
        self._look_for_troubles = troubles
        self._troubles: Mapping[tuple[str, str], str] = {}
        self._known = known
        self._met: dict[tuple[str, str], tuple[float, float]] = {}
        self._look_at_publisher = publishing
        self._not_published: Mapping[tuple[str, str], str] = {}
        self._resting = resting
        self._look_for_lost = lost
        self._lost = ""
        self._alarm = alarm
        self._clock = clock
        self._seen: dict[str, tuple[float, float, frozenset[str]]] = {}
        self._allows: frozenset[str] | None = None
        self._damaged: frozenset[str] | None = None
        self._head = 0
        self._lists: Mapping[str, str] = {}
        self._rules_before = RulesFacts()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            self.look_at_lists()
            self.look_at_rules()
            self.look_at_traffic()
            self.look_at_files()
            self.look_at_publishing()
            await asyncio.sleep(LOOK)

    def look(self) -> None:
        """Look once. The first look emits nothing of what was there before these processes (`AT_START`)."""
        if self._resting():
            self._seen.clear()  # what another has left undone is no news
        for feed, store in () if self._resting() else self._feeds:
            try:
                self._look_at(feed, store)
            except UrlwardError as e:
                logger.error("records: %s", e)
        try:
            self._look_at_allows()
        except UrlwardError as e:
            logger.error("records: %s", e)
        self._look_at_damaged()
        self._look_at_included()
        self._look_at_audit()

    def look_at_lists(self) -> None:
        """Look once at the workers' reports of their lists, in the thread that receives them."""
        refused = self._refused()
        if refused is None:
            return
        for name, why in refused.items():
            if self._lists.get(name) != why:
                text = f"list {why}; the last good one stays in force"
                self._alarm("refused-list", text, whose=name, list=name)
        for name in self._lists.keys() - refused.keys():
            self._alarm("list-back", f"list {name}: what its file has is in force", whose=name, list=name)
        self._lists = dict(refused)

    def look_at_rules(self) -> None:
        """Look once at the workers' reports of a gateway's rules, in the thread that receives them."""
        rules, before = self._rules(), self._rules_before
        if rules is None:
            return
        self._rules_before = rules
        if rules.restored < before.restored:
            before = RulesFacts(wrong=before.wrong)  # another supervisor counts anew
        if times := rules.restored - before.restored:
            text = f"gateway: {rules.hand}, and it was put right"
            self._alarm("rules-removed", text + (f"; {times} times" if times > 1 else ""))
        if rules.wrong and rules.wrong != before.wrong:
            self._alarm("rules-wrong", f"gateway: rules: {', '.join(rules.wrong)}")
        elif before.wrong and not rules.wrong:
            self._alarm("rules-right", "gateway: the rules are as they should be")

    def look_at_traffic(self) -> None:
        """Look once at the workers' reports of traffic, in the thread that receives them."""
        found = dict(self._look_for_troubles())
        for (kind, worker), why in found.items():
            if self._troubles.get((kind, worker)) != why:
                self._alarm(kind, f"worker {worker}: {why}", whose=worker)
        for kind, worker in self._troubles.keys() - found.keys():
            end, text = TROUBLES[kind]
            self._alarm(end, f"worker {worker}: {text}, or that worker has ended", whose=worker)
        self._troubles = found

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
        found = dict(self._look_at_publisher())
        for (kind, about), why in found.items():
            if self._not_published.get((kind, about)) != why:
                self._alarm(kind, f"publish: {why}", whose=about)
        for kind, about in self._not_published.keys() - found.keys():
            if kind in PUBLISHING:  # the others end by themselves
                end, text = PUBLISHING[kind]
                self._alarm(end, f"publish: {about}: {text}", whose=about)
        self._not_published = found

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
        if found and not self._lost:
            self._alarm("included", f"configuration: {found}", whose="configuration")
        elif self._lost and not found:
            self._alarm(
                "included-back", "configuration: the included file is there again", whose="configuration"
            )
        self._lost = found

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


def _is_new(at: float, now: float) -> bool:
    """Whether it is newer than the start of these processes, by a clock that may have been set back since."""
    return now - AT_START < at <= now
