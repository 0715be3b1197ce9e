import io
import json
import os
import re
from pathlib import Path

import pytest

from conftest import run_command
from lists.support import SENTINEL
from rows import each_row
from urlward.commands.decisions import add_allow_commands
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.policy.allows import current_allows, duration
from urlward.state.folder import StateError

URL = f"http://{SENTINEL}.test/{SENTINEL}"
ALLOW = (URL, "--for", "2h", "--why", "asked for")


def run(*arguments: str) -> int:
    return run_command(add_allow_commands, "allow", *arguments)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's configuration is of a filter with this state folder."""
    (tmp_path / "machine.toml").write_text('state = "state"')
    monkeypatch.setattr("urlward.config.SYSTEM", tmp_path / "machine.toml")
    return tmp_path / "state"


def test_allow_list_and_end(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ALLOW) == 0
    (made,) = current_allows(state, 0)
    until = rf"{time_text(made.until)} \(2 h 0 min\)"
    line = rf"{made.id}  the page  until {until}  \S+ \(uid {os.getuid()}\): asked for\n"
    out, err = capsys.readouterr()
    assert re.fullmatch(line, out)
    assert err.startswith(f"urlward: in {state}, for filters with that state folder\n")
    assert run("--list") == 0
    assert capsys.readouterr().out.startswith(f"{made.id}  the page  until ")
    assert run("--end", made.id, "--why", "done with") == 0
    assert capsys.readouterr().out == f"{made.id}: ended\n"
    assert run("--list") == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(UrlwardError, match="is in force"):
        run("--end", made.id, "--why", "done with")


@each_row(
    "text",
    [
        'state = "s"\n',
        '[[feed]]\nname = "a"\npath = "x"\n',
        "[records.days]\nblocks = 1\noperations = 1\n",
    ],
)
def test_a_filter_with_a_state_folder_heeds_it(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    config = tmp_path / "urlward.toml"
    config.write_text(text)
    assert run(*ALLOW, "--config", str(config)) == 0


@each_row(("entry", "told"), [("listed.example", True), (URL, False), (f"{SENTINEL}.test", False)])
def test_an_allow_of_what_no_list_blocks(
    tmp_path: Path, entry: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{entry}\n")
    (tmp_path / "urlward.toml").write_text('list = ["list.txt"]\nstate = "state"\n')
    assert run(*ALLOW, "--config", str(tmp_path / "urlward.toml")) == 0
    err = capsys.readouterr().err
    assert ("urlward: no list of the configuration blocks that page\n" in err) is told
    assert SENTINEL not in err


def test_none_is_made_where_no_filter_would_heed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    monkeypatch.setattr("urlward.config.SYSTEM", tmp_path / "none.toml")
    with pytest.raises(UrlwardError, match=r"^no --config given: .* heeds no allow"):
        run(*ALLOW)
    config = tmp_path / "urlward.toml"
    config.write_text("status = 403")
    with pytest.raises(UrlwardError, match=r"urlward\.toml: .* heeds no allow"):
        run(*ALLOW, "--config", str(config))
    assert not (tmp_path / "service").exists()


def test_json(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*ALLOW, "--host", "--json")
    run("--list", "--json")
    out = capsys.readouterr().out
    made, listed = map(json.loads, out.splitlines())
    assert made == listed
    assert made["kind"] == "host"
    assert set(made) == {"id", "kind", "created", "until", "who", "why"}
    assert SENTINEL not in out
    run("--end", made["id"], "--why", "done with", "--json")
    assert json.loads(capsys.readouterr().out) == made


def test_a_url_from_standard_input(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"listed.test\r\n")))
    run("-", *ALLOW[1:])
    assert current_allows(state, 0)[0].kind == "host"


def test_nothing_is_ended_where_there_is_no_state(state: Path) -> None:
    with pytest.raises(UrlwardError, match=f"^{state}: No such file or directory$"):
        run("--end", "", "--why", "done with")


def test_a_list_changes_nothing_where_there_is_no_state(state: Path) -> None:
    with pytest.raises(StateError, match="state: No such file or directory"):
        run("--list")
    assert not state.exists()


def test_the_state_folder_is_the_one_given(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text('state = "configured"')
    run(*ALLOW, "--config", str(config))
    run(*ALLOW, "--config", str(config), "--state", str(tmp_path / "given"))
    run(*ALLOW, "--state", str(tmp_path / "given"))
    assert len(current_allows(tmp_path / "configured", 0)) == 1
    assert len(current_allows(tmp_path / "given", 0)) == 2
    assert not state.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a URL, or --list, or --end ID"),
        ((*ALLOW, "--list"), "give a URL, or --list, or --end ID"),
        (("--list", "--end", "a-1"), "give a URL, or --list, or --end ID"),
        ((URL, "--for", "2h"), "--why TEXT is needed"),
        ((URL, "--why", "asked for"), "--for TIME is needed, such as 2h"),
        ((URL, "--for", "2h", "--why", ""), "why: needed, one line of at most 500 characters"),
        ((URL, "--for", "2 hours", "--why", "x"), "for: '2 hours' is not a time such as 30m, 2h or 3d"),
        (("--end", "a-1"), "--why TEXT is needed"),
        (("--end", "a-1", "--why", "x", "--for", "2h"), "--for goes with a URL"),
        (("--list", "--host"), "--host goes with a URL"),
        (("--list", "--why", "x"), "--why goes with a URL or --end"),
        (("http://", "--for", "2h", "--why", "x"), "not a URL or host: no host"),
    ],
)
def test_what_is_not_understood(state: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UrlwardError) as raised:
        run(*arguments)
    assert str(raised.value) == message
    assert not (state / "audit.jsonl").exists()


@each_row(("text", "seconds"), [("1m", 60), ("30m", 1800), ("2h", 7200), ("3d", 259_200), ("30d", 2_592_000)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@each_row("text", ["", "0m", "-1h", "1", "h", "1.5h", "2H", "90s", "31d", "721h", "٣h", "1w", "1h "])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UrlwardError, match=r"^for: "):
        duration(text)
