import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import pytest

from conftest import run_command
from records.support import DAY, START, an_event
from urlward.commands.events import (
    add_events_commands,
    followed,
    line,
    pages,
    read_time,
)
from urlward.config import ConfigError
from urlward.config.records import StoreTable
from urlward.engine.dates import time_text_ms
from urlward.engine.errors import UrlwardError
from urlward.records.database import Database, events, open_database
from urlward.records.event import FIELDS, as_json
from urlward.records.privacy import Privacy
from urlward.records.sql import insert_new
from urlward.records.store import EventQuery, ReplacedError, StoreError
from urlward.state.audit import read_audit
from urlward.state.folder import StateError, local_key

CONFIG = 'state = "."\n[records.days]\nblocks = 1\noperations = 1\n'

PROGRAM = """
import sys
from commands.test_events import run
sys.exit(run(*sys.argv[1:]))
"""


def run(*arguments: str) -> int:
    return run_command(add_events_commands, "events", *arguments)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "urlward.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_database(StoreTable(kind="sqlite"), tmp_path)
    yield made
    made.close()


def test_lines_the_newest_first(config: str, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    some = [an_event(n) for n in range(150)]
    database.write(some)
    assert run("--config", config) == 0
    assert capsys.readouterr().out.splitlines() == [line(event) for event in some[:49:-1]]
    assert run("--config", config, "--limit", "2") == 0
    assert capsys.readouterr().out.splitlines() == [line(event) for event in some[:147:-1]]


def test_a_line() -> None:
    event = an_event(
        client="2001:db8::7",
        client_port=40213,
        destination="198.51.100.1",
        destination_port=443,
        list="a b",
        group="\u202eevil\n",
        detail='{"text":"\\u0000 é"}',
    )
    assert line(event) == (
        "2026-11-18T11:06:40.000Z block client=[2001:db8::7]:40213 destination=198.51.100.1:443 "
        'list="a b" reference=REF0-0000-0000 group="\\u202eevil\\n" {"text": "\\u0000 é"}'
    )
    assert line(an_event(kind="start", client="", list="", reference="")) == "2026-11-18T11:06:40.000Z start"


def test_what_is_asked_for(config: str, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (
        an_event(0, list="x", category="p", client="192.0.2.1", entry="e1", group="g"),
        an_event(1, kind="would-block", at=START + DAY),
        an_event(2, kind="list", at=START + 2 * DAY, reference=""),
    )
    database.write([a, b, c])

    def found(*arguments: str) -> list[str]:
        assert run("--config", config, "--json", *arguments) == 0
        return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]

    for name in ("list", "category", "client", "entry", "group", "reference"):
        assert found(f"--{name}", getattr(a, name)) == [a.id]
    assert found("--kind", "list", "--kind", "would-block") == [c.id, b.id]
    assert found("--since", "2026-11-19") == [c.id, b.id]
    assert found("--until", "2026-11-19") == [b.id, a.id]
    assert found("--since", "2026-11-19T00:00:00Z", "--until", "2026-11-19") == [b.id]
    assert found("--since", "5m") == []
    assert found("--limit", "1") == [c.id]
    assert found("--list", "none") == []
    assert found("--reference", f" {a.reference.lower().replace('-', '')}") == [a.id]


@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7", "192.0.2.0/24", "0" * 32])
def test_that_no_event_has_an_address_is_told(
    config: str, database: Database, capsys: pytest.CaptureFixture[str], client: str
) -> None:
    database.write([an_event(0)])
    at = ("--config", config, "--client", client, "--since", "2026-12-01")
    assert run(*at) == 0
    assert capsys.readouterr() == ("", "")
    with Path(config).open("a") as file:
        file.write('[records]\nprivacy = "short"\n')
    assert run(*at) == 0
    is_told = "/" not in client and len(client) < 32
    assert (": events have no whole address of a client; " in capsys.readouterr().err) == is_told


@pytest.mark.parametrize("privacy", ["digest", "full"])
def test_a_client_is_found_by_its_digests(
    config: str, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], privacy: str
) -> None:
    """Also where the level was another when some were kept; nobody else is."""
    with Path(config).open("a") as file:
        file.write(f'[records]\nprivacy = "{privacy}"\n')
    kept = Privacy("digest", local_key(tmp_path).secret)
    mine = [
        an_event(n, at=at, client=kept.client("192.0.2.7", at)) for n, at in enumerate((START, START + DAY))
    ]
    others = an_event(2, client=kept.client("192.0.2.8", START)), an_event(3, client="192.0.2.0/24")
    database.write([*mine, *others, before := an_event(4, client="192.0.2.7")])

    def found(*arguments: str) -> set[str]:
        assert run("--config", config, "--json", "--client", *arguments) == 0
        out, err = capsys.readouterr()
        assert not err
        return {json.loads(line)["id"] for line in out.splitlines()}

    assert found("192.0.2.7") == {before.id, *(one.id for one in mine)}
    assert found("192.0.2.7", "--since", "2026-11-19", "--until", "2026-11-19") == {mine[1].id}
    assert found("192.0.2.9") == set()
    for key in tmp_path.glob("key*"):  # as where another machine asks
        key.unlink()
    assert run("--config", config, "--client", "192.0.2.9") == 0
    assert ("events have no whole address" in capsys.readouterr().err) == (privacy == "digest")


