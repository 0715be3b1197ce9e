import errno
import io
import json
import re
import time
from pathlib import Path

import pytest

from conftest import run_command
from urlward.commands.admin import add_admin_commands
from urlward.engine.errors import UrlwardError
from urlward.state.people import People, admit, read_people


def run(state: Path, *arguments: object) -> int:
    return run_command(add_admin_commands, "admin", *arguments, "--state", state)


class Full(io.StringIO):
    """Standard output on a disk that is full."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "no space")


def test_a_token_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(
        UrlwardError, match=r"^Ann is there, and nobody got the token \(no space\): remove them"
    ):
        run(tmp_path, "add", "Ann", "--role", "viewer")


def test_a_person_comes_and_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "add", "Ann", "--role", "operator") == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert token not in said.err
    assert "kept nowhere" in said.err
    found = People(tmp_path).by_token(token, time.time())
    assert found is not None
    assert found.name == "Ann"
    assert run(tmp_path, "add", "Vic", "--role", "viewer", "--days", 3) == 0
    assert run(tmp_path, "role", "Vic", "operator") == 0
    assert capsys.readouterr().out.endswith("\nVic: operator\n")
    assert run(tmp_path, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"operator  Ann  since \S+Z, always", lines[0])
    assert re.fullmatch(r"operator  Vic  since \S+Z, until \S+Z", lines[1])
    assert run(tmp_path, "remove", "Ann") == 0
    assert run(tmp_path, "list", "--json") == 0
    said = capsys.readouterr()
    (left,) = [json.loads(line) for line in said.out.splitlines()[1:]]
    assert left["name"] == "Vic"
    with pytest.raises(UrlwardError, match="nobody else is an operator"):
        run(tmp_path, "remove", "Vic")


def test_a_token_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("0123456789abcdef0123")
    assert run(tmp_path, "add", "prometheus", "--role", "viewer", "--token", file) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "0123456789abcdef0123" not in said.err
    assert People(tmp_path).by_token("0123456789abcdef0123", time.time()) is not None
    (added,) = read_people(tmp_path)
    assert run(tmp_path, "add", "prometheus", "--role", "viewer", "--token", file) == 0, "as it is there"
    assert read_people(tmp_path) == [added]
    with pytest.raises(UrlwardError, match="is there already"):
        run(tmp_path, "add", "prometheus", "--role", "operator", "--token", file)


def test_who_came_by_the_file_goes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admit(tmp_path, tmp_path / "admin.token", time.time())
    run(tmp_path, "add", "Ann", "--role", "operator")
    assert run(tmp_path, "remove", "admin") == 0
    assert capsys.readouterr().out.endswith(f"admin: removed, and {tmp_path}/admin.token\n")
    assert not (tmp_path / "admin.token").exists()
    assert [one.name for one in read_people(tmp_path)] == ["Ann"]
