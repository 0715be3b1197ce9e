import asyncio
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import run_command, wait_for
from records.recording import SECRET, block, records
from records.support import DAY, START, an_event, node
from service.test_process import CONFIG, Running
from urlward.commands.records import add_records_commands
from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records import writer
from urlward.records.database import Database, open_database
from urlward.records.holds import held_references
from urlward.records.store import NODE_FILE, EventQuery, StoreError, node_of
from urlward.records.worker import Recording

SERVER = StoreTable(kind="postgresql", url_env="RECORDS_URL")
UNTIL = START + 400 * DAY
REFERENCE = "7Q4M-2XKD-93FH"
TAKEN = (
    r"^postgresql .*: the node name 'gw1' is another node's there, last heard of 20.*Z: give this one a name "
)


@pytest.fixture
def database(postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("RECORDS_URL", postgresql_url)
    made = open_database(SERVER, tmp_path)
    yield made
    made.close()


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    made = node_of("gw1", tmp_path / "state")
    assert (made.name, len(made.identity)) == ("gw1", 32)
    assert node_of("gw2", tmp_path / "state").identity == made.identity
    assert node_of("gw1", tmp_path / "other").identity != made.identity
    path = tmp_path / "state" / NODE_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for damage in ("{", '{"version": 1, "node": [{"identity": "x"}]}', '{"version": 1, "node": [{}]}'):
        path.write_text(damage)
        assert node_of("gw1", tmp_path / "state").identity != made.identity
    assert len([*(tmp_path / "state" / "damaged").iterdir()]) == 3


def test_a_second_node_of_a_name_is_refused(database: Database, tmp_path: Path) -> None:
    other = open_database(SERVER, tmp_path)
    database.register(node("gw1"))
    database.write([an_event(n, node="gw1") for n in range(3)])
    second = node("gw1", "another")
    with pytest.raises(StoreError, match=TAKEN):
        other.register(second)
    # Neither does it delete by its days, nor are those taken for the first one's.
    with pytest.raises(StoreError, match=TAKEN):
        other.purge({"block": 1}, START + 9 * DAY, (), second)
    with pytest.raises(StoreError, match=TAKEN):
        other.hold({REFERENCE: UNTIL}, second)
    assert database.purge({"block": 30}, START + 9 * DAY, (), node("gw1")) == 0
    assert other.days_of_nodes({"block": 1}, second)["gw1"] == {"block": 30}
    assert str(other.taken_from(second)).startswith(f"{other.name}: the node name 'gw1' is another")
    assert other.taken_from(node("gw1")) is None
    assert len(database.find(EventQuery())) == 3
    assert database.held(START) == {}
    # What it has recorded meanwhile is its own when it has a name.
    renamed = node("gw2", "another")
    other.register(renamed)
    other.write([an_event(5, node="gw1"), an_event(6, node="gw2")])
    assert [event.node for event in database.find(EventQuery())] == ["gw2", "gw2", "gw1", "gw1", "gw1"]
    other.close()


def test_a_node_that_is_renamed_is_the_same(database: Database) -> None:
    before, now = node("gw1"), node("gw2", "of gw1")
    database.register(before)
    database.write([an_event(0, node="gw1"), an_event(1, node="gw1", reference=REFERENCE)])
    assert database.purge({"block": 300}, START + 2 * DAY, (), before) == 0
    database.hold({REFERENCE: UNTIL}, before)
    database.register(now)
    assert database.held(START) == database.held_by(now) == {REFERENCE: UNTIL}
    # Its days are of all that it has recorded, whatever it was called.
    assert database.days_of_nodes({"block": 1}, now) == {name: {"block": 1} for name in ("gw1", "gw2", "")}
    assert database.purge({"block": 1}, START + 2 * DAY, database.held(START), now) == 1
    said = database.days_of_nodes({"block": 9}, node("gw3"))
    assert (said["gw1"], said["gw2"], said[""]) == ({"block": 1}, {"block": 1}, {"block": 9})
    database.hold({REFERENCE: UNTIL}, now)
    database.release(REFERENCE, node("gw3"), UNTIL)
    assert database.held(START) == {REFERENCE: UNTIL}
    database.release(REFERENCE, now, UNTIL)
    assert database.held(START) == {}
    assert database.purge({"block": 1}, START + 2 * DAY, (), now) == 1


def test_a_name_is_adopted(database: Database, tmp_path: Path) -> None:
    lost, back = node("gw1"), node("gw1", "another")
    database.register(lost)
    database.hold({REFERENCE: UNTIL}, lost)
    other = open_database(SERVER, tmp_path)
    other.adopt("gw1", back)
    other.register(back)
    assert other.held_by(back) == {REFERENCE: UNTIL}
    # One that lives nevertheless writes nothing under it any more.
    with pytest.raises(StoreError, match=TAKEN):
        database.write([an_event(1, node="gw1")])
    assert database.find(EventQuery()) == []
    other.release(REFERENCE, back)
    assert other.held(START) == {}
    other.close()


def run(*arguments: str) -> int:
    return run_command(add_records_commands, "records", *arguments)


def configuration(folder: Path, name: str, state: str) -> str:
    path = folder / f"{name}-{state}.toml"
    store = '[[records.store]]\nkind = "postgresql"\nurl_env = "RECORDS_URL"\n'
    days = "[records.days]\nblocks = 30\noperations = 30\n"
    path.write_text(f'state = "{folder / state}"\n[records]\nnode = "{name}"\n{days}{store}')
    (folder / state).mkdir(exist_ok=True)
    return str(path)


def test_a_hold_from_before_a_new_name(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = (configuration(tmp_path, name, "state") for name in ("gw1", "gw2"))
    at = int(time.time() * 1000)
    database.write([an_event(0, at=at, node="gw1", reference=REFERENCE), an_event(1, at=at, node="gw1")])
    assert run("hold", REFERENCE, "--until", "2999-01-01", "--why", "asked for", "--config", before) == 0
    assert run("purge", "--config", now) == 0
    assert database.purge({"block": 1}, at + 99 * DAY, database.held(at), node("gw9")) == 1
    capsys.readouterr()
    assert run("status", "--config", now) == 0
    out = capsys.readouterr().out
    assert f"held: {REFERENCE} until 2999-01-02T00:00:00Z" in out
    assert ": asked for" in out
    assert f"/{database.engine.url.database}: 1 block" in out
    assert run("release", REFERENCE, "--why", "done", "--config", now) == 0
    assert database.held(START) == {}
    capsys.readouterr()
    run("status", "--config", now)
    assert "held:" not in capsys.readouterr().out


@pytest.mark.parametrize("listed", [False, True])
def test_a_hold_of_a_node_that_had_a_name_before_there_were_identities(
    listed: bool, database: Database, tmp_path: Path
) -> None:
    database.write([an_event(0, node="gw1", reference=REFERENCE)])
    now = configuration(tmp_path, "gw2", "state")
    assert run("hold", REFERENCE, "--until", "2999-01-01", "--why", "asked for", "--config", now) == 0
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE holds SET node = 'gw1'")
        connection.exec_driver_sql("DELETE FROM nodes")
        if listed:
            connection.exec_driver_sql("INSERT INTO nodes VALUES ('gw1', '', '{}', 0)")
    assert run("release", REFERENCE, "--why", "done", "--config", now) == 0
    assert database.held(START) == {}


def test_a_node_that_lost_its_state_folder_comes_back(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, back = (configuration(tmp_path, "gw1", state) for state in ("lost", "new"))
    database.write([an_event(0, node="gw1", reference=REFERENCE)])
    assert run("hold", REFERENCE, "--until", "2999-01-01", "--why", "asked for", "--config", lost) == 0
    capsys.readouterr()
    for command in ("status", "purge"):
        assert run(command, "--config", back) == 1
        err = capsys.readouterr().err
        assert err.startswith("urlward: postgresql ")
        assert "the node name 'gw1' is another node's there" in err
        assert err.count("\n") == 1
    with pytest.raises(UrlwardError, match="is not held here"):
        run("release", REFERENCE, "--why", "done", "--config", back)
    with pytest.raises(UrlwardError, match=r"^why: needed"):
        run("adopt", "--why", " ", "--config", back)
    assert run("adopt", "nobody", "--why", "a new disk", "--config", back) == 1
    assert "no node is called 'nobody' there" in capsys.readouterr().err
    assert run("adopt", "--why", "a new disk", "--config", back) == 0
    assert capsys.readouterr().out.endswith("gw1 is this node\n")
    assert run("adopt", "--why", "a new disk", "--config", back) == 1
    assert "'gw1' is this node there already" in capsys.readouterr().err
    assert run("status", "--config", back) == 0
    assert run("purge", "--config", lost) == 1
    assert run("release", REFERENCE, "--why", "done", "--config", back) == 0
    assert database.held(START) == {}
    told = [json.loads(line) for line in (tmp_path / "new" / "audit.jsonl").read_text().splitlines()]
    told = [line for line in told if not line["action"].startswith("purge")]
    assert [(line["action"], line["why"]) for line in told] == [
        ("adopted", "a new disk"),
        ("released", "done"),
    ]
    assert (told[0]["node"], told[1]["reference"], told[1]["until"]) == (
        "gw1", REFERENCE, "2999-01-02T00:00:00Z",
    )  # fmt: skip
    assert held_references(tmp_path / "new", START / 1000) == {}


def test_nothing_is_adopted_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text(f'state = "{tmp_path}"\n[records]\n[records.days]\nblocks = 1\noperations = 1\n')
    with pytest.raises(UrlwardError, match="no store is a database that several nodes share"):
        run("adopt", "--why", "a", "--config", str(path))


async def _blocked(state: Path, count: int) -> None:
    said = Recording(records(), state, SECRET)
    for n in range(count):
        block(said, str(n))
    await said.close()


def test_the_process_of_a_second_node_goes_on_and_says_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "END_WITHIN", 60.0)
    database.register(node("gw1"))
    text = CONFIG + '[[records.store]]\nkind = "postgresql"\nurl_env = "RECORDS_URL"\n'

    def blocks(process: Running) -> list[str]:
        return [event.node for event in database.find(EventQuery(kinds=("block",)))]

    with Running(tmp_path, text) as process:
        process.serves()
        asyncio.run(_blocked(process.state, 5))
        said = "say so with `urlward records adopt --why TEXT`; events wait on the disk"
        wait_for(lambda: said in process.log(), "the line")
        assert "another node's" in process.log()
        assert blocks(process) == []
        assert process.end() == 0, process.log()
    # It has a name of its own now.
    with Running(tmp_path, text.replace("gw1", "gw2")) as process:
        wait_for(lambda: len(blocks(process)) == 5, "what has waited", 60.0)
        assert set(blocks(process)) == {"gw2"}
        assert process.end() == 0, process.log()
