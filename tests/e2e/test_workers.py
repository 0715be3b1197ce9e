"""``--workers``: one address, several processes, and none of them missed when it dies."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import free_port, in_turns, wait_for
from e2e.support import ENDS_WITHIN, LIST, Filter, Nginx, children_of, get, has_ended, running, urlward
from urlward.lists.run_folder import PREFIX

if TYPE_CHECKING:
    import subprocess


def workers_of(proxy: Filter) -> list[int]:
    """Process ids of the supervisor's children."""
    return children_of(proxy.process.pid)


BAD_LINE = "could not be read; first: "
"""In the line that whoever compiles the list writes."""


@contextmanager
def two_workers(folder: Path, origin: Nginx) -> Iterator[Filter]:
    arguments = ["--workers", "2", "--max-errors", "1"]
    modes = [f"reverse:http://127.0.0.1:{origin.http}"]
    with running(folder, *arguments, modes=modes, text=f"{LIST}?\n") as proxy:
        wait_for(lambda: listening(proxy) == 2, "both workers")
        yield proxy


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, nginx_server: Nginx) -> Iterator[Filter]:
    """One for all tests that leave two workers, which filter by its list, behind."""
    with two_workers(tmp_path_factory.mktemp("workers"), nginx_server) as proxy:
        yield proxy


def listening(proxy: Filter) -> int:
    """How many workers have begun to serve."""
    return proxy.log().count("listening on")


def status(proxy: Filter, url: str) -> int:
    return get(proxy.port, url).status


def test_both_serve_behind_one_address(proxy: Filter) -> None:
    assert len(workers_of(proxy)) == 2
    answers = {status(proxy, f"http://fine.test/{n}") for n in range(20)}
    assert answers == {200}
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_killed_worker_is_replaced_and_the_other_serves_on(proxy: Filter) -> None:
    killed, other = workers_of(proxy)
    begun, said = listening(proxy), proxy.log().count("a new one takes its place")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: proxy.log().count("a new one takes its place") > said, "the supervisor's word")
    assert status(proxy, "http://fine.test/") == 200
    wait_for(lambda: len(workers_of(proxy)) == 2 and killed not in workers_of(proxy), "a new worker")
    assert other in workers_of(proxy)
    wait_for(lambda: listening(proxy) == begun + 1, "the new worker to serve")
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_changed_list_reaches_all(proxy: Filter) -> None:
    before = in_force(proxy)
    with proxy.list_file.open("a") as file:
        file.write("added-later.test\n")
    wait_for(lambda: in_force(proxy) == before + 2, "both to reload")
    assert {status(proxy, "http://added-later.test/") for _ in range(20)} == {451}


def test_hangup_reaches_all(proxy: Filter) -> None:
    before = in_force(proxy)
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: in_force(proxy) == before + 2, "both to reload")


def test_a_hangup_while_workers_start_ends_none(tmp_path: Path, origin: Nginx) -> None:
    with running(tmp_path, "--workers", "2", modes=[f"reverse:http://127.0.0.1:{origin.http}"]) as proxy:

        def both_listen() -> bool:
            # Again and again, so that the second worker gets one at each point of its start.
            proxy.process.send_signal(signal.SIGHUP)
            return proxy.log().count("listening on") >= 2

        wait_for(both_listen, "both workers")
        assert "takes its place" not in proxy.log()
        assert len(workers_of(proxy)) == 2


