"""The publisher as a command, over a real nginx, and nodes that follow it by an ordinary feed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from conftest import run_command, until, wait_for
from feeds.feed_support import Feed, Server, hosts
from feeds.test_take import asked
from feeds.test_updates import Running
from lists.support import key_file
from obstacles import audit_on_a_full_disk
from publish.publish_support import BODY, offered
from urlward.commands.feeds import add_publish_commands
from urlward.config import Config, FeedTable, read_config
from urlward.engine.errors import UrlwardError
from urlward.feeds.setup import configured_keeper
from urlward.feeds.store import FeedStore
from urlward.publish import run as publish_run
from urlward.publish.desk import RolloutDesk
from urlward.publish.lease import Lease
from urlward.publish.place import Folder
from urlward.publish.rollout import HeldRollout, Rollout, read_rollouts
from urlward.publish.run import Publisher

pytestmark = pytest.mark.usefixtures("compiles_here")


@pytest.fixture
def config(tmp_path: Path, site: Server) -> Path:
    """A configuration of a publisher whose folder that nginx serves."""
    to = site.folder / "www" / tmp_path.name
    key_file(tmp_path / "lists.key")
    (tmp_path / "body").write_bytes(BODY.pem())
    path = tmp_path / "publisher.toml"
    path.write_text(
        'state = "publisher"\n[[feed]]\nname = "phish"\npath = "phish.txt"\n'
        "max_shrink = 1.0\nmax_grow = 9.0\n"
        f'[publish]\nto = "{to}"\nkey = "lists.key"\nsign = "body"\nlease = "60s"\n'
    )
    (tmp_path / "phish.txt").write_text(hosts(*range(200)))
    return path


def soon(config: Path) -> None:
    """Have a publisher's place be taken soon, by one that waits for a processor for less than that."""
    config.write_text(config.read_text().replace('lease = "60s"', 'lease = "2s"'))


def run(config: Path, command: str, *arguments: str) -> int:
    return run_command(add_publish_commands, *command.split(), *arguments, "--config", config)


def node(tmp_path: Path, site: Server, name: str = "node", **keys: Any) -> Feed:
    table = FeedTable(
        name="phish",
        url=site.url(f"{tmp_path.name}/stable/phish.ward"),
        trust=(str(BODY.public),),
        key=str(tmp_path / "lists.key"),
        **keys,
    )
    return Feed(table, tmp_path / name, Config(feed=(table,)))


def test_nodes_follow_by_an_ordinary_feed(
    config: Path, tmp_path: Path, site: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "rollout status") == 0
    assert capsys.readouterr().out.endswith("nothing is published there\n")
    assert run(config, "publish", "--once") == 0
    made = node(tmp_path, site)
    assert made.refresh().text.startswith("200 entries fetched")
    assert made.blocks("h7.example")
    first = made.facts.serial
    assert run(config, "publish", "--once") == 0
    assert "phish: as published: serial" in capsys.readouterr().out
    (tmp_path / "phish.txt").write_text(hosts(*range(1, 203)))
    assert run(config, "publish", "--once") == 0
    site.seen()
    assert made.refresh().text.endswith("+3 -1, by delta")
    assert asked(site) == [f"200 /{tmp_path.name}/stable/phish.ward.{first}.delta"]
    # Half of it is gone, by mistake; nodes that let that through are back at once, by a header alone.
    (tmp_path / "phish.txt").write_text(hosts(*range(50)))
    assert run(config, "publish", "--once") == 0
    assert made.refresh(max_shrink=1.0).text.startswith("50 entries fetched")
    capsys.readouterr()
    assert run(config, "rollout rollback", "phish", "--why", "half of it") == 0
    assert "for all, held until it is released" in capsys.readouterr().out
    assert made.refresh(max_grow=0.1).text.startswith("202 entries fetched")
    assert made.blocks("h200.example")
    assert run(config, "publish", "--once") == 1
    capsys.readouterr()
    assert run(config, "rollout status", "--json") == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["held"]["reason"], len(row["versions"])) == ("phish", "half of it", 4)
    assert run(config, "rollout release", "phish", "--why", "mended") == 0
    (tmp_path / "phish.txt").write_text(hosts(*range(210)))
    assert run(config, "publish", "--once") == 0
    assert run(config, "rollout status") == 0
    assert made.refresh().text.startswith("210 entries fetched")
    audit = (tmp_path / "publisher/audit.jsonl").read_text()
    assert [json.loads(line)["action"] for line in audit.splitlines()][-2:] == ["rolled-back", "released"]
    for path in (site.folder / "www" / tmp_path.name).rglob("*"):
        assert not path.is_file() or b"h7.example" not in path.read_bytes()


