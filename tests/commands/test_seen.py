"""From a reference to the client that met the block."""

from pathlib import Path

import pytest

from rows import each_row
from urlward.commands.who import Seen, seen_by
from urlward.config import Config
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records.event import make_event
from urlward.records.store import StoreError
from urlward.records.stores import open_store

TABLE = StoreTable(kind="sqlite")
CONFIG = Config(records=RecordsTable(store=(TABLE,), days=DaysTable(blocks=1, operations=1)))


def keep(state: Path, **fields: object) -> None:
    store = open_store(TABLE, state)
    store.write([make_event("block", 1_800_000_000_000_000_000, bytes(8), **fields)])
    store.close()


def test_address_port_and_time(tmp_path: Path) -> None:
    keep(tmp_path, reference="R-1", client="192.0.2.7", client_port=4000)
    assert seen_by(CONFIG, tmp_path, "R-1") == [Seen("192.0.2.7", 4000, 1_800_000_000_000)]
    assert seen_by(CONFIG, tmp_path, "R-2") == []


def test_an_objection_is_not_asked_for(tmp_path: Path) -> None:
    keep(tmp_path, reference="R-1", client="192.0.2.7", client_port=4000)
    store = open_store(TABLE, tmp_path)
    later = 1_800_000_060_000_000_000
    store.write([make_event("objection", later, bytes(8), reference="R-1", client="192.0.2.9")])
    store.close()
    assert seen_by(CONFIG, tmp_path, "R-1") == [Seen("192.0.2.7", 4000, 1_800_000_000_000)]


@each_row("client", ["192.0.2.0/24", "0123456789abcdef0123456789abcdef", ""])
def test_addresses_that_are_not_whole_tell_nobody(tmp_path: Path, client: str) -> None:
    keep(tmp_path, reference="R-1", client=client)
    with pytest.raises(UrlwardError, match="privacy"):
        seen_by(CONFIG, tmp_path, "R-1")


def test_without_a_store_that_can_be_searched(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="no store"):
        seen_by(Config(), tmp_path, "R-1")
    with pytest.raises(StoreError):
        seen_by(CONFIG, tmp_path, "R-1")