def maps(pid: int) -> set[str]:
    """Inodes of the lists' files that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {f"{device} {inode}" for _, _, _, device, inode, *name in fields if PREFIX in "".join(name)}


def in_force(proxy: Filter) -> int:
    return proxy.log().count(" in force, ")


def test_all_map_the_same_file_and_none_writes_to_it(proxy: Filter) -> None:
    one, other = workers_of(proxy)
    wait_for(lambda: [len(maps(pid)) for pid in (one, other)] == [1, 1], "former lists to be let go")
    assert maps(one) == maps(other)
    for pid in (one, other):
        [mapping] = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if PREFIX in line]
        assert mapping.split()[1][:3] == "r--"
    # The supervisor keeps the folder for workers to come, and is no larger for it.
    assert not maps(proxy.process.pid)


def test_a_replacement_maps_what_is_there_and_compiles_nothing(proxy: Filter) -> None:
    killed, other = workers_of(proxy)
    before, begun, compiled = maps(other), listening(proxy), proxy.log().count(BAD_LINE)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: listening(proxy) == begun + 1, "the new worker to serve")
    [fresh] = set(workers_of(proxy)) - {other}
    assert maps(fresh) == before == maps(other)
    assert proxy.log().count(BAD_LINE) == compiled
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: listening(proxy) == begun + 2, "another new worker to serve")
    assert [maps(pid) for pid in workers_of(proxy)] == [before] * 2
    assert proxy.log().count(BAD_LINE) == compiled
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_reload_is_compiled_once_and_reaches_all(proxy: Filter) -> None:
    reloads, compiled = in_force(proxy), proxy.log().count(BAD_LINE)
    for round_ in (1, 2, 3):
        before = maps(workers_of(proxy)[0])
        with proxy.list_file.open("a") as file:
            file.write(f"added-{round_}.test\n")
        wait_for(lambda n=round_: in_force(proxy) == reloads + 2 * n, "both to reload")  # type: ignore[misc]
        # Who compiles says what it has left out when workers may have the list already.
        wait_for(lambda n=round_: proxy.log().count(BAD_LINE) >= compiled + n, "what was left out")  # type: ignore[misc]
        assert proxy.log().count(BAD_LINE) == compiled + round_
        assert {status(proxy, f"http://added-{round_}.test/") for _ in range(20)} == {451}
        wait_for(lambda: [len(maps(pid)) for pid in workers_of(proxy)] == [1, 1], "the old list to be let go")
        one, other = map(maps, workers_of(proxy))
        assert one == other != before
    serials = re.findall(r"serial (\d+)", proxy.log())
    assert len(set(serials[-2:])) == 1


def test_a_list_that_all_refuse_is_compiled_once_and_a_replacement_has_the_last_good_one(
    proxy: Filter,
) -> None:
    good, begun, text = maps(workers_of(proxy)[0]), listening(proxy), proxy.list_file.read_text()
    proxy.list_file.write_text("blocked.example\n" + "?\n" * 10)
    wait_for(lambda: proxy.log().count("stays in force") == 2, "both to refuse it")
    killed, other = workers_of(proxy)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: listening(proxy) == begun + 1, "the new worker to serve")
    wait_for(lambda: proxy.log().count("stays in force") == 3, "its word too")
    assert [maps(pid) for pid in workers_of(proxy)] == [good] * 2
    assert {status(proxy, "http://paged.example/listed.html") for _ in range(20)} == {451}
    proxy.list_file.unlink()
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: listening(proxy) == begun + 2, "another new worker to serve")
    assert [maps(pid) for pid in workers_of(proxy)] == [good] * 2
    assert {status(proxy, "http://paged.example/listed.html") for _ in range(20)} == {451}
    before = in_force(proxy)
    proxy.list_file.write_text(f"{text}there-again.test\n")
    wait_for(lambda: in_force(proxy) == before + 2, "both to have a list that can be read")


def test_a_worker_killed_while_it_compiles_leaves_that_to_the_other(proxy: Filter) -> None:
    text = proxy.list_file.read_text()
    proxy.list_file.write_text(LIST + "".join(f"host-{n}.test\n" for n in range(60_000)))
    found: list[tuple[int, int]] = []

    def one_compiles() -> bool:
        # Kept: it has ended perhaps by the time that anybody looks again.
        found[:] = [(pid, child) for pid in workers_of(proxy) for child in children_of(pid)]
        return bool(found)

    wait_for(one_compiles, "one to compile")
    [(killed, compiling)] = found
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: has_ended(compiling), "the compiler's end")
    # Whether the other or the replacement is next, both come to the same.
    wait_for(lambda: proxy.log().count("60007 entries in force") == 2, "both to have it", 60)
    wait_for(lambda: [len(maps(pid)) for pid in workers_of(proxy)] == [1, 1], "the old list to be let go")
    one, other = map(maps, workers_of(proxy))
    assert one == other
    assert {status(proxy, "http://host-59999.test/") for _ in range(20)} == {451}
    before = in_force(proxy)
    proxy.list_file.write_text(text)
    wait_for(lambda: in_force(proxy) == before + 2, "both to have the shorter one again")


@pytest.mark.parametrize(("number", "workers"), in_turns((signal.SIGTERM, 1), (signal.SIGINT, 2)))
def test_nothing_is_left(tmp_path: Path, origin: Nginx, number: signal.Signals, workers: int) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    modes = [f"reverse:http://127.0.0.1:{origin.http}"]
    arguments = ["--workers", str(workers)]
    with running(tmp_path, *arguments, modes=modes, TMPDIR=str(temporary)) as proxy:
        wait_for(lambda: listening(proxy) == workers, "all workers")
        pids = [proxy.process.pid, *workers_of(proxy)]
        assert len(list(temporary.glob(f"{PREFIX}*"))) == 1, "one for all"
        proxy.process.send_signal(number)
        assert proxy.process.wait(ENDS_WITHIN) == 0
        assert all(map(has_ended, pids))
    assert not list(temporary.iterdir())


def test_a_supervisor_that_is_killed_takes_all_with_it_and_a_restart_binds(
    tmp_path: Path, origin: Nginx
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{tmp_path}/state"\n[records]\nprivacy = "counts"\n')
    port = free_port()
    arguments = ["--workers", "2", "--config", str(config)]
    modes = [f"reverse:http://127.0.0.1:{origin.http}@127.0.0.1:{port}"]
    with running(tmp_path, *arguments, modes=modes, TMPDIR=str(temporary)) as proxy:
        wait_for(lambda: proxy.log().count("listening on") == 2, "both workers")
        wait_for(lambda: len(children_of(proxy.process.pid)) == 3, "the process that records")
        children = children_of(proxy.process.pid)
        os.kill(children[0], signal.SIGSTOP)  # one that hangs ends as well
        [left] = temporary.glob(f"{PREFIX}*")
        proxy.process.kill()
        proxy.process.wait()
        wait_for(lambda: all(map(has_ended, children)), "their end")
    with running(tmp_path, *arguments, modes=modes, TMPDIR=str(temporary)) as proxy:
        assert status(proxy, "http://blocked.example/") == 451
        assert not left.exists(), "the next start has cleared it"
        assert len(list(temporary.glob(f"{PREFIX}*"))) == 1
        proxy.stop()
    assert not list(temporary.glob(f"{PREFIX}*"))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return urlward("run", "--workers", "2", *arguments)


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
