import json
from pathlib import Path
from typing import Any

import pytest

from conftest import run_command
from records.support import an_event
from urlward.commands.records import add_audit_commands
from urlward.config import configured
from urlward.config.problem import SettingError
from urlward.records.database import open_database
from urlward.records.event import Event
from urlward.records.store import node_of
from urlward.records.stores import open_store
from urlward.records.watches import Watches
from urlward.state.audit import FILE, HEAD, append

NOW = 1_764_064_000


def run(*arguments: str | Path) -> int:
    return run_command(add_audit_commands, "audit", *arguments)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    append(tmp_path, "anna (uid 0)", "allowed", NOW, why="asked \x1b[2J for señas")
    append(tmp_path, "", "expired", NOW + 60, id="a-1")
    return tmp_path


def test_verify(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--state", state) == 0
    first, head, compared = capsys.readouterr().out.splitlines()
    assert first == f"{state / FILE}: 2 lines, the chain holds"
    assert compared.startswith("compared with no copy, ")
    known = head.removeprefix("last hash ")
    append(state, "", "expired", NOW)
    assert run("verify", "--state", state, "--known", known, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["holds"], shown["lines"], shown["has_known"], shown["broken"]) == (True, 3, True, None)


def test_a_log_that_was_cut(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state / FILE
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert run("verify", "--state", state) == 1
    assert (
        capsys.readouterr().out == f"{path}: it ends with line 1, and not with line 2 that was signed last\n"
    )
    path.unlink()
    assert run("verify", "--state", state) == 1
    assert capsys.readouterr().out == f"{path}: its 2 lines are gone\n"
    append(state, "", "expired", NOW)
    assert run("verify", "--state", state, "--known", "0" * 64) == 1
    out = capsys.readouterr().out
    assert "no line has the hash that is known" in out
    assert "begun anew, since what was before is not known (its 2 lines are gone)" in out
    for known in ("abc", ""):
        with pytest.raises(SettingError, match=r"^known: "):
            run("verify", "--state", state, "--known", known)
    assert run("verify", "--state", state, "--known", out.split()[-1]) == 0


@pytest.mark.parametrize("flag", ["--who", "--list"])
def test_an_empty_name_shows_nobodys_lines(
    state: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    """As of a variable that is not set; it showed everybody's."""
    with pytest.raises(SettingError, match=f"{flag}: is empty"):
        run("list", "--state", state, flag, "")
    assert capsys.readouterr().out == ""
    assert run("list", "--state", state) == run("list", "--state", state, "--who", "ANNA") == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "allowed",
        "expired",
        "allowed",
    ]


def test_a_lost_head_is_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / HEAD).unlink()
    assert run("verify", "--state", state) == 1
    assert "nothing vouches for its end: audit.head is gone" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_copies_in_databases(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has the key and makes the log anew is found out by what the database has of this node."""
    state, config = tmp_path / "state", tmp_path / "urlward.toml"
    store = ""
    if kind == "postgresql":
        (tmp_path / "url").write_text(request.getfixturevalue("postgresql_url"))
        store = '[[records.store]]\nkind = "postgresql"\nurl_file = "url"\n'
    config.write_text(
        f'state = "{state}"\n[records]\nnode = "n1"\n[records.days]\nblocks = 3\noperations = 3\n{store}'
    )
    records = configured(config)[1].records
    assert records is not None
    table = records.store[0]
    append(state, "anna", "allowed", NOW)
    told: list[Event] = []
    watches = Watches([], state, lambda *said, **_: told.append(event(len(told), *said)), clock=lambda: NOW)
    watches.look()
    watches.look()
    append(state, "anna", "allowed", NOW + 60)
    watches.look()
    assert [json.loads(each.detail)["line"] for each in told] == [1, 2]
    opened = open_store(table, state)
    opened.write([*told, event(9, "audit", {"line": 7, "hash": "0", "time": "2025"}, node="another")])
    opened.close()
    assert run("verify", "--config", config) == 0
    told = capsys.readouterr().out
    assert "agrees with 2 copies in databases" in told
    assert "compared with no copy" not in told
    for name in (FILE, HEAD):
        (state / name).unlink()
    append(state, "anna", "allowed", NOW)
    assert run("verify", "--config", config, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["broken"], report["unsigned"], report["copies"]) == (None, "", 2)
    assert f"/{opened.engine.url.database}" in report["differs"] or kind == "sqlite"  # type: ignore[attr-defined]
    assert "has line 2 of 2025-11-25T09:47:40Z with the hash" in report["differs"]
    append(state, "anna", "looked", NOW + 120)
    run("verify", "--config", config)
    assert run("verify", "--config", config, "--known", capsys.readouterr().out.split()[-1]) == 0


def test_copies_under_an_earlier_name(
    tmp_path: Path, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state, config = tmp_path / "state", tmp_path / "urlward.toml"
    (tmp_path / "url").write_text(postgresql_url)
    append(state, "anna", "allowed", NOW)
    told: list[Event] = []
    Watches([], state, lambda *said, **_: told.append(event(0, *said)), clock=lambda: NOW).look()
    for name in ("n1", "n2"):
        config.write_text(
            f'state = "{state}"\n[records]\nnode = "{name}"\n[records.days]\nblocks = 3\noperations = 3\n'
            '[[records.store]]\nkind = "postgresql"\nurl_file = "url"\n'
        )
        records = configured(config)[1].records
        assert records is not None
        opened = open_database(records.store[0], state)
        opened.register(node_of(name, state))
        opened.write(told)
        opened.close()
    assert run("verify", "--config", config) == 0
    assert "agrees with 1 cop" in capsys.readouterr().out


def event(n: int, kind: Any, detail: dict[str, Any], node: str = "n1") -> Event:
    return an_event(n, kind, node=node, detail=detail, reference="", client="")


def test_a_database_that_is_down_is_told(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(
        f'state = "{state}"\n[records]\n[records.days]\nblocks = 3\noperations = 3\n'
        '[[records.store]]\nkind = "postgresql"\nurl_env = "NOT_THERE"\n'
    )
    assert run("verify", "--config", config) == 1
    assert "urlward: not compared with: url_env: NOT_THERE is not" in capsys.readouterr().err


def test_a_broken_chain(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state / FILE
    path.write_bytes(path.read_bytes().replace(b"a-1", b"a-2"))
    assert run("verify", "--state", state) == 1
    assert capsys.readouterr().out == f"{path}:2: was changed\n"
    assert run("verify", "--state", state, "--json") == 1
    assert json.loads(capsys.readouterr().out)["broken"] == {"line": 2, "reason": "was changed"}


def test_old_and_torn_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).write_text('{"action": "allowed"}\n')
    assert run("verify", "--state", tmp_path) == 1
    assert "it is of an urlward that signed nothing; whatever writes" in capsys.readouterr().out
    append(tmp_path, "", "expired", NOW)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"seq": 4')
    assert run("verify", "--state", tmp_path) == 0
    out = capsys.readouterr().out
    assert "lines before line 2 are of an urlward that signed none" in out
    assert "lines 1 to 1 are older than the chain" in out
    assert "cut short as they were written: lines 4\n" in out
    assert run("list", "--state", tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "     4  (cut short as it was written)"


def test_list(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{state}"\n')
    assert run("list", "--config", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        '     1  2025-11-25T09:46:40Z  allowed  anna (uid 0)  why="asked \\u001b[2J for señas"',
        '     2  2025-11-25T09:47:40Z  expired  -  id="a-1"',
    ]
    assert run("list", "--state", state, "--last", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == "a-1"
    assert run("list", "--state", state, "--action", "allowed") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert r'why="asked \u001b[2J for señas"' in out


def test_what_shows_nothing_is_said(state: Path) -> None:
    with pytest.raises(SettingError, match="--action: no line has that; it has 'allowed', 'expired'"):
        run("list", "--state", state, "--action", "nonsense")
