import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import run_command
from urlward.commands.decisions import add_own_commands
from urlward.engine.errors import UrlwardError
from urlward.policy.own import own_entries


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., int]:
    config = tmp_path / "urlward.toml"
    config.write_text('state = "state"\n')
    return lambda *arguments: run_command(add_own_commands, "own", *arguments, "--config", config)


def test_added_listed_revealed_and_removed(
    own: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert own("add", "listed.example", "--category", "games", "--note", "case 7", "--json") == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert (row["action"], row["kind"], row["category"], row["note"]) == (
        "block",
        "domain",
        "games",
        "case 7",
    )
    assert err == f"urlward: in {tmp_path}/state, for filters with that state folder\n"
    assert own("add", "listed.example", "--category", "games", "--note", "case 7") == 0
    assert capsys.readouterr().out == f"{row['id']}: blocks a domain, is there already\n"
    with pytest.raises(UrlwardError, match=f"it is there already: {row['id']}"):
        own("add", "listed.example", "--category", "news", "--note", "case 7")
    assert own("list") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{row['id']}  blocks a domain (games)  ")
    assert "listed" not in out
    assert own("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == row
    assert own("reveal", row["id"]) == 0
    assert capsys.readouterr().out == f"listed.example id={row['id']} category=games\n"
    assert own("remove", row["id"], "--why", "closed") == 0
    assert capsys.readouterr().out == f"{row['id']}: removed\n"
    assert own("list") == 0
    assert capsys.readouterr().out == ""


def test_what_the_key_does_not_open_is_told(
    own: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert own("add", "listed.example") == 0
    (tmp_path / "state/key").unlink()
    (tmp_path / "state/key.copy").unlink()
    capsys.readouterr()
    assert own("list") == 0
    assert "not in force" not in capsys.readouterr().out, "there is no other key yet"
    with pytest.raises(UrlwardError, match="remove it, and add it anew"):
        own("add", "more.example")
    assert own("list") == 0
    first, last = capsys.readouterr().out.splitlines()
    assert ("not in force" in first, "not in force" in last) == (True, False)


def test_a_url_from_standard_input(
    own: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    given = io.TextIOWrapper(io.BytesIO(b"http://listed.example/a/b\n"))
    monkeypatch.setattr("sys.stdin", given)
    assert own("add", "--as", "below", "--allow", "-") == 0
    assert "allows a prefix" in capsys.readouterr().out
    assert [one.action for one in own_entries(tmp_path / "state")] == ["allow"]


def test_a_root_page_by_which_a_host_may_be_meant(
    own: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (
        ["http://listed.example"],
        ["--as", "page", "http://other.example/"],
        ["http://b.example/a"],
    ):
        assert own("add", *given) == 0
    out, err = capsys.readouterr()
    assert out.count("blocks a page") == 3
    assert err.count("its root page alone; --as host means the host") == 1


def test_a_page_that_an_exception_lets_pass_all_the_same(
    own: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("@@listed.example\n")
    (tmp_path / "urlward.toml").write_text('state = "state"\nlist = ["list.txt"]\n')
    assert own("add", "http://other.example/a") == 0
    assert "passes all the same" not in capsys.readouterr().err
    assert own("add", "http://listed.example/a") == 0
    assert "passes all the same: an exception says so" in capsys.readouterr().err


def test_what_is_wide_is_added_by_who_is_sure(own: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="wide: it blocks 65536 addresses; --sure adds it all the same"):
        own("add", "10.0.0.0/16")
    assert own("add", "10.0.0.0/16", "--sure") == 0


def test_an_end_of_a_variable_that_is_not_set_is_none(own: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        own("add", "a.example", "--expires", "")
    assert not own_entries(tmp_path / "state")


def test_an_end_that_is_over_is_none(own: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="expires: 2020-01-31 is over"):
        own("add", "a.example", "--expires", "2020-01-31")
    assert not own_entries(tmp_path / "state")


def test_without_a_state_folder_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "u.toml").write_text("workers = 1\n")
    with pytest.raises(UrlwardError, match="has no own entries"):
        run_command(add_own_commands, "own", "add", "x.example", "--config", tmp_path / "u.toml")
