import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import run_command
from feeds.feed_support import Server, hosts
from lists.support import HTML
from urlward.commands.arguments import caller
from urlward.commands.feeds import add_feed_commands
from urlward.engine.errors import UrlwardError
from urlward.feeds.store import FeedStore

# `urlward own` has it done by a process (`test_own.py`), and so has `feeds/test_refresh.py`.
pytestmark = pytest.mark.usefixtures("compiles_here")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def run(*arguments: str | Path) -> int:
    """A command as the command line would run it."""
    return run_command(add_feed_commands, "feeds", *arguments)


@pytest.fixture
def urlward(tmp_path: Path, site: Server) -> Callable[..., int]:
    """`urlward feeds` over two feeds of one server."""
    config = tmp_path / "urlward.toml"
    config.write_text(
        f'state = "state"\n[[feed]]\nname = "one"\nurl = "{site.url()}"\n'
        f'[[feed]]\nname = "two"\nurl = "{site.url("feed2")}"\n'
    )
    return lambda *arguments: run(*arguments, "--config", config)


def status(capsys: pytest.CaptureFixture[str], urlward: Callable[..., int], code: int) -> dict[str, Any]:
    capsys.readouterr()
    assert urlward("status", "--json") == code
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_refresh_and_status(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(UrlwardError, match="state: No such file or directory"):
        urlward("status")
    (tmp_path / "state").mkdir()
    rows = status(capsys, urlward, 1)
    assert [row["state"] for row in rows.values()] == ["waiting", "waiting"]
    site.put("feed", hosts(*range(20)))
    site.put("feed2", HTML)
    assert urlward("refresh") == 1
    out, err = capsys.readouterr()
    assert out.startswith("one: 20 entries fetched, serial ")
    assert err == "two: html: a web page or XML, not a list (a login page?); there is no list yet\n"
    rows = status(capsys, urlward, 1)
    assert [row["state"] for row in rows.values()] == ["ok", "alarm"]
    assert (rows["one"]["entries"], rows["one"]["added"], rows["one"]["removed"]) == (20, 20, 0)
    assert rows["one"]["next_run"] > rows["one"]["last_success"] == rows["one"]["last_change"]
    assert (rows["two"]["reason"], rows["two"]["failures"]) == ("html", 1)
    assert rows["two"]["last_success"] is None
    site.put("feed2", hosts(1))
    assert urlward("refresh", "two") == 0
    assert capsys.readouterr().out.startswith("two: 1 entry fetched")
    assert urlward("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "feed",
        "entries",
        "serial",
        "last",
        "success",
        "change",
        "next",
        "run",
        "state",
    ]
    assert lines[1].split()[:2] == ["one", "20"]
    assert lines[2].split()[-1] == "ok"
    assert len(lines) == 3


def test_status_says_what_is_wrong(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    site.put("feed", hosts(*range(20)))
    urlward("refresh", "one")
    site.put("feed", hosts(1))
    urlward("refresh", "one")
    urlward("refresh", "one")
    capsys.readouterr()
    assert urlward("status", "one") == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  shrunk: 1 entry after 20: shrunk by more than 20 % (2 times)",
        "  refused: 1 entry; urlward feeds accept one --why TEXT",
    ]


def test_accept(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.put("feed", hosts(*range(20)))
    urlward("refresh", "one")
    site.put("feed", hosts(1))
    urlward("refresh", "one")
    capsys.readouterr()
    assert urlward("accept", "one", "--why", "the body told us") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "one: the list of 1 entry is let through once"
    assert out[1].startswith("one: 1 entry fetched, serial ")
    assert out[1].endswith(", +0 -19, accepted by the operator")
    (line,) = (tmp_path / "state/audit.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert (said["action"], said["feed"], said["why"]) == ("accepted", "one", "the body told us")
    assert (said["entries"], said["before"]) == (1, 20)
    assert said["who"] == caller(), "by what the kernel knows, as of all other commands"
    # Once.
    site.put("feed", hosts(*range(20)))
    urlward("refresh", "one")
    assert status(capsys, urlward, 1)["one"]["reason"] == "grown"


def test_accept_beforehand(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    site.put("feed", hosts(*range(20)))
    urlward("refresh", "one")
    assert urlward("accept", "one", "--why", "announced for today") == 0
    assert "nothing was refused" in capsys.readouterr().out
    # What nothing is odd about, and what is no list, does not use it up.
    assert urlward("refresh", "one") == 0
    site.put("feed", HTML)
    assert urlward("refresh", "one") == 1
    site.put("feed", hosts(*range(3)))
    assert urlward("refresh", "one") == 0
    assert status(capsys, urlward, 1)["one"]["entries"] == 3
    site.put("feed", hosts(*range(30)))
    assert urlward("refresh", "one") == 1


def test_what_cannot_be_done(urlward: Callable[..., int], tmp_path: Path) -> None:
    for arguments in (["status", "three"], ["refresh", "three"], ["accept", "three", "--why", "x"]):
        with pytest.raises(UrlwardError, match="no feed is called 'three'; there are one, two"):
            urlward(*arguments)
    for why in ("", " ", "two\nlines", "x" * 501):
        with pytest.raises(UrlwardError, match="why: needed"):
            urlward("accept", "one", "--why", why)
    (tmp_path / "urlward.toml").write_text("")
    with pytest.raises(UrlwardError, match=r"no \[\[feed\]\] in it"):
        urlward("status")


def test_one_that_is_being_refreshed_is_left_alone(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.put("feed", hosts(1))
    with FeedStore(tmp_path / "state", "one").locked():
        assert urlward("refresh", "one") == 0
    assert capsys.readouterr().out == "one: being refreshed already\n"


@needs_root
def test_what_root_makes_belongs_to_the_folders_owner(site: Server, urlward: Callable[..., int]) -> None:
    site.put("feed", hosts(*range(20)))
    # The owner has to get there: what root asks for is fetched as them.
    with tempfile.TemporaryDirectory(prefix="urlward-owned-") as name:
        Path(name).chmod(0o755)
        state = Path(name, "state")
        state.mkdir(0o700)
        os.chown(state, 65534, 65533)
        assert urlward("refresh", "one", "--state", state) == 0
        assert urlward("accept", "one", "--why", "said so", "--state", state) == 0
        made = list(state.rglob("*"))
        names = {"feeds", "key", "one.ward", "one.json", "one.lock", "audit.jsonl"}
        assert {path.name for path in made} >= names
        for path in made:
            found = path.stat()
            assert found.st_uid == 65534, path
            assert not stat.S_IMODE(found.st_mode) & 0o077, path


def test_an_earlier_list_is_in_force_until_it_is_released(
    site: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for count in (20, 21):
        site.put("feed", hosts(*range(count)))
        assert urlward("refresh", "one") == 0
    before, now = FeedStore(tmp_path / "state", "one").versions()[0].serial, status(capsys, urlward, 1)["one"]
    assert urlward("rollback", "one", "--list") == 0
    assert capsys.readouterr().out.startswith(f"{before}  made ")
    with pytest.raises(UrlwardError, match="give --why TEXT"):
        urlward("rollback", "one")
    assert urlward("rollback", "one", "--why", "one too many") == 0
    told = f"one: serial {before} in force, before it was {now['serial']}; held until it is released\n"
    assert capsys.readouterr().out == told
    assert urlward("refresh", "one") == 0
    assert capsys.readouterr().out.startswith(f"one: held at serial {before} by ")
    rows = status(capsys, urlward, 1)
    assert (rows["one"]["state"], rows["one"]["entries"]) == ("held", 20)
    urlward("status", "one")
    assert "urlward feeds release one --why TEXT" in capsys.readouterr().out
    assert urlward("release", "one", "--why", "mended") == 0
    assert status(capsys, urlward, 1)["one"]["entries"] == 21
