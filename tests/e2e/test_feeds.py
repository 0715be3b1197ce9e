"""Feeds arrive by themselves, come into force under way, and stay when their server does not."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from e2e.support import NGINX_HEAD, Filter, Nginx, get, running, urlward
from nginx_log import nginx_in
from urlward.engine.artifact import parse
from urlward.engine.delta import make_delta
from urlward.engine.digest import format_key
from urlward.engine.signing import SigningKey
from urlward.lists.build import Issue, compile_sources
from urlward.policy.allows import add_allow
from urlward.state.folder import local_key
from urlward.state.keys import read_key

LISTED, OTHER, MORE = "listed.example", "other.example", "more.example"
SIGNING = SigningKey(bytes(range(32)))

_NGINX = (
    NGINX_HEAD
    + """\
    server {{ listen 127.0.0.1:{port}; root {folder}/served; }}
}}
"""
)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder that a list body's server serves."""
    folder = tmp_path / "body" / "served"
    folder.mkdir(parents=True)
    return folder


@contextmanager
def server(served: Path, port: int) -> Iterator[None]:
    folder = served.parent
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    with nginx_in(folder, (port,)):
        yield


def publish(served: Path, name: str, data: str | bytes) -> None:
    beside = served / ".new"
    beside.write_bytes(data.encode() if isinstance(data, str) else data)
    beside.replace(served / name)


def publish_now(proxy: Filter, served: Path, name: str, data: str | bytes) -> None:
    """The same, and have it fetched at once."""
    publish(served, name, data)
    proxy.process.send_signal(signal.SIGHUP)


def configure(folder: Path, port: int, name: str, *more: str) -> Path:
    path = folder / "urlward.toml"
    lines = [
        'state = "state"',
        "[[feed]]",
        'name = "body"',
        f'url = "http://127.0.0.1:{port}/{name}"',
        'interval = "1h"',
        "max_shrink = 1",
        "max_grow = 100",
        *more,
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def filtering(folder: Path, config: Path) -> Iterator[Filter]:
    with running(folder / "filter", "--config", str(config), text="unrelated.example\n") as proxy:
        proxy.secrets = (LISTED, OTHER, MORE)
        yield proxy


def status(proxy: Filter, origin: Nginx, host: str) -> int:
    try:
        return get(proxy.port, f"http://{host}:{origin.http}/").status
    except ConnectionError:
        return 0  # what is under way is cut when it comes to be listed


def test_a_text_feed(tmp_path: Path, served: Path, origin: Nginx) -> None:
    port = free_port()
    config = configure(tmp_path, port, "list.txt")
    publish(served, "list.txt", f"{LISTED} id=F-1\n")
    with server(served, port), filtering(tmp_path, config) as proxy:
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the feed to arrive")
        assert status(proxy, origin, OTHER) == 200
        assert {block["list"] for block in proxy.blocks()} == {"body"}
        publish_now(proxy, served, "list.txt", f"{OTHER}\n")
        wait_for(lambda: status(proxy, origin, OTHER) == 451, "the change")
        assert status(proxy, origin, LISTED) == 200
        publish_now(proxy, served, "list.txt", "<html>Please log in</html>")
        wait_for(lambda: "web page" in proxy.log(), "the refusal")
        assert status(proxy, origin, OTHER) == 451
        told = urlward("feeds", "status", "--config", str(config))
        assert told.returncode == 1
        assert "web page" in told.stdout
        assert OTHER not in told.stdout + told.stderr
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    for name in (LISTED, OTHER):
        assert name.encode() not in kept
        assert name.partition(".")[0].encode() not in kept
    # With no network, what there is serves at once.
    with filtering(tmp_path, config) as proxy:
        assert status(proxy, origin, OTHER) == 451
        assert status(proxy, origin, LISTED) == 200
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "no connection" in proxy.log() or "refused" in proxy.log(), "a word of it")


def compiled(folder: Path, serial: int, text: str) -> bytes:
    source = folder / f"{serial}.txt"
    source.write_text(text)
    return compile_sources(
        [source], read_key(folder / "body.key"), name="x", issue=Issue(serial=serial, key=SIGNING)
    )[0]