def test_the_audit_log_has_what_was_done_and_not_what_was_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = config.parent / "publisher/audit.jsonl"
    assert run(config, "publish", "--once") == 0
    for act in (
        ("rollout promote", "phish"), ("rollout release", "phish"), ("rollout rollback", "phish"),
        ("rollout rollback", "phish", "5"), ("rollout rollback", "none"),
    ):  # fmt: skip
        with pytest.raises(UrlwardError):
            run(config, *act, "--why", "to see")
    assert not log.exists() or "phish" not in log.read_text()
    (config.parent / "phish.txt").write_text(hosts(*range(210)))
    assert run(config, "publish", "--once") == 0
    with audit_on_a_full_disk(), pytest.raises(UrlwardError):
        run(config, "rollout rollback", "phish", "--why", "to see")
    capsys.readouterr()
    assert run(config, "rollout status") == 0, "what cannot be written down is not done"
    assert run(config, "rollout rollback", "phish", "--why", "a mistake") == 0
    assert [json.loads(line)["action"] for line in log.read_text().splitlines()] == ["rolled-back"]


def test_who_checks_with_the_publishers_configuration_has_its_lists(config: Path) -> None:
    assert run(config, "publish", "--once") == 0
    keeper = configured_keeper(read_config(config))
    keeper.load()
    assert keeper.matcher.check_url("http://h7.example/").blocked


def test_where_another_leads_nothing_is_done_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(config.read_text().replace('lease = "60s"', 'lease = "1s"'))
    monkeypatch.setattr(publish_run, "LOOK", 0.1)
    monkeypatch.setattr(Lease, "take", lambda *_: False)
    with pytest.raises(UrlwardError, match="leads, and publishes what is new"):
        run(config, "publish", "--once")


SOON = (
    "import runpy; from urlward.publish import run; run.LOOK, run.LOOK_CANARIES = 0.2, 1.0; "
    "runpy.run_module('urlward', run_name='__main__')"
)


@contextmanager
def publisher(
    config: Path, **environment: str
) -> "Iterator[tuple[subprocess.Popen[str], Callable[[str], None]]]":
    """`urlward publish` as a process that looks more often, and what waits for a line of it."""
    log = config.with_name(f"log{len(list(config.parent.glob('log*')))}")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SOON, "publish", "--config", config],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )

    def said(text: str) -> None:
        wait_for(lambda: text in log.read_text() or process.poll() is not None, text)
        assert text in log.read_text(), log.read_text()

    try:
        yield process, said
    finally:
        process.kill()
        process.wait()


def test_publishers_take_each_others_place_and_nodes_see_it_at_once(
    config: Path, tmp_path: Path, site: Server
) -> None:
    soon(config)
    url = site.url(f"{tmp_path.name}/stable/phish.ward")
    following = (
        f'[[feed]]\nname = "phish"\nurl = "{url}"\nkey = "lists.key"\n'
        f'trust = ["{BODY.public}"]\npoll = "1s"\n'
    )
    with publisher(config) as (first, said), Running(tmp_path, following) as seen:
        said("publish: list phish: published: serial")
        with publisher(config) as (second, second_said):
            seen.wait_for("list phish: 200 entries fetched")
            second_said("leads: this one waits for it to end")
            (tmp_path / "phish.txt").write_text(hosts(*range(201)))
            seen.wait_for("list phish: 201 entries fetched")
            first.send_signal(signal.SIGKILL)
            # The second, or a later one where the first had to wait for a processor.
            second_said("with token ")
            (tmp_path / "phish.txt").write_text(hosts(*range(202)))
            seen.wait_for("list phish: 202 entries fetched")
            assert run(config, "rollout rollback", "phish", "--why", "wrong") == 0
            seen.wait_for("list phish: 201 entries fetched")
            second.terminate()
            assert second.wait(60) == 0
    lease = json.loads((site.folder / "www" / tmp_path.name / ".publish/lease.json").read_text())
    assert lease["free"]


@pytest.mark.parametrize("is_fetched", [True, False])
def test_a_damaged_version_is_issued_anew_or_in_no_other_lists_way(
    config: Path, tmp_path: Path, site: Server, is_fetched: bool
) -> None:
    for number in (200, 201):
        (tmp_path / "phish.txt").write_text(hosts(*range(number)))
        assert run(config, "publish", "--once") == 0
    folder = site.folder / "www" / tmp_path.name
    (folder / "stable/phish.ward").unlink()
    (rollout,) = read_rollouts(Folder(folder))
    (folder / f"versions/phish/{rollout.stable}.ward").write_bytes(b"damaged")
    read = read_config(config)
    publisher = Publisher(read, tmp_path / "publisher", Folder(folder))
    if not is_fetched:
        FeedStore(tmp_path / "publisher", "phish").path.unlink()
    assert publisher._try_to_lead()
    try:
        assert publisher._tend(read.feed[0], 0.0) == is_fetched
        assert list(publisher.troubles()) == ([] if is_fetched else [("publish", "phish")])
        assert (folder / "stable/phish.ward").exists() == is_fetched
    finally:
        publisher.lease.release()


