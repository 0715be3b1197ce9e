"""``--workers``: one address, several processes, and none of them missed when it dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from e2e.support import Filter, Nginx, get, running


def workers_of(proxy: Filter) -> list[int]:
    """Process ids of the supervisor's children."""
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.fixture
def proxy(tmp_path: Path, origin: Nginx) -> Iterator[Filter]:
    with running(tmp_path, "--workers", "2", modes=[f"reverse:http://127.0.0.1:{origin.http}"]) as proxy:
        wait_for(lambda: proxy.log().count("listening on") == 2, "both workers")
        yield proxy


def status(proxy: Filter, url: str) -> int:
    return get(proxy.port, url).status


def test_both_serve_behind_one_address(proxy: Filter) -> None:
    assert len(workers_of(proxy)) == 2
    answers = {status(proxy, f"http://fine.test/{n}") for n in range(20)}
    assert answers == {200}
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_killed_worker_is_replaced_and_the_other_serves_on(proxy: Filter) -> None:
    killed, other = workers_of(proxy)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "a new one takes its place" in proxy.log(), "the supervisor's word")
    assert status(proxy, "http://fine.test/") == 200
    wait_for(lambda: len(workers_of(proxy)) == 2 and killed not in workers_of(proxy), "a new worker")
    assert other in workers_of(proxy)
    wait_for(lambda: proxy.log().count("listening on") == 3, "the new worker to serve")
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_changed_list_reaches_all(proxy: Filter) -> None:
    with proxy.list_file.open("a") as file:
        file.write("added-later.test\n")
    wait_for(lambda: proxy.log().count("entries in force") == 4, "both to reload")
    assert {status(proxy, "http://added-later.test/") for _ in range(20)} == {451}


def test_hangup_reaches_all(proxy: Filter) -> None:
    before = proxy.log().count("entries in force")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: proxy.log().count("entries in force") == before + 2, "both to reload")


def test_a_hangup_while_workers_start_ends_none(tmp_path: Path, origin: Nginx) -> None:
    with running(tmp_path, "--workers", "2", modes=[f"reverse:http://127.0.0.1:{origin.http}"]) as proxy:

        def both_listen() -> bool:
            # Again and again, so that the second worker gets one at each point of its start.
            proxy.process.send_signal(signal.SIGHUP)
            return proxy.log().count("listening on") >= 2

        wait_for(both_listen, "both workers")
        assert "takes its place" not in proxy.log()
        assert len(workers_of(proxy)) == 2


def test_the_end_of_one_is_the_end_of_all(proxy: Filter) -> None:
    pids = workers_of(proxy)
    assert proxy.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "urlward.cli", "run", "--workers", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    done = run("--list", str(tmp_path / "missing.txt"), "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert done.stderr.count("No such file") == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_address_is_refused_although_it_could_be_shared(proxy: Filter) -> None:
    done = run("--list", str(proxy.list_file), "--listen", f"127.0.0.1:{proxy.port}")
    assert done.returncode == 2
    assert f"127.0.0.1:{proxy.port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", ["0", "-3"])
def test_no_workers_are_no_filter(number: str) -> None:
    done = run("--workers", number)
    assert done.returncode == 2
    assert "workers" in done.stderr
