"""Services of the recording process: retention, metrics, watches, mending and the dashboard."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer

from urlward.assignments.retention import purge_configured
from urlward.config import Config, RecordsTable
from urlward.config.records import StoreTable
from urlward.dashboard.app import DashboardSettings, make_app, serve
from urlward.dashboard.handler import WrongGuesses
from urlward.dashboard.history import FILE, TABLE
from urlward.dashboard.live_sources import EventFinder, LiveSources, RecorderParts
from urlward.dashboard.sources import Row
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.feeds.learn import Learning
from urlward.lists.formats import AUTO
from urlward.logs import inside
from urlward.objections.objections import Objection, ObjectionBook
from urlward.objections.server import ObjectionDesk, take_objections
from urlward.plan import Reloads
from urlward.records.bounded_server import Held
from urlward.records.database import Database
from urlward.records.delivery import RecorderState
from urlward.records.exposition import (
    Exposition,
    FleetFigures,
    PublishedList,
    PublishFigures,
    release,
)
from urlward.records.holds import held_references
from urlward.records.privacy import Privacy
from urlward.records.recorder import Recorder
from urlward.records.retention import RetentionClock, retain
from urlward.records.status import REPORT_WITHIN, health_of, healthy, readiness_of, status_of
from urlward.records.store import Store, node_of
from urlward.records.stores import searchable
from urlward.records.watches import Watches
from urlward.service.leftovers import purge_leftovers
from urlward.service.mend import folders_of, mend_assignments, mend_sqlite, mend_token, open_mended
from urlward.state.folder import DAMAGED, damaged_lately
from urlward.state.included import LastIncluded

if TYPE_CHECKING:
    from urlward.fleet.nodes import FleetNodes
    from urlward.publish.desk import RolloutDesk
    from urlward.publish.run import Publisher

logger = logging.getLogger("urlward.records")

HOUR = 3_600.0

LOOK = 0.1
"""Seconds between two looks at whether all workers have reported."""

GUESSES = HOUR
"""Seconds for which wrong guesses of the dashboard's tokens are shared with other nodes."""

_FILTER_READS = "reload the filter (systemctl reload urlward), or restart it where its log says so"
_PUBLISHER_READS = "restart the publisher (systemctl restart urlward-publish)"
"""How each comes to go by what its configuration's files say."""

type Beside = Callable[[], Awaitable[None]]


