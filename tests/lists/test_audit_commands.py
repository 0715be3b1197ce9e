import json
from pathlib import Path

import pytest

from conftest import run_command
from urlward.lists.audit import FILE, AuditError, append
from urlward.lists.audit_commands import add_audit_commands

NOW = 1_764_064_000


def run(*arguments: str | Path) -> int:
    return run_command(add_audit_commands, "audit", *arguments)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    append(tmp_path, "anna (uid 0)", "allowed", NOW, why="asked \x1b[2J for")
    append(tmp_path, "", "expired", NOW + 60, id="a-1")
    return tmp_path


def test_verify(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--state", state) == 0
    first, head = capsys.readouterr().out.splitlines()
    assert first == f"{state / FILE}: 2 lines, the chain holds"
    known = head.removeprefix("last hash ")
    append(state, "", "expired", NOW)
    assert run("verify", "--state", state, "--known", known, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["holds"], shown["lines"], shown["has_known"], shown["broken"]) == (True, 3, True, None)


def test_a_log_that_was_cut(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("verify", "--state", state)
    known = capsys.readouterr().out.split()[-1]
    path = state / FILE
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert run("verify", "--state", state) == 0
    assert run("verify", "--state", state, "--known", known) == 1
    assert "no line has the hash that is known" in capsys.readouterr().out
    with pytest.raises(AuditError, match=r"^known: "):
        run("verify", "--state", state, "--known", "abc")


def test_a_broken_chain(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state / FILE
    path.write_bytes(path.read_bytes().replace(b"a-1", b"a-2"))
    assert run("verify", "--state", state) == 1
    assert capsys.readouterr().out == f"{path}:2: was changed\n"
    assert run("verify", "--state", state, "--json") == 1
    assert json.loads(capsys.readouterr().out)["broken"] == {"line": 2, "reason": "was changed"}


def test_old_and_torn_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).write_text('{"action": "allowed"}\n')
    append(tmp_path, "", "expired", NOW)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"seq": 3')
    assert run("verify", "--state", tmp_path) == 0
    out = capsys.readouterr().out
    assert "lines 1 to 1 are older than the chain" in out
    assert "cut short as they were written: lines 3\n" in out
    assert run("list", "--state", tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "     3  (cut short as it was written)"


def test_list(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{state}"\n')
    assert run("list", "--config", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        '     1  2025-11-25T09:46:40Z  allowed  anna (uid 0)  why="asked \\u001b[2J for"',
        '     2  2025-11-25T09:47:40Z  expired  -  id="a-1"',
    ]
    assert run("list", "--state", state, "--last", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == "a-1"
    assert run("list", "--state", state, "--action", "allowed") == 0
    assert capsys.readouterr().out.count("\n") == 1