def test_a_reference_that_nothing_has(
    config: str, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.write([an_event(0)])
    assert run("--config", config, "--reference", "n0pe-n0pe-n0pe") == 1
    assert capsys.readouterr() == ("", "urlward: no event has the reference N0PE-N0PE-N0PE\n")
    with pytest.raises(UrlwardError):
        run("--config", config, "--reference", "REF")


def test_exports_have_everything(
    config: str, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urlward.commands.events.PAGE", 7)
    some = [an_event(n, list='a"b,\né', entry="-A1:B2", client_port=n) for n in range(120)][::-1]
    database.write(some)
    run("--config", config, "--json")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [*map(as_json, some)]
    run("--config", config, "--csv")
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert head == [*FIELDS]
    assert len(rows) == 120
    first = dict(zip(head, rows[0], strict=True))
    assert first["id"] == some[0].id
    assert first["time"] == time_text_ms(some[0].time)
    assert first["list"] == 'a"b,\né'
    assert first["entry"] == "'-A1:B2"
    assert (first["client_port"], first["destination_port"]) == ("119", "")


def test_who_reads_events_of_clients_is_in_the_audit_log(
    config: str,
    database: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database.write([an_event(n) for n in range(3)])
    database.write([an_event(3, kind="alarm", client="")])
    run("--config", config, "--kind", "alarm")
    run("--config", config, "--list", "none")
    assert not [*read_audit(tmp_path)]
    client = an_event(1).client
    run("--config", config, "--csv", "--since", "2026-11-18")
    run("--config", config, "--client", client, "--kind", "block")
    first, second = [line for line in read_audit(tmp_path) if line]
    assert (first["action"], first["form"], first["since"]) == ("events-read", "csv", "2026-11-18T00:00:00Z")
    assert (second["form"], second["kinds"], second["of_one_client"]) == ("text", ["block"], True)
    assert client not in (tmp_path / "audit.jsonl").read_text()
    assert client in capsys.readouterr().out
    monkeypatch.setattr("urlward.records.reading.append", Mock(side_effect=StateError("No space left")))
    with pytest.raises(StateError):
        run("--config", config, "--kind", "block")
    assert not capsys.readouterr().out


def test_following(database: Database) -> None:
    some = [an_event(n) for n in range(6)]
    database.write(some[:1])
    batches = [some[3:5], [], [an_event(9, list="other")], some[1:3], some[5:]]
    following = followed(
        database, EventQuery(list="one", limit=1), database.last(), lambda _: database.write(batches.pop(0))
    )
    assert [*islice(following, 5)] == [*some[3:5], *some[1:3], some[5]]
    assert batches == []


def test_a_follower_of_postgresql_sees_what_is_there_later(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    database = open_database(StoreTable(kind="postgresql", url_env="RECORDS_URL"), tmp_path)
    late, early, last = (an_event(n) for n in range(3))
    with database.engine.connect() as slow:
        slow.begin()
        insert_new(slow, events, [late])
        steps = iter([lambda: database.write([early]), slow.commit, lambda: database.write([last])])
        following = followed(database, EventQuery(), 0, lambda _: next(steps)())
        assert [*islice(following, 3)] == [early, late, last]
    database.close()


def test_pages(database: Database) -> None:
    some = [an_event(n) for n in range(7)]
    database.write(some)
    assert [*pages(database, EventQuery(limit=3))] == some[::-1]


def test_follow_as_a_process(config: str, database: Database) -> None:
    database.write([an_event(0), an_event(1)])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--follow", "--limit", "1", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == line(an_event(1)) + "\n"
        database.write([an_event(2)])
        assert process.stdout.readline() == line(an_event(2)) + "\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_times() -> None:
    assert read_time("--since", None, 5.0) is None
    assert read_time("--since", "1m", 100.0) == 40_000
    assert read_time("--since", "1970-01-02", 0.0) == DAY
    assert read_time("--until", "1970-01-02", 0.0, whole_day=True) == 2 * DAY
    assert read_time("--until", "1970-01-02T00:00:00Z", 0.0, whole_day=True) == DAY
    with pytest.raises(UrlwardError, match=r"^--since: 'soon': not a date such as .* such as 2h$"):
        read_time("--since", "soon", 0.0)


def test_an_end_before_the_beginning_is_said(config: str) -> None:
    with pytest.raises(UrlwardError, match=r"^--until: it ends before --since begins$"):
        run("--config", config, "--since", "2026-11-28", "--until", "2026-11-01")


def test_what_cannot_be_asked(tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"records\.db: not there: nothing has been recorded yet$"):
        run("--config", config)
    for name in ("list", "category", "client", "entry", "group", "reference"):
        with pytest.raises(UrlwardError, match=rf"^(--)?{name}: "):
            run("--config", config, f"--{name}", "")
        with pytest.raises(UrlwardError, match=rf"^(--)?{name}: "):
            run("--config", config, f"--{name}", "a\udcffb")
    for limit in ("0", "9" * 19):
        with pytest.raises(UrlwardError, match=r"^--limit: "):
            run("--config", config, "--limit", limit)
    with pytest.raises(UrlwardError, match=r"^--client: 'nonsense': not an address, "):
        run("--config", config, "--client", "nonsense")
    with pytest.raises(UrlwardError, match=r"^--follow goes on"):
        run("--config", config, "--follow", "--until", "2h")
    path = Path(config)
    path.write_text(f'{CONFIG}[[records.store]]\nkind = "jsonl"\n')
    with pytest.raises(UrlwardError, match=r"no store of kind sqlite or postgresql"):
        run("--config", config)
    path.write_text("")
    with pytest.raises(UrlwardError, match=r"urlward\.toml: no \[records\]: nothing is recorded$"):
        run("--config", config)
    with pytest.raises(ConfigError):
        run("--config", str(tmp_path / "none.toml"))


def test_following_ends_where_the_file_is_gone(database: Database, tmp_path: Path) -> None:
    database.write([an_event(0)])
    following = followed(database, EventQuery(), 0, lambda _: None)
    assert next(following) == an_event(0)
    for file in tmp_path.glob("records.db*"):
        file.unlink()
    with pytest.raises(ReplacedError, match="deleted, moved or replaced"):
        next(following)
