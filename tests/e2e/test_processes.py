"""Processes die, and are replaced on purpose: no connection is refused meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from e2e.support import (
    LIST,
    Filter,
    Nginx,
    RawOrigin,
    children_of,
    connect,
    get,
    has_ended,
    read_to_end,
    running,
    status_of,
)
from e2e.test_records import events
from urlward.proxy.addon import SHORT_AGAIN

pytestmark = pytest.mark.long


class Load:
    """Clients that ask in a tight loop, each time on a connection of its own; counts what becomes of it."""

    def __init__(self, port: int, clients: int = 3) -> None:
        self.counts: Counter[str] = Counter()
        self._port = port
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                with connect(self._port, timeout=60) as s:
                    s.sendall(b"GET http://blocked.example/ HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
                    got = s.recv(12).decode()
            except OSError as e:
                got = type(e).__name__
            self.counts[got] += 1

    def served(self) -> int:
        return self.counts["HTTP/1.1 451"]

    def wait_for_more(self, requests: int = 30) -> None:
        wanted = self.served() + requests
        wait_for(lambda: self.served() >= wanted, "requests to be answered", 60)


@contextmanager
def filter_of(
    folder: Path, origin: Nginx, workers: int = 2, config: str = "", **more: str
) -> Iterator[Filter]:
    path = folder / "urlward.toml"
    path.write_text(f'state = "{folder}/state"\nworkers = {workers}\n{config}')
    modes = [f"reverse:http://127.0.0.1:{origin.http}"]
    with running(folder, "--config", str(path), modes=modes, **more) as proxy:
        wait_for(lambda: listening(proxy) == workers, "all workers")
        yield proxy


def listening(proxy: Filter) -> int:
    return proxy.log().count("listening on")


def workers_of(proxy: Filter) -> list[int]:
    return [pid for pid in children_of(proxy.process.pid) if not has_ended(pid)]


def test_workers_killed_in_turn_under_load_refuse_nobody(tmp_path: Path, origin: Nginx) -> None:
    with filter_of(tmp_path, origin) as proxy, Load(proxy.port) as load:
        for kills in range(1, 5):
            load.wait_for_more()
            os.kill(workers_of(proxy)[0], signal.SIGKILL)
            wait_for(lambda n=kills: listening(proxy) == 2 + n, "the new worker", 60)  # type: ignore[misc]
        load.wait_for_more()
    assert load.counts["ConnectionRefusedError"] == 0
    assert load.counts["TimeoutError"] == 0
    # What was accepted by one that was killed is gone with it, and no more.
    assert load.served() > 5 * (sum(load.counts.values()) - load.served())


def test_all_workers_killed_at_once_refuse_nobody(tmp_path: Path, origin: Nginx) -> None:
    with filter_of(tmp_path, origin) as proxy, Load(proxy.port) as load:
        load.wait_for_more()
        for pid in workers_of(proxy):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: listening(proxy) == 4, "the new workers", 60)
        load.wait_for_more()
    assert load.counts["ConnectionRefusedError"] == 0
    assert load.counts["TimeoutError"] == 0


def test_a_worker_serves_the_connections_of_one_that_is_not_there(tmp_path: Path, origin: Nginx) -> None:
    """Not only later, when the replacement is: that may never start."""
    template = tmp_path / "pages" / "block.html.j2"
    template.parent.mkdir()
    template.write_text("{{ reference }}")
    page = f'[page]\ntemplate_dir = "{template.parent}"\n'
    with filter_of(tmp_path, origin, config=page, PYTHONPATH="") as proxy:
        template.write_text("{% nonsense %}")  # from here on no replacement can start
        os.kill(workers_of(proxy)[0], signal.SIGKILL)
        wait_for(lambda: proxy.log().count("takes its place") >= 2, "a replacement that fails", 60)
        # The kernel gives either worker's socket about half of so many.
        assert Counter(get(proxy.port, "http://blocked.example/").status for _ in range(40)) == {451: 40}


def test_what_is_replaced_has_the_configuration_in_force(tmp_path: Path, origin: Nginx) -> None:
    """Whatever its file holds meanwhile, such as half of what is being written; after a reload as well."""
    records = '[records]\nprivacy = "counts"\n'
    with filter_of(tmp_path, origin, config=records) as proxy:
        wait_for(lambda: len(workers_of(proxy)) == 3, "the process that records")
        config = tmp_path / "urlward.toml"
        good = config.read_text()
        for reloaded in (False, True):
            if reloaded:
                config.write_text("status = 403\n" + good)
                proxy.process.send_signal(RELOAD)
                wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
                wait_for(lambda: len(workers_of(proxy)) == 3, "the process that records")
            config.write_text("status = 4")
            served = listening(proxy)
            before = workers_of(proxy)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda n=served: listening(proxy) == n + 2, "the new workers", 60)  # type: ignore[misc]
            assert get(proxy.port, "http://blocked.example/").status == (403 if reloaded else 451)
            wait_for(lambda: len(workers_of(proxy)) == 3, "the process that records")
            assert not set(before) & set(workers_of(proxy))
    assert "ended with 2" not in proxy.log()


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, origin: Nginx) -> None:
    with filter_of(tmp_path, origin, config="worker_timeout = 3\n") as proxy:
        hung, _ = workers_of(proxy)
        os.kill(hung, signal.SIGSTOP)
        wait_for(lambda: f"(process {hung}) has not answered for" in proxy.log(), "the word on it")
        wait_for(lambda: has_ended(hung) and len(workers_of(proxy)) == 2, "another")
        assert Counter(get(proxy.port, "http://blocked.example/").status for _ in range(40)) == {451: 40}


RELOAD = signal.SIGUSR2


def test_a_reload_replaces_workers_one_by_one_under_load(tmp_path: Path, origin: Nginx) -> None:
    records = '[records]\nprivacy = "counts"\n'
    with filter_of(tmp_path, origin, config=records) as proxy, Load(proxy.port) as load:
        wait_for(lambda: len(workers_of(proxy)) == 3, "the process that records")
        before = set(workers_of(proxy))
        load.wait_for_more()
        config = tmp_path / "urlward.toml"
        config.write_text("status = 403\n" + config.read_text())
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
        wanted = load.counts["HTTP/1.1 403"] + 30
        wait_for(lambda: load.counts["HTTP/1.1 403"] > wanted, "the new configuration", 60)
        wait_for(lambda: len(workers_of(proxy)) == 3, "the process that records")
        assert not before & set(workers_of(proxy))
    assert set(load.counts) == {"HTTP/1.1 451", "HTTP/1.1 403"}, "nobody noticed"
    assert "takes its place" not in proxy.log()


def test_no_event_is_lost_by_a_reload(tmp_path: Path, origin: Nginx) -> None:
    records = "[records]\n[records.days]\nblocks = 1\noperations = 1\n"
    with filter_of(tmp_path, origin, config=records) as proxy:
        with Load(proxy.port, 1) as load:
            load.wait_for_more()
            proxy.process.send_signal(RELOAD)
            wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
            load.wait_for_more()

        def recorded() -> int:
            return len(events(tmp_path, "--kind", "block"))

        wait_for(lambda: recorded() == load.served(), "all events, and no more")


def test_a_configuration_that_does_not_work_leaves_those_that_run(tmp_path: Path, origin: Nginx) -> None:
    with filter_of(tmp_path, origin) as proxy:
        before = workers_of(proxy)
        config = tmp_path / "urlward.toml"
        good = config.read_text()
        config.write_text("nonsense = 1\n")
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "nonsense" in proxy.log(), "the word on it")
        assert "what runs stays" in proxy.log()
        # That it does not work may be found out by the new worker alone.
        config.write_text(good + '[mitmproxy]\nno_such_option = "1"\n')
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "those that run stay" in proxy.log(), "the word on it")
        assert workers_of(proxy) == before
        assert get(proxy.port, "http://blocked.example/").status == 451


def test_a_reload_may_change_the_number_of_workers_and_where_they_listen(
    tmp_path: Path, origin: Nginx
) -> None:
    first, second = free_port(), free_port()
    config = tmp_path / "urlward.toml"
    text = f'state = "{tmp_path}/state"\nworkers = %d\nmode = ["reverse:http://127.0.0.1:{origin.http}@127.0.0.1:%d"]\n'
    config.write_text(text % (2, first))
    with running(tmp_path, "--config", str(config), modes=()) as proxy:
        wait_for(lambda: listening(proxy) == 2, "both workers")
        config.write_text(text % (3, second))
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
        assert len(workers_of(proxy)) == 3
        assert get(second, "http://blocked.example/").status == 451
        with pytest.raises(ConnectionRefusedError):
            connect(first)


def test_a_reload_says_that_an_included_file_is_gone(tmp_path: Path) -> None:
    """What it had was in force without a word, and is so no more."""
    config, own = tmp_path / "urlward.toml", tmp_path / "own.toml"
    config.write_text(f'state = "{tmp_path}/state"\ninclude = ["own.toml"]\n')
    own.write_text("[[rule]]\naction = 'monitor'\n")
    gone = "the last file of `include` is gone"
    with running(tmp_path, "--config", str(config)) as proxy:
        assert get(proxy.port, "http://blocked.example/").status != 451
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
        assert gone not in proxy.log()
        own.unlink()
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: proxy.log().count("reload: done") == 2, "the next", 120)
        assert proxy.log().count(gone) == 1
        assert get(proxy.port, "http://blocked.example/").status == 451
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: proxy.log().count("reload: done") == 3, "one more", 120)
        assert proxy.log().count(gone) == 1, "it is known"


def test_what_is_under_way_outlives_a_reload(tmp_path: Path) -> None:
    def slow(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        asked.wait(60)
        connection.sendall(b"origin")

    asked = threading.Event()
    config = tmp_path / "urlward.toml"
    config.write_text("workers = 2\n")
    with (
        RawOrigin(slow) as raw,
        running(tmp_path, "--config", str(config), modes=[f"reverse:http://127.0.0.1:{raw.port}"]) as proxy,
    ):
        wait_for(lambda: listening(proxy) == 2, "both workers")
        with connect(proxy.port) as busy:
            busy.sendall(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
            assert busy.recv(12) == b"HTTP/1.1 200"
            proxy.process.send_signal(RELOAD)
            wait_for(lambda: "ending with the 1 connections" in proxy.log(), "its worker's turn", 120)
            asked.set()
            assert read_to_end(busy).endswith(b"\r\n\r\norigin")
        wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)


def test_the_only_worker_is_replaced_when_it_dies_and_in_a_reload_and_nobody_is_refused(
    tmp_path: Path, origin: Nginx
) -> None:
    with filter_of(tmp_path, origin, 1) as proxy, Load(proxy.port) as load:
        load.wait_for_more()
        os.kill(workers_of(proxy)[0], signal.SIGKILL)
        wait_for(lambda: listening(proxy) == 2, "the new worker", 60)
        load.wait_for_more()
        before = workers_of(proxy)
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "reload: done" in proxy.log(), "the reload", 120)
        load.wait_for_more()
        assert not set(before) & set(workers_of(proxy))
    assert load.counts["ConnectionRefusedError"] == 0
    assert load.counts["TimeoutError"] == 0


ACTIVATED = """
import os, socket, sys
sockets = []
for port in map(int, sys.argv[1].split(",")):
    one = socket.create_server(("127.0.0.1", port))
    sockets.append(one)