class Services:
    """Services of one recording process.

    Args:
        config: of the filter; it has records.
        state: the state folder.
        key: its local key.
        list_format: of the filter's sources.
        reloads: of the filter.
        refresh: has a feed of a name refreshed, from any thread.
        publisher: that looks after the feeds; None where this is a filter's process.
        held: sockets to listen on.

    Attributes:
        recorder: takes the events.
    """

    def __init__(
        self,
        config: Config,
        state: Path,
        key: Key,
        list_format: str = AUTO,
        reloads: Reloads | None = None,
        refresh: Callable[[str], object] = lambda _: None,
        publisher: "Publisher | None" = None,
        held: Held | None = None,
    ) -> None:
        assert config.records is not None
        self._config = config
        self._records: RecordsTable = config.records
        self._state = state
        self._key = key
        self._list_format = list_format
        self._reloads = reloads
        self._refresh = refresh
        self._publisher = publisher
        self._held = held
        self._measures = Exposition(
            config.feed, state, expected=config.workers if publisher is None else 0,
            recorder=self._recorder_state, fleet=self._figures, publishing=self._publishing,
            stopped=bool if reloads is None else reloads.is_stopped,
        )  # fmt: skip
        self._nodes: FleetNodes | None = None
        self._attempts = WrongGuesses()
        remedy = _FILTER_READS if publisher is None else _PUBLISHER_READS
        self.recorder = Recorder(
            config.records,
            state,
            self._open_store,
            measures=self._measures,
            answers={
                "status": lambda: status_of(
                    self._measures,
                    node=self._records.node,
                    monitors=config.monitor,
                    changed="" if config.sources is None else config.sources.changed(remedy),
                ),
                "metrics": lambda: {"text": self._measures.render().decode()},
                "inside": inside,
            },
        )
        self._retention_clock = RetentionClock(state, self.recorder.alarm)

    def beside(self) -> dict[str, Beside]:
        """Functions to run while events are taken, by name."""
        included = LastIncluded(self._config, self._state)
        watches = Watches(
            self._config.feed,
            self._state,
            self.recorder.tell_from_thread,
            refused=self._measures.refused_lists,
            rules=self._measures.rules,
            troubles=self._measures.troubles,
            publishing=dict if self._publisher is None else self._publisher.troubles,
            resting=self._is_resting,
            lost=lambda: included.lost,
            alarm=self.recorder.alarm,
            lasts=self.recorder.lasts,
            known=self._measures.known_files,
        )
        found: dict[str, Beside] = {"retention": self._forget, "watches": watches.run, "mending": self._mend}
        if self._publisher is None:
            # What was learned before is removed when it is over, whatever is configured since.
            days = self._config.files.learn_days if self._config.files is not None else 0
            learning = Learning(
                self._config, self._state, self._key, days, self.recorder.alarm, over=self._retention_clock
            )
            found["known files"] = learning.run
        if self._records.days.assignments is not None:
            found["assignments"] = self._forget_assignments
        if self._config.admin is not None:
            found["admin"] = self._show
        if self._config.fleet is not None:
            found["fleet"] = self._share
        if self._config.objections is not None:
            found["objections"] = self._take_objections
        return found

    def _open_store(self, table: StoreTable, state: Path) -> Store:
        """Open a store of events, in which this node is the only one of its name."""
        store = open_mended(table, state)
        if isinstance(store, Database) and not store.is_file:
            try:
                store.register(node_of(self._records.node, state))
            except BaseException:
                store.close()
                raise
        return store

    def _recorder_state(self) -> RecorderState:
        return self.recorder.state(set_aside_alarm(self._records, self._state))

    async def _mend(self) -> None:
        """Mend the assignments' database, and delete expired leftovers each hour."""
        await asyncio.to_thread(mend_assignments, self._records, self._state)
        while True:
            await asyncio.to_thread(self._forget_leftovers)
            await asyncio.sleep(HOUR)

    def _forget_leftovers(self) -> None:
        now = self._retention_clock()
        try:
            held = held_references(self._state, now)
            deleted, errors = purge_leftovers(self._records, self._state, held, now, ahead=HOUR)
        except UrlwardError as e:
            deleted, errors = {}, [e]
        for name, number in deleted.items():
            if number:
                logger.info("records: %d %s: deleted, their days are over", number, name)
        for error in errors:
            logger.error("records: not deleted: %s", error)

    async def _forget(self) -> None:
        await retain(self._records, self._state, self._retention_clock)

    async def _forget_assignments(self) -> None:
        while True:
            await asyncio.to_thread(self._purge_assignments)
            await asyncio.sleep(HOUR)

    def _purge_assignments(self) -> None:
        if deleted := purge_configured(self._records, self._state, self._retention_clock(), ahead=HOUR):
            logger.info("records: %d assignments deleted, their days are over", deleted)

    async def _show(self) -> None:
        assert self._config.admin is not None
        admin = self._config.admin
        await asyncio.to_thread(mend_token, self._state / admin.token_file, self._state)
        await asyncio.to_thread(mend_sqlite, self._state / FILE, TABLE)
        sources = LiveSources(self._config, self._state, self._parts(), list_format=self._list_format)
        settings = DashboardSettings(
            self._state, admin.token_file, self._records.node, self._config.file, attempts=self._attempts
        )
        server: HTTPServer | None = None
        try:
            app = await asyncio.to_thread(make_app, sources, settings)
            await self._hear_workers()
            server = serve(app, admin.listen, self._held)
            logger.info("records: the dashboard is at http://%s/", admin.listen)
            while True:
                sources.tick()
                await asyncio.sleep(1)
        finally:
            sources.close()
            if server is not None:
                server.stop()
                await server.close_all_connections()

    async def _hear_workers(self) -> None:
        """Wait for the first words of all workers, so that no look at health falls between the process before
        and that: sockets that outlive a process keep whoever comes."""
        over = time.monotonic() + REPORT_WITHIN
        measures = self._measures
        while (
            self._held and not healthy(measures.silence(), measures.expected).ok and time.monotonic() < over
        ):
            await asyncio.sleep(LOOK)

    async def _share(self) -> None:
        """Be one of several nodes: say how this one is, see how the others are, and share what is decided."""
        from urlward.fleet.connection import FleetConnection, seal_of  # an extra, which few have
        from urlward.fleet.decisions import SharedDecisions
        from urlward.fleet.kinds import all_kinds
        from urlward.fleet.nodes import FleetNodes, said_of
        from urlward.fleet.throttles import SharedNotices

        fleet = self._config.fleet
        assert fleet is not None
        seal = await asyncio.to_thread(seal_of, fleet, self._config.key)
        connection = FleetConnection(fleet, seal, who=f"{fleet.node}-service", tell=self._away)
        self._nodes = FleetNodes(
            connection,
            lambda at: said_of(status_of(self._measures), release(), os.getloadavg()[0], at),
            partial(self._twin, fleet.node),
        )
        kinds = all_kinds(self._state, self._key, self._config, self._refresh)
        decisions = SharedDecisions(connection, self._state, kinds, partial(self.recorder.alarm, "decision"))
        if self._config.admin is not None:
            self._attempts.tell = SharedNotices(connection, "guesses", GUESSES, self._guessed_elsewhere).tell
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(connection.run())
            tasks.create_task(decisions.run())

    def _guessed_elsewhere(self, address: str, _: str, ago: float) -> None:
        self._attempts.wrong_elsewhere(address, time.monotonic() - ago)

    def _twin(self, name: str, there: bool) -> None:
        if there:
            text = f"another node is called {name} as well: say another name in fleet.node"
            self.recorder.alarm("twin-node", f"fleet: {text}")
        else:
            self.recorder.alarm("twin-gone", f"fleet: no other node is called {name} any more")

    def _away(self, why: str) -> None:
        text = f"fleet: {why or 'Valkey is back'}"
        self.recorder.alarm("fleet" if why else "fleet-back", text, whose="records")

    def _is_resting(self) -> bool:
        """Whether another publisher looks after the feeds."""
        return self._publisher is not None and not self._publisher.leads

    def _desk(self) -> "RolloutDesk | None":
        if self._config.publish is None or self._config.publish.to is None:
            return None
        from urlward.publish.desk import RolloutDesk  # which few need

        return RolloutDesk(self._config, self._state)

    def _publishing(self) -> PublishFigures | None:
        publisher = self._publisher
        if publisher is None:
            return None
        lists = [
            PublishedList(
                name, rollout.state, rollout.stable, rollout.canary, rollout.entries,
                rollout.observed(self._config), publisher.last_success.get(name, 0.0),
            )
            for name, rollout in sorted(publisher.rollouts.copy().items())
        ]  # fmt: skip
        return PublishFigures(publisher.leads, lists if publisher.leads else [], dict(publisher.failures))

    def _figures(self) -> FleetFigures | None:
        if self._config.fleet is None:
            return None
        if self._nodes is None:
            return FleetFigures(False, {})
        connection = self._nodes.connection
        return FleetFigures(connection.up, self._nodes.counts(), connection.why)

    def _fleet_rows(self) -> list[Row] | None:
        from urlward.fleet.nodes import row_of

        nodes = None if self._nodes is None else self._nodes.latest
        return None if nodes is None else [row_of(node) for node in nodes]

    async def _take_objections(self) -> None:
        privacy = Privacy(self._records.privacy, self._key.secret)

        def conceal(address: str, now: float) -> str:
            return privacy.client(address, round(now * 1000)) if privacy.keeps_persons else ""

        table = self._config.objections
        assert table is not None
        desk = ObjectionDesk(
            table, self._config.page, self._state, self._key, conceal=conceal, taken=self._objected
        )
        await take_objections(desk, table, self._held)

    def _objected(self, objection: Objection) -> None:
        """Fields of the event for an objection, without the message."""
        detail, client = {"id": objection.id}, objection.client
        self.recorder.tell("objection", detail, client=client, reference=objection.reference)

    def _parts(self) -> RecorderParts:
        measures = self._measures
        searched = searchable(self._records)
        return RecorderParts(
            finder=EventFinder(searched, self._state) if searched is not None else None,
            objections=ObjectionBook(self._state, self._key) if self._config.objections is not None else None,
            reloads=self._reloads,
            nodes=self._fleet_rows if self._config.fleet is not None else None,
            rollouts=self._desk(),
            resting=self._is_resting,
            filters=self._publisher is None,
            metrics=measures.render,
            snapshots=measures.snapshots,
            total=measures.total,
            alarms=self._alarms,
            ready=lambda: readiness_of(measures).passed,
            healthy=lambda: health_of(measures).ok,
        )

    def _alarms(self) -> list[Row]:
        # Since when they last is not kept; the recorded ones say it.
        return [
            {"time": "", "source": "records", "alarm": kind, "text": text, "current": True}
            for kind, text in {**self.recorder.alarms, **set_aside_alarm(self._records, self._state)}.items()
        ]


def set_aside_alarm(records: RecordsTable, state: Path) -> dict[str, str]:
    """Alarm about files that were set aside in the last day."""
    now = time.time()
    found = {folder / DAMAGED: damaged_lately(folder, now) for folder in sorted(folders_of(records, state))}
    text = "; ".join(f"{', '.join(names)} in {folder}" for folder, names in found.items() if names)
    return {"set-aside": f"damaged and set aside: {text}; look, and delete"} if text else {}
