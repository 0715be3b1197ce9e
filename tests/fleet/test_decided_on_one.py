"""Two filters, each with its own state folder and configuration, and a Valkey between them."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import wait_for
from e2e import support
from e2e.support import Filter, running, status_of
from feeds.test_rollback import issue
from fleet.servers import HAS_VALKEY, valkey
from lists.support import SECRET
from urlward.engine.digest import format_key

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server")

CONFIG = """
key = "lists.key"
state = "state"

[fleet]
url = "{url}"
node = "{node}"

[records]
days = {{ blocks = 1, operations = 1 }}

[[feed]]
name = "phish"
path = "{feed}"
max_shrink = 1.0
"""


@dataclass
class Node:
    proxy: Filter
    config: Path

    def status(self, host: str) -> int:
        return status_of(self.proxy.port, f"http://{host}/")

    def urlward(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return support.urlward(*arguments, "--config", self.config)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    folder = tmp_path_factory.mktemp("decided")
    feed = folder / "phish.ward"
    feed.write_bytes(issue(3))
    with ExitStack() as stack:
        server = stack.enter_context(valkey(folder / "valkey"))
        made = []
        for name in ("a", "b"):
            own = folder / name
            own.mkdir()
            (own / "lists.key").write_bytes(format_key(SECRET))
            (own / "urlward.toml").write_text(CONFIG.format(url=server.url, node=name, feed=feed))
            proxy = stack.enter_context(running(own, "--config", str(own / "urlward.toml")))
            made.append(Node(proxy, own / "urlward.toml"))
        a, b = made
        for node in made:
            wait_for(lambda node=node: node.status("h2.example") == 451, "the feed's list")
        wait_for(lambda: a.urlward("fleet", "status").stdout.count(" 3") >= 2, "both nodes")
        yield a, b


def test_an_allow_and_an_own_entry_of_one_node_are_in_force_on_the_other(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert b.status("h1.example") == 451
    assert b.status("unlisted.test") != 451
    assert a.urlward("allow", "h1.example", "--for", "10m", "--why", "a test").returncode == 0
    assert a.urlward("own", "add", "unlisted.test").returncode == 0
    wait_for(lambda: b.status("h1.example") != 451 and b.status("unlisted.test") == 451, "what a decided")
    assert b.urlward("audit", "list", "--json").stdout.count('"node": "a"') == 2


def test_a_rollback_of_the_fleet_is_in_force_on_all_nodes(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    feed = Path(a.config.parent.parent / "phish.ward")
    feed.write_bytes(issue(5))
    wait_for(lambda: a.status("h4.example") == b.status("h4.example") == 451, "the list that is wrong")
    wait_for(lambda: b.urlward("fleet", "status").stdout.count(" 5") >= 2, "both say so")
    done = b.urlward("fleet", "rollback", "phish", "--why", "wrong")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node a: serial 3 in force" in done.stdout
    assert a.status("h4.example") != 451
    assert b.status("h4.example") != 451
    assert a.status("h2.example") == b.status("h2.example") == 451
    # What its server has goes on to be left alone, on both, until somebody says otherwise.
    assert b.urlward("feeds", "release", "phish", "--why", "mended").returncode == 0
    wait_for(lambda: a.status("h4.example") == b.status("h4.example") == 451, "the list in force again")


def test_what_cannot_be_is_said(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    done = a.urlward("fleet", "rollback", "nothing", "--why", "wrong")
    assert (done.returncode, done.stderr) == (2, "urlward: no feed is called 'nothing'\n")
    alone = Node(a.proxy, tmp_path / "alone.toml")
    alone.config.write_text("")
    done = alone.urlward("fleet", "rollback", "phish", "--why", "wrong")
    assert done.returncode == 2
    assert "urlward feeds rollback is for one node" in done.stderr