def test_a_signed_artifact_and_its_delta(tmp_path: Path, served: Path, origin: Nginx) -> None:
    (tmp_path / "body.key").write_bytes(format_key(bytes(32)))
    key = read_key(tmp_path / "body.key")
    port = free_port()
    config = configure(tmp_path, port, "list.ward", 'key = "body.key"', f'trust = ["{SIGNING.public}"]')
    many = "".join(f"n{n}.example\n" for n in range(500))
    first = compiled(tmp_path, 1, f"{many}{LISTED}\n")
    second = compiled(tmp_path, 2, f"{many}{OTHER}\n")
    third = compiled(tmp_path, 3, f"{many}{OTHER}\n{MORE}\n")
    publish(served, "list.ward", first)
    with server(served, port), filtering(tmp_path, config) as proxy:
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the artifact")
        # The delta alone, so that nothing else can bring it.
        publish_now(proxy, served, "list.ward.1.delta", make_delta(parse(first), parse(second), key))
        (served / "list.ward").unlink()
        wait_for(lambda: status(proxy, origin, OTHER) == 451, "the delta")
        assert status(proxy, origin, LISTED) == 200
        wait_for(lambda: "serial 2" in proxy.log(), "the word on it")
        # A damaged delta is passed over for the whole.
        damaged = make_delta(parse(second), parse(third), key)[:-1] + b"x"
        publish_now(proxy, served, "list.ward.2.delta", damaged)
        publish_now(proxy, served, "list.ward", third)
        wait_for(lambda: status(proxy, origin, MORE) == 451, "the whole")
        # An older issue changes nothing, nor does one that is not signed.
        publish_now(proxy, served, "list.ward", first)
        wait_for(lambda: "older" in proxy.log(), "the refusal")
        publish_now(proxy, served, "list.ward", compile_sources([tmp_path / "1.txt"], key, name="x")[0])
        wait_for(lambda: "not signed" in proxy.log(), "the refusal")
        assert [status(proxy, origin, host) for host in (LISTED, OTHER, MORE)] == [200, 451, 451]
        state = tmp_path / "state" / "feeds" / "body.ward"
        wait_for(lambda: state.read_bytes() == third, "the whole to be kept")
    with filtering(tmp_path, config) as proxy:
        assert [status(proxy, origin, host) for host in (LISTED, OTHER, MORE)] == [200, 451, 451]


def test_what_is_allowed_for_a_while(tmp_path: Path, served: Path, origin: Nginx) -> None:
    port = free_port()
    config = configure(tmp_path, port, "list.txt")
    publish(served, "list.txt", f"{LISTED}\nhttp://{OTHER}/page\n")
    with server(served, port), filtering(tmp_path, config) as proxy:
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the feed to arrive")
        told = urlward(
            "allow", f"http://{LISTED}/", "--for", "1h", "--why", "ticket 7", "--config", str(config)
        )
        assert told.returncode == 0, told.stderr
        wait_for(lambda: status(proxy, origin, LISTED) == 200, "the exception")
        assert get(proxy.port, f"http://{LISTED}:{origin.http}/other").status == 451
        name = urlward("allow", "--list", "--config", str(config)).stdout
        id_ = next(word for word in name.split() if word.startswith("a-"))
        told = urlward("allow", "--end", id_, "--why", "done", "--config", str(config))
        assert told.returncode == 0, told.stderr
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "its end")
        state, until = tmp_path / "state", 0.0

        def excused() -> bool:
            nonlocal until
            if time.time() >= until:  # the first, or again where it was over before anybody looked
                key = local_key(state)
                until = add_allow(
                    state, key, LISTED, 2, "short", "me", whole_host=False, now=time.time()
                ).until
            return status(proxy, origin, LISTED) == 200

        wait_for(excused, "the exception")
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the end that comes by itself")
    kept = (tmp_path / "state" / "audit.jsonl").read_text() + (tmp_path / "state" / "allows.json").read_text()
    assert "listed" not in kept


def test_protected_hosts_stay(tmp_path: Path, served: Path, origin: Nginx) -> None:
    port = free_port()
    (tmp_path / "ours.txt").write_text(f"{OTHER}\n")
    config = configure(tmp_path, port, "list.txt")
    config.write_text(f'protected = ["ours.txt"]\n{config.read_text()}')
    publish(served, "list.txt", f"{LISTED}\n{OTHER}\nhttp://{OTHER}/page\n||example^\n")
    with server(served, port), filtering(tmp_path, config) as proxy:
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the feed to arrive")
        assert status(proxy, origin, OTHER) == 200
        assert status(proxy, origin, MORE) == 200, "all of a top-level domain"
        assert get(proxy.port, f"http://{OTHER}:{origin.http}/page").status == 451
