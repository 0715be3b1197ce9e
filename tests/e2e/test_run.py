"""``urlward run`` as a process: its options, its start, its end, and what it prints."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from e2e.support import (
    ENDS_WITHIN,
    LIST,
    Nginx,
    RawOrigin,
    connect,
    environment,
    get,
    read_response,
    read_to_end,
    running,
    urlward,
)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`urlward run` with arguments that it does not start with."""
    return urlward("run", *arguments)


@pytest.fixture
def blocklist(tmp_path: Path) -> str:
    path = tmp_path / "list.txt"
    path.write_text(LIST)
    return str(path)


def test_what_is_made_by_a_fork_has_its_modules_before_it_starts() -> None:
    """Else each filter under test would import them anew, for a second of a core."""
    asks = "import sys; print({'urlward.proxy.runner', 'mitmproxy.addons.next_layer'} <= sys.modules.keys())"
    assert urlward("--version", before=asks).stdout.startswith("True\nurlward ")


def test_a_busy_port_is_named_in_one_line(blocklist: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = run("--list", blocklist, "--confdir", str(tmp_path), "--listen", f"127.0.0.1:{port}")
    assert result.returncode == 2
    assert result.stderr == f"urlward: cannot listen on 127.0.0.1:{port}: address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "no_such_option=1"], "urlward: --set: Unknown option(s): no_such_option"),
        (["--set", "rawtcp=perhaps"], "urlward: --set: "),
        (["--mode", "sideways"], "urlward: --mode: 'sideways': unknown mode"),
        (["--listen", "127.0.0.1:99999"], "urlward: listen: "),
        (["--list", "/no/such/list"], "urlward: --list: /no/such/list: No such file or directory"),
        (["--listen", "192.0.2.1:8080"], "urlward: cannot listen on 192.0.2.1:8080: "),
        (["--listen", "a..b:8080"], "urlward: listen: 'a..b:8080' is not HOST:PORT: its host is neither"),
    ],
)
def test_what_cannot_start_says_so_in_one_line(
    blocklist: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = run("--list", blocklist, "--confdir", str(tmp_path), *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(said), result.stderr
    assert result.stderr.count("\n") == 1
    assert "Errno" not in result.stderr


def test_ctrl_c_ends_it_at_once_whatever_is_under_way(tmp_path: Path, origin: Nginx) -> None:
    with running(tmp_path) as proxy, connect(proxy.port) as idle, connect(proxy.port) as busy:
        idle.sendall(b"GET http://plain")
        url = f"http://plain.example:{origin.http}/slow"
        busy.sendall(f"GET {url} HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode())
        assert busy.recv(1) == b"H"
        proxy.process.send_signal(signal.SIGINT)
        assert proxy.process.wait(ENDS_WITHIN) == 0
        assert len(read_to_end(busy)) < (origin.folder / "slow").stat().st_size, "it was not waited for"
        assert proxy.log().count("\n") == 2, proxy.log()


def test_the_status_is_the_operators_choice(tmp_path: Path) -> None:
    with running(tmp_path, "--status", "403") as proxy:
        response = get(proxy.port, "http://blocked.example/")
        assert (response.status, response.reason) == (403, "Forbidden")


def test_nothing_of_what_passes_is_kept_or_logged(tmp_path: Path) -> None:
    with RawOrigin() as raw, running(tmp_path) as proxy:
        lines = proxy.log()
        body = b"x" * 100_000
        with connect(proxy.port) as s:
            for i in range(330):
                if i == 30:
                    before = proxy.memory()
                s.sendall(
                    f"POST http://plain.example:{raw.port}/{i} HTTP/1.1\r\nHost: plain.example\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                )
                s.sendall(body)
                assert read_response(s).status == 200
        assert proxy.memory() - before < 8 << 20
        assert proxy.log() == lines


def test_a_log_that_nobody_reads_any_more_does_not_stop_it(tmp_path: Path, origin: Nginx) -> None:
    line = [sys.executable, "-m", "urlward", "run", "--confdir", str(tmp_path), "--list"]
    port = free_port()
    (tmp_path / "list.txt").write_text(LIST)
    process = subprocess.Popen(
        [*line, str(tmp_path / "list.txt"), "--listen", f"127.0.0.1:{port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        while b"listening" not in process.stdout.readline():
            pass
        process.stdout.close()
        for _ in range(3):
            assert get(port, "http://blocked.example/").status == 451
        assert get(port, f"http://plain.example:{origin.http}/").status == 200
    finally:
        process.terminate()
        process.wait(ENDS_WITHIN)


def test_many_blocked_at_once(tmp_path: Path) -> None:
    """Each has its own reference, and each reference its line."""
    with running(tmp_path) as proxy:
        references: list[str] = []

        def ask() -> None:
            references.extend(get(proxy.port, "http://blocked.example/").reference for _ in range(20))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: len(proxy.blocks()) == 100, "the lines")
        assert sorted(block["reference"] for block in proxy.blocks()) == sorted(references)
        assert len(set(references)) == 100
