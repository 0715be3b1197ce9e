from pathlib import Path

import pytest

from assignments.support import DAY, START, at
from assignments.test_retention import filled
from rows import each_row
from urlward.assignments.interval import AssignmentError
from urlward.assignments.retention import (
    database_of,
    kept_assignments,
    purge_configured,
)
from urlward.assignments.store import AssignmentStore
from urlward.config.records import DaysTable, RecordsTable, StoreTable
from urlward.records.database import open_database

DAYS = DAY / 1000
NOW = at(60 * DAYS) / 1000


def records(**changes: object) -> RecordsTable:
    return RecordsTable.model_validate({"days": DaysTable(assignments=30), **changes})


def test_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_of(None, tmp_path) == tmp_path / "assignments.db"
    assert database_of(records(), tmp_path) == tmp_path / "assignments.db"
    there = StoreTable(kind="sqlite", path="/elsewhere/a.db")
    assert database_of(records(assignments=there), tmp_path) == Path("/elsewhere/a.db")
    server = records(assignments=StoreTable(kind="postgresql", url_env="ASSIGNMENTS_URL"))
    with pytest.raises(AssignmentError, match=r"^records\.assignments: url_env: ASSIGNMENTS_URL is not in"):
        database_of(server, tmp_path)
    monkeypatch.setenv("ASSIGNMENTS_URL", "postgresql:///x")
    assert database_of(server, tmp_path) == "postgresql:///x"


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    assert kept_assignments(records(), tmp_path, NOW) is None
    assert purge_configured(records(), tmp_path, NOW) == 0
    assert not list(tmp_path.iterdir())
    AssignmentStore(tmp_path / "assignments.db").close()
    assert kept_assignments(records(), tmp_path, NOW) is None


@pytest.mark.parametrize("server", [False, True])
def test_what_is_over_is_seen_and_deleted(
    server: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    configured = records()
    place = str(tmp_path / "assignments.db")
    if server:
        url = tmp_path / "url"
        url.write_text(request.getfixturevalue("postgresql_url"))
        configured = records(assignments=StoreTable(kind="postgresql", url_file=str(url)))
        place = "postgresql /"
    store = AssignmentStore(database_of(configured, tmp_path))
    filled(store)
    store.close()

    kept = kept_assignments(configured, tmp_path, NOW)
    assert kept is not None
    assert kept.place.startswith(place)
    assert (kept.count, kept.oldest, kept.over) == (4, START, True)
    for_ever = configured.model_copy(update={"days": DaysTable()})
    assert purge_configured(for_ever, tmp_path, NOW) == 0
    unlimited = kept_assignments(for_ever, tmp_path, NOW)
    assert unlimited is not None
    assert not unlimited.over

    assert purge_configured(configured, tmp_path, NOW) == 3
    kept = kept_assignments(configured, tmp_path, NOW)
    assert kept is not None
    assert (kept.count, kept.oldest, kept.over) == (1, at(40 * DAYS), False)
    # What ended a moment ago goes with the next hour.
    ended = at(71 * DAYS) / 1000 + 1
    kept = kept_assignments(configured, tmp_path, ended)
    assert kept is not None
    assert not kept.over
    kept = kept_assignments(configured, tmp_path, ended + 3600)
    assert kept is not None
    assert kept.over
    assert purge_configured(configured, tmp_path, ended) == 1


@pytest.mark.parametrize("why", ["down", "damaged"])
def test_none_is_deleted_while_it_is_not_known_what_other_nodes_hold(
    why: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = tmp_path / "url"
    table = StoreTable(kind="postgresql", url_file=str(url))
    url.write_text("postgresql://x@127.0.0.1:1/x")
    if why == "damaged":
        url.write_text(request.getfixturevalue("postgresql_url"))
        events = open_database(table, tmp_path)
        with events.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE holds RENAME TO gone")
        events.close()
    configured = records(store=[table])
    store = AssignmentStore(database_of(configured, tmp_path))
    filled(store)
    store.close()
    with pytest.raises(
        AssignmentError, match=r"none is deleted: it is not known what other nodes hold: post"
    ):
        purge_configured(configured, tmp_path, NOW)
    kept = kept_assignments(configured, tmp_path, NOW)
    assert kept is not None
    assert kept.count == 4


def test_what_a_server_refuses_is_one_line_without_values(postgresql_url: str, tmp_path: Path) -> None:
    store = AssignmentStore(postgresql_url)
    with store.changing() as connection:
        connection.exec_driver_sql("ALTER TABLE assignments ALTER COLUMN subscriber TYPE varchar(3)")
    with pytest.raises(AssignmentError) as raised:
        filled(store)
    assert str(raised.value) == ("the assignments' database: value too long for type character varying(3)")
    store.close()


@each_row("url", ["postgresql://h:54x/x", "sqlite:///x.db", "mysql://h/x", "postgresql://h", ""])
def test_what_is_no_url_is_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(url)
    configured = records(assignments=StoreTable(kind="postgresql", url_file=str(tmp_path / "url")))
    with pytest.raises(AssignmentError, match="not a postgresql:// URL"):
        kept_assignments(configured, tmp_path, NOW)