async def test_a_canary_decides_over_its_metrics(
    config: Path,
    tmp_path: Path,
    site: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("urlward.publish.rollout.PATIENCE", 60)
    monkeypatch.setattr(publish_run, "LOOK_CANARIES", 0.2)
    monkeypatch.setattr(publish_run, "LOOK", 0.1)
    with config.open("a") as file:
        file.write(f'observe = "1s"\n[[publish.canary]]\nurl = "{site.url("node")}"\ntoken_file = "token"\n')
    site.put("node/metrics", "")
    place = Folder(site.folder / "www" / tmp_path.name)
    publisher = Publisher(read_config(config), tmp_path / "publisher", place)

    def record() -> Rollout:
        return next(iter(read_rollouts(place)), Rollout("phish"))

    def counted(blocks: int) -> None:
        """The canary has what is offered to it, and has counted so much."""
        text = f'urlward_list_serial{{list="phish"}} {record().canary}\n'
        text += f'urlward_requests_total{{stage="match",verdict="pass"}} {1000 + blocks}\n'
        site.put("node/metrics", f'{text}urlward_blocks_total{{list="phish",category=""}} {blocks}\n')

    task = asyncio.ensure_future(publisher.run())
    try:
        await until(lambda: offered(place))
        (tmp_path / "phish.txt").write_text(hosts(*range(201)))
        await until(lambda: record().is_tried)
        # Long before the list is held for that.
        await until(lambda: "/token: No such file" in caplog.text)
        assert publisher.troubles() == {}
        (tmp_path / "token").write_text("token")
        await until(lambda: "serial 0" in record().waiting)
        assert f"canary {site.url('node')}: well again" in caplog.text
        counted(0)
        await until(lambda: offered(place) == offered(place, "canary"))
        (tmp_path / "phish.txt").write_text(hosts(*range(202)))
        await until(lambda: record().is_tried)
        good = offered(place)
        counted(1)
        await until(lambda: record().before)
        (one,) = RolloutDesk(read_config(config), tmp_path / "publisher", place).rows()["lists"][0][
            "canaries"
        ]
        assert (one["has"], one["requests"], one["blocks"]["now"]) == (True, 0, 0)
        counted(900)
        await until(lambda: record().held)
        await until(lambda: record().canary > record().versions[-2].serial)
        assert offered(place) == good
        await until(lambda: ("rollout-held", "phish") in publisher.troubles())
        # What somebody holds is known to them, and no alarm.
        desk = RolloutDesk(read_config(config), tmp_path / "publisher", place)
        (row,) = desk.rows()["lists"]
        assert (row["state"], row["can_promote"], row["held"]["who"]) == ("held", True, "")
        assert "serial" in desk.act("rollback", "phish", why="wrong", who="Ann")
        await until(lambda: publisher.rollouts["phish"].held == HeldRollout("wrong", "Ann", ANY))
        assert publisher.troubles() == {}
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert row["held"]["reason"].startswith(f"{site.url('node')}: 899 blocks of")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no [publish] in it"),
        ('[publish]\nkey = "lists.key"\nsign = "body"\n', "no [[feed]] in it"),
        (
            '[[feed]]\nname = "a"\npath = "a"\n[publish]\nkey = "lists.key"\nsign = "body"\n',
            "no destination: give one, or say publish.to",
        ),
        ('[[feed]]\nname = "a"\npath = "a"\n[publish]\nto = "www"\nkey = "none"\nsign = "body"\n', "none: "),
        (
            '[[feed]]\nname = "a"\npath = "a"\n[publish]\nto = "www"\nkey = "lists.key"\nsign = "none"\n',
            "none: ",
        ),
        (
            '[[feed]]\nname = "a"\npath = "a"\n[publish]\nto = "www"\nkey = "lists.key"\nsign = "body"\n'
            '[[publish.canary]]\nurl = "http://node.example"\ntoken_file = "t"\n',
            "leave --once out",
        ),
        ('[publish]\nto = "ftp://x"\nkey = "k"\nsign = "s"\n', "publish.to: neither a folder nor s3://"),
        ('[publish]\nto = "s3://"\nkey = "k"\nsign = "s"\n', "publish.to: s3:// without a bucket"),
        (
            '[publish]\nkey = "k"\nsign = "s"\n[[publish.canary]]\nurl = "x"\ntoken_file = "t"\n',
            "publish.canary.0.url: not an http:// or https:// address",
        ),
    ],
)
def test_what_cannot_be_published(config: Path, text: str, message: str) -> None:
    config.write_text(text)
    with pytest.raises(UrlwardError) as raised:
        run(config, "publish", "--once")
    assert message in str(raised.value)
