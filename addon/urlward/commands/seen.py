"""Lookup of the client that met a block, by the block page's reference, for ``urlward who``."""

from ipaddress import ip_address
from pathlib import Path

from urlward.commands.who import Seen
from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.records.event import HITS
from urlward.records.store import EventQuery, StoreError
from urlward.records.stores import open_store


class SeenError(UrlwardError):
    """A reference whose events cannot say which client it was."""


def seen_by(config: Config, state: Path, reference: str) -> list[Seen]:
    """Find the clients of a reference, in the first store that can be searched.

    Raises:
        SeenError: there is no such store, or addresses are not kept whole.
        StoreError: it cannot be read.
    """
    # It brings SQLAlchemy, half a second of each command's start.
    from urlward.records.database import Database

    tables = config.records.store if config.records is not None else ()
    table = next((table for table in tables if table.kind in ("sqlite", "postgresql")), None)
    if table is None:
        raise SeenError("reference: no store of events that can be searched is configured ([records])")
    store = open_store(table, state, make=False)
    if not isinstance(store, Database):
        raise StoreError(f"{store.name}: cannot be searched")
    try:
        found = store.find(EventQuery(reference=reference, kinds=tuple(sorted(HITS))))
    finally:
        store.close()
    seen = []
    for event in found:
        try:
            ip_address(event.client)
        except ValueError as e:
            raise SeenError("reference: the records keep no whole address of clients (privacy)") from e
        seen.append(Seen(event.client, event.client_port, event.time))
    return seen
