import io
import json
import time
from pathlib import Path

import pytest

from conftest import run_command
from urlward.commands.decisions import add_objection_commands
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Objection, add_objection, read_objections
from urlward.policy.allows import current_allows
from urlward.state.folder import local_key

REFERENCE = "7Q4M-2XKD-93FH"


@pytest.fixture
def objection(tmp_path: Path) -> Objection:
    return add_objection(
        tmp_path, local_key(tmp_path), REFERENCE, "Two\nlines", client="192.0.2.7", now=1_800_000_000
    )


def run(state: Path, *arguments: str) -> int:
    return run_command(add_objection_commands, "objections", *arguments, "--state", state)


def test_what_is_open_is_shown(
    tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "list") == 0
    assert capsys.readouterr().out == (
        f"{objection.id}  2027-01-15T08:00:00Z  {REFERENCE}  192.0.2.7  open\n  | Two\n  | lines\n"
    )


def test_as_json(tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "list", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["state"], shown["message"]) == (objection.id, "open", "Two\nlines")


def test_nothing_is_said_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "list") == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_declined(tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "decline", objection.id, "--why", "it is what it says") == 0
    assert capsys.readouterr().out == f"{objection.id}: declined\n"
    run(tmp_path, "list")
    assert capsys.readouterr().out == ""
    run(tmp_path, "list", "--all")
    assert "it is what it says" in capsys.readouterr().out


def test_several_declined_up_to_the_first_that_cannot_be(
    tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str]
) -> None:
    other = add_objection(tmp_path, local_key(tmp_path), REFERENCE, "x", client="", now=1_800_000_000)
    with pytest.raises(UrlwardError, match="no objection 'o-0'"):
        run(tmp_path, "decline", objection.id, "o-0", other.id, "--why", "junk")
    assert capsys.readouterr().out == f"{objection.id}: declined\n"
    assert [one.state for one in read_objections(tmp_path)] == ["declined", "open"]


def test_granted_with_a_url(
    tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"http://blocked.example/page\n")))
    assert run(tmp_path, "grant", objection.id, "-", "--for", "2h", "--why", "mistake") == 0
    (allow,) = current_allows(tmp_path, time.time())
    assert capsys.readouterr().out.startswith(f"{objection.id}: granted; {allow.id} allows the page until ")
    assert read_objections(tmp_path)[0].allow == allow.id


def test_granted_without(tmp_path: Path, objection: Objection, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "grant", objection.id, "--why", "the list is corrected") == 0
    assert "nothing is allowed, since no URL was given" in capsys.readouterr().out
    assert current_allows(tmp_path, time.time()) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "2h"), "--for and --host go with a URL"),
        (("--host",), "--for and --host go with a URL"),
        (("http://blocked.example/",), "--for TIME is needed"),
        (("http://blocked.example/", "--for", "2y"), "is not a time"),
        (("-", "--for", "2h"), "standard input: no URL"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path,
    objection: Objection,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UrlwardError, match=message):
        run(tmp_path, "grant", objection.id, *arguments, "--why", "x")
    assert read_objections(tmp_path) == [objection]


def test_an_id_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="no objection"):
        run(tmp_path, "decline", "o-0", "--why", "x")