for number, one in enumerate(sockets):
    os.dup2(one.fileno(), 3 + number)
    os.set_inheritable(3 + number, True)
os.environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def activated(*ports: int) -> tuple[str, ...]:
    """Starts a command with listening sockets, as systemd does."""
    return (sys.executable, "-c", ACTIVATED, ",".join(map(str, ports)))


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_of_the_service_manager(tmp_path: Path, origin: Nginx, workers: int) -> None:
    port = free_port()
    with running(
        tmp_path, "--workers", str(workers),
        modes=[f"reverse:http://127.0.0.1:{origin.http}@127.0.0.1:{port}"],
        command=("-m", "urlward"), prefix=activated(port),
    ) as proxy:  # fmt: skip
        wait_for(lambda: listening(proxy) == workers, "all workers")
        assert {get(port, "http://blocked.example/").status for _ in range(20)} == {451}
        for pid in workers_of(proxy):
            (inode,) = inodes_at(port)
            # Of each descriptor: others are closed meanwhile.
            held = [os.path.realpath(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
            assert any(one.endswith(f"socket:[{inode}]") for one in held), (
                "all accept from the one that was passed"
            )


def inodes_at(port: int) -> set[int]:
    """Of the sockets that listen on 127.0.0.1 (proc_net_tcp: the tenth field)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[9]) for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"}


def test_a_socket_that_no_mode_listens_on_is_refused(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    (tmp_path / "list.txt").write_text(LIST)
    command = [
        "-m",
        "urlward",
        "run",
        "--list",
        str(tmp_path / "list.txt"),
        "--listen",
        f"127.0.0.1:{ports[0]}",
    ]
    done = subprocess.run(
        [*activated(*ports), *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"urlward: socket activation: 127.0.0.1:{ports[1]} was passed, and no mode listens there: "
        "`listen` and the socket unit have to name the same address (urlward help install)\n"
    )


@pytest.mark.parametrize("mode", ["reverse", "regular"])
def test_more_connections_than_file_descriptors(tmp_path: Path, origin: Nginx, mode: str) -> None:
    """Those at rest make room; nobody hangs, and the log says it once."""
    modes = [f"reverse:http://127.0.0.1:{origin.http}" if mode == "reverse" else "regular"]
    with running(tmp_path, modes=modes, prefix=("prlimit", "--nofile=256:256")) as proxy:
        kept, begun = [], time.monotonic()
        try:
            for number in range(400):
                s = connect(proxy.port, timeout=60)
                kept.append(s)
                host = f"plain.example:{origin.http}" if number % 2 else "blocked.example"
                s.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert s.recv(12) == (b"HTTP/1.1 200" if number % 2 else b"HTTP/1.1 451"), number
            # Again after half a minute, which all of this takes on a machine that has much else to do.
            assert (
                1 <= proxy.log().count("raise LimitNOFILE") <= 1 + (time.monotonic() - begun) // SHORT_AGAIN
            )
            # A list that changes still finds descriptors for that.
            with proxy.list_file.open("a") as file:
                file.write("added-later.test\n")
            wait_for(lambda: status_of(proxy.port, "http://added-later.test/") == 451, "the reload")
        finally:
            for s in kept:
                s.close()


def test_connections_that_say_nothing_do_not_keep_others_out(tmp_path: Path, origin: Nginx) -> None:
    modes = [f"reverse:http://127.0.0.1:{origin.http}"]
    with running(tmp_path, modes=modes, prefix=("prlimit", "--nofile=256:256")) as proxy:
        silent = [connect(proxy.port) for _ in range(400)]
        try:
            assert [get(proxy.port, "http://blocked.example/").status for _ in range(20)] == [451] * 20
        finally:
            for s in silent:
                s.close()


def test_a_mode_over_udp_is_served_by_the_first_worker(tmp_path: Path) -> None:
    modes = [f"wireguard:{tmp_path}/wireguard.conf", "regular"]
    with running(tmp_path, "--workers", "2", modes=modes) as proxy:
        wait_for(lambda: listening(proxy) == 3, "both workers")
        os.kill(workers_of(proxy)[0], signal.SIGKILL)
        wait_for(lambda: listening(proxy) == 5, "the new worker")
        before = proxy.log().count("entries in force")
        proxy.process.send_signal(RELOAD)
        wait_for(lambda: "cannot be handed over: only lists are read again" in proxy.log(), "the word")
        wait_for(lambda: proxy.log().count("entries in force") > before, "the lists")
        assert proxy.log().count("takes its place") == 1
        wait_for(lambda: len(workers_of(proxy)) == 2, "the end of the one that made the plan")
