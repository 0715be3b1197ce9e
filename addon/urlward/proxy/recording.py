"""What a worker tells the process that records: an event of each hit, and what it counts."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from urlward.config import RecordsTable
from urlward.engine.errors import UrlError
from urlward.engine.url import canonicalize, host_readings
from urlward.engine.verdict import Verdict
from urlward.lists.keeper import Keeper, Taken
from urlward.proxy.names import Client, Names
from urlward.records.events import Events
from urlward.records.loop_watch import watch_loop
from urlward.records.metrics import ListFacts, Metrics


class Recording:
    """One worker's.

    Args:
        records: the configuration.
        state: the state folder.
        secret: its key, 32 bytes.
        worker: its number.

    Attributes:
        metrics: what is counted.
        logs: whether what is recorded stands in the log as well.
    """

    def __init__(self, records: RecordsTable, state: Path, secret: bytes, worker: str) -> None:
        self.metrics = Metrics(time.time())
        self.logs = records.log
        self._events = Events(records, state, secret, worker)
        self._events.emitter.metrics = self._snapshot
        self._serials: dict[str, int] = {}
        self._open: Callable[[], int] = lambda: 0
        self._keeper: Keeper | None = None

    async def run(self, connections: Callable[[], int]) -> None:
        """Hand over what is recorded until cancelled.

        Args:
            connections: says how many clients' connections are open.
        """
        self._open = connections
        self._events.started()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._events.emitter.run())
            tasks.create_task(watch_loop(self.metrics))

    async def close(self) -> None:
        """Hand over the last."""
        self._events.stopped()
        await self._events.emitter.close()

    def hit(
        self,
        verdict: Verdict,
        names: Names,
        client: Client,
        reference: str,
        *,
        cut: bool,
        would: bool,
        group: str,
    ) -> None:
        """Record what is blocked, cut, or would be."""
        self.metrics.blocked(verdict.list, verdict.category, would=would)
        stage: Literal["peek", "match"] = "match" if names.target else "peek"
        host, port = client.peername[:2]
        self._events.blocked(
            verdict=verdict,
            client=host,
            client_port=port,
            protocol="http" if names.target else "tls" if names.tls else "tcp",
            stage=stage,
            would=would,
            cut=cut,
            destination=names.address,
            destination_port=names.ports[-1] if names.ports else 0,
            serial=self._serials.get(verdict.list, 0),
            reference=reference,
            url=partial(_url, names),
            group=group,
        )

    def hit_by_dns(self, verdict: Verdict, host: str, client: str, reference: str) -> None:
        """Record that a host listed whole was not to be found by its name."""
        self.metrics.requests("dns", "block")
        self.metrics.blocked(verdict.list, verdict.category)
        address, _, port = client.rpartition(":")
        self._events.blocked(
            verdict=verdict,
            client=address.strip("[]") or client,
            client_port=int(port) if address and port.isdecimal() else 0,
            protocol="dns",
            stage="dns",
            serial=self._serials.get(verdict.list, 0),
            reference=reference,
            url=partial(_canonical, f"http://{host}/"),
        )

    def named(self, address: str, port: int = 0) -> str:
        """A client as a line of the log may name it (`urlward.records.privacy.Privacy.in_log`)."""
        return self._events.privacy.in_log(address, port)

    def alarm(self, alarm: str, text: str) -> None:
        """Record that somebody should look; the text names neither an entry nor a client."""
        self._events.alarm(alarm, text)

    def take_lists(self, keeper: Keeper) -> None:
        """Take note of the lists in force, and be told of those that change."""
        self._keeper = keeper
        self._look(keeper)
        keeper.on_taken = self._taken

    def _taken(self, keeper: Keeper, taken: Taken) -> None:
        self._look(keeper)
        if taken.failed:
            self.metrics.failed_reload()
            return
        self.metrics.reload(taken.seconds)
        added, removed = max(taken.entries - taken.before, 0), max(taken.before - taken.entries, 0)
        self._events.list_changed(taken.name, taken.serial, taken.entries, added, removed)

    def _look(self, keeper: Keeper) -> None:
        facts = keeper.facts
        self._serials = {one.name: one.serial for one in facts}
        self.metrics.lists(ListFacts(one.name, one.serial, one.entries, one.created) for one in facts)

    def _snapshot(self) -> dict[str, Any]:
        self.metrics.queue(self._events.emitter.waiting, self._events.emitter.dropped)
        self.metrics.open(self._open())
        if self._keeper is not None:
            self.metrics.refused(self._keeper.refused)
        return self.metrics.snapshot()


def _url(names: Names) -> str | None:
    try:
        readings = host_readings(names.hosts[0]) if names.hosts else ()
    except UrlError:
        return None
    return _canonical(f"http://{readings[0]}{names.target or '/'}") if readings else None


def _canonical(url: str) -> str | None:
    try:
        return str(canonicalize(url.encode("latin-1", "replace")))
    except UrlError:
        return None
