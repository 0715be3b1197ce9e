"""``--workers``: one address, several processes, and none of them missed when it dies."""

import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from e2e.support import LIST, Filter, Nginx, get, running


def workers_of(proxy: Filter) -> list[int]:
    """Process ids of the supervisor's children."""
    return children_of(proxy.process.pid)


BAD_LINE = "could not be read; first: "
"""In the line that whoever compiles the list writes."""


@pytest.fixture
def proxy(tmp_path: Path, origin: Nginx) -> Iterator[Filter]:
    arguments = ["--workers", "2", "--max-errors", "1"]
    modes = [f"reverse:http://127.0.0.1:{origin.http}"]
    with running(tmp_path, *arguments, modes=modes, text=f"{LIST}?\n") as proxy:
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


def maps(pid: int) -> set[str]:
    """Inodes of the lists' memory that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return {
        f"{device} {inode}" for _, _, _, device, inode, *name in fields if "memfd:urlward" in "".join(name)
    }


def in_force(proxy: Filter) -> int:
    return proxy.log().count("entries in force")


def test_all_map_the_same_memory_and_nobody_can_write_to_it(proxy: Filter) -> None:
    one, other = workers_of(proxy)
    assert len(maps(one)) == 1
    assert maps(one) == maps(other)
    for pid in (one, other):
        [mapping] = [
            line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:urlward" in line
        ]
        assert mapping.split()[1][:3] == "r--"
    # The supervisor holds it for workers to come, and is no larger for it.
    assert not maps(proxy.process.pid)


def test_a_replacement_maps_what_is_there_and_compiles_nothing(proxy: Filter) -> None:
    killed, other = workers_of(proxy)
    before = maps(other)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: proxy.log().count("listening on") == 3, "the new worker to serve")
    [fresh] = set(workers_of(proxy)) - {other}
    assert maps(fresh) == before == maps(other)
    assert proxy.log().count(BAD_LINE) == 1
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: proxy.log().count("listening on") == 4, "another new worker to serve")
    assert [maps(pid) for pid in workers_of(proxy)] == [before] * 2
    assert proxy.log().count(BAD_LINE) == 1
    assert {status(proxy, "http://blocked.example/") for _ in range(20)} == {451}


def test_a_reload_is_compiled_once_and_reaches_all(proxy: Filter) -> None:
    for round_ in (1, 2, 3):
        before = maps(workers_of(proxy)[0])
        with proxy.list_file.open("a") as file:
            file.write(f"added-{round_}.test\n")
        wait_for(lambda n=round_: in_force(proxy) == 2 + 2 * n, "both to reload")  # type: ignore[misc]
        assert proxy.log().count(BAD_LINE) == 1 + round_
        assert {status(proxy, f"http://added-{round_}.test/") for _ in range(20)} == {451}
        wait_for(lambda: len(maps(workers_of(proxy)[0])) == 1, "the old list to be let go")
        one, other = map(maps, workers_of(proxy))
        assert one == other != before
    serials = re.findall(r"serial (\d+)", proxy.log())
    assert len(set(serials[-2:])) == 1


def test_a_list_that_all_refuse_is_compiled_once_and_a_replacement_has_the_last_good_one(
    proxy: Filter,
) -> None:
    good = maps(workers_of(proxy)[0])
    proxy.list_file.write_text("blocked.example\n" + "?\n" * 10)
    wait_for(lambda: proxy.log().count("stays in force") == 2, "both to refuse it")
    killed, other = workers_of(proxy)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: proxy.log().count("listening on") == 3, "the new worker to serve")
    wait_for(lambda: proxy.log().count("stays in force") == 3, "its word too")
    assert [maps(pid) for pid in workers_of(proxy)] == [good] * 2
    assert {status(proxy, "http://paged.example/listed.html") for _ in range(20)} == {451}
    proxy.list_file.unlink()
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: proxy.log().count("listening on") == 4, "another new worker to serve")
    assert [maps(pid) for pid in workers_of(proxy)] == [good] * 2
    assert {status(proxy, "http://paged.example/listed.html") for _ in range(20)} == {451}


def test_a_worker_killed_while_it_compiles_leaves_that_to_the_other(tmp_path: Path, origin: Nginx) -> None:
    text = LIST + "".join(f"host-{n}.test\n" for n in range(60_000))
    with running(
        tmp_path, "--workers", "2", modes=[f"reverse:http://127.0.0.1:{origin.http}"], text=LIST
    ) as proxy:
        wait_for(lambda: proxy.log().count("listening on") == 2, "both workers")
        proxy.list_file.write_text(text)
        wait_for(lambda: any(map(children_of, workers_of(proxy))), "one to compile")
        [killed] = [pid for pid in workers_of(proxy) if children_of(pid)]
        [compiling] = children_of(killed)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: has_ended(compiling), "the compiler's end", 2)
        # Whether the other or the replacement is next, both come to the same.
        wait_for(lambda: proxy.log().count("60007 entries in force") == 2, "both to have it", 60)
        one, other = map(maps, workers_of(proxy))
        assert one == other
        assert {status(proxy, "http://host-59999.test/") for _ in range(20)} == {451}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left(proxy: Filter, number: signal.Signals) -> None:
    pids = [proxy.process.pid, *workers_of(proxy)]
    users = memory_users()
    memories = {memory for memory, holders in users.items() if holders & set(pids)}
    assert memories
    assert set().union(*(users[memory] for memory in memories)) == set(pids)
    assert not any(map(named_memory, pids))
    proxy.process.send_signal(number)
    assert proxy.process.wait(15) == 0
    assert all(map(has_ended, pids))
    # Other filters may run beside this one: it is this one's memory that nobody may hold now.
    assert not memories & memory_users().keys()


def test_workers_serve_on_without_their_supervisor_and_nothing_is_left_after_them(proxy: Filter) -> None:
    pids = workers_of(proxy)
    try:
        proxy.process.kill()
        proxy.process.wait()
        with proxy.list_file.open("a") as file:
            file.write("added-later.test\n")
        wait_for(lambda: in_force(proxy) == 4, "both to reload")
        assert proxy.log().count("lists are not shared") == 2
        assert {status(proxy, "http://added-later.test/") for _ in range(20)} == {451}
        one, other = map(maps, pids)
        assert one != other
        memories = {memory for memory, holders in memory_users().items() if holders & set(pids)}
        assert memories
        assert not any(map(named_memory, pids))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(map(has_ended, pids)), "their end")
    assert not memories & memory_users().keys()


def has_ended(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children_of(pid: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def opened(pid: str = "[0-9]*") -> Iterator[tuple[int, int, str]]:
    """What a process, or each of this machine, has open: its id, the file's inode and name."""
    for fd in Path("/proc").glob(f"{pid}/fd/*"):
        with suppress(OSError):  # closed meanwhile
            yield int(fd.parts[2]), fd.stat().st_ino, str(fd.readlink())


def memory_users() -> dict[int, set[int]]:
    """Inodes of lists' memory, each with the processes of this machine that have it open."""
    found = defaultdict[int, set[int]](set)
    for pid, inode, name in opened():
        if "memfd:urlward" in name:
            found[inode].add(pid)
    return dict(found)


def named_memory(pid: int) -> bool:
    """Whether a process uses shared memory that has a name, which would stay when all have ended."""
    names = [name for _, _, name in opened(str(pid))]
    return any("/dev/shm/" in name for name in (*names, Path(f"/proc/{pid}/maps").read_text()))


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
