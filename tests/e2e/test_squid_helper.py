"""`urlward helper squid`, with a real Squid in front of a real nginx."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import accepts, free_port, wait_for
from e2e.support import ENDS_WITHIN, Nginx, read_to_end
from rows import each_row
from urlward.commands.check import answer
from urlward.library import Filter

LIST = """\
blocked.example category=phishing id=S-1
http://paged.example/listed id=S-2
http://paged.example/dir/%23hash id=S-3
http://root.example/ id=S-4
127.0.0.9 id=S-5
http://asked.example/page?a=1 id=S-6
"""
CONFIG = """\
http_port 127.0.0.1:{port}
visible_hostname squid.test
pid_filename {folder}/squid.pid
cache_log {folder}/cache.log
logformat said %ru %>Hs %et %ea
access_log stdio:{folder}/access.log logformat=said
coredump_dir {folder}
cache deny all
pinger_enable off
shutdown_lifetime 0 seconds
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
external_acl_type urlward concurrency=100 children-startup=1 children-max=1 ttl=0 negative_ttl=0 \
 %METHOD %#>ru %SRC {urlward} helper squid --list {folder}/list.txt
acl listed external urlward
http_access deny listed
http_access allow all
"""


class Squid:
    """A Squid that asks the helper, and knows some hosts."""

    def __init__(self, folder: Path, origin: int) -> None:
        self.folder, self.port, self._origin = folder, free_port(), origin
        (folder / "list.txt").write_text(LIST)
        names = "blocked.example paged.example root.example fine.example changed.example"
        (folder / "hosts").write_text(f"127.0.0.1 {names}\n")
        (folder / "squid.conf").write_text(
            CONFIG.format(port=self.port, folder=folder, urlward=Path(sys.executable).with_name("urlward"))
        )

    def status(self, host: str, target: str = "/", method: str = "GET") -> int:
        uri = f"{host}:{self._origin}" if method == "CONNECT" else f"http://{host}:{self._origin}{target}"
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            client.sendall(f"{method} {uri} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            if method == "CONNECT":
                return int(client.recv(100).split()[1])
            return int(read_to_end(client).split()[1])


@pytest.fixture(scope="module")
def squid(tmp_path_factory: pytest.TempPathFactory, nginx_server: Nginx) -> Iterator[Squid]:
    if shutil.which("squid") is None:
        pytest.skip("squid is not installed")
    made = Squid(tmp_path_factory.mktemp("squid"), nginx_server.http)
    # By a name of its own, since it shares memory by that.
    line = ["squid", "-n", f"squid{made.port}", "-N", "-f", str(made.folder / "squid.conf")]
    if os.geteuid() == 0:
        # It refuses to run as root, and its helper is to read whatever folder this is in.
        line = ["unshare", "--user", "--map-user=13", "--map-group=13", *line]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: accepts(made.port) or process.poll() is not None, "Squid")
        assert process.poll() is None
        # Until its helper answers, it denies all.
        wait_for(lambda: made.status("fine.example") != 403, "the helper")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(ENDS_WITHIN)


@each_row(
    ("host", "target", "method", "denied"),
    [
        ("blocked.example", "/any", "GET", True),
        ("blocked.example", "/", "CONNECT", True),
        ("fine.example", "/listed", "GET", False),
        ("paged.example", "/listed", "GET", True),
        ("paged.example", "/%6Cisted", "GET", True),
        ("paged.example", "/x/../listed?", "GET", True),
        ("paged.example", "/dir/%23hash", "GET", True),
        ("paged.example", "/dir/%23hash#x", "GET", True),
        ("paged.example", "/dir/", "GET", False),
        ("paged.example", "/other", "GET", False),
        ("paged.example", "/", "CONNECT", False),
        ("root.example", "/", "GET", True),
        ("root.example", "/", "CONNECT", False),
        ("127.0.0.9", "/", "GET", True),
    ],
)
def test_squid_denies_what_is_listed(squid: Squid, host: str, target: str, method: str, denied: bool) -> None:
    assert (squid.status(host, target, method) == 403) == denied


def test_squids_log_has_the_list_and_the_id(squid: Squid) -> None:
    assert squid.status("blocked.example", "/logged") == 403
    log = squid.folder / "access.log"
    wait_for(lambda: "/logged 403 list block:S-1" in log.read_text(), "the line")


def test_a_changed_list_comes_into_force(squid: Squid) -> None:
    assert squid.status("changed.example") != 403
    (squid.folder / "list.txt").write_text(LIST + "changed.example id=S-9\n")
    wait_for(lambda: squid.status("changed.example") == 403, "the changed list")


LISTED = b'tag="list" log="block:S-1" message="phishing"\n'


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., bytes]]:
    path = tmp_path_factory.mktemp("helper") / "list.txt"
    path.write_text(LIST)
    with Filter.load(path, follow=False) as loaded:
        yield lambda line, blocks=True: answer(loaded, line, blocks=blocks)


@each_row(
    ("line", "said"),
    [
        (
            b"0 GET http://blocked.example/ 192.0.2.1 -",
            b'0 OK tag="list" log="block:S-1" message="phishing"\n',
        ),
        (b"17 GET http://fine.example/ 192.0.2.1 -", b"17 ERR\n"),
        (b"1 CONNECT blocked.example:443 ::1", b"1 OK " + LISTED),
        (b"2 CONNECT %5B::1%5D:443 ::1", b"2 ERR\n"),
        (b"3 GET http://paged.example/listed%23more 192.0.2.1", b'3 OK tag="list" log="block:S-2"\n'),
        (b"4 GET http://[/ 192.0.2.1", b'4 OK message="not judged: not a valid host"\n'),
        (b"5 GET / 192.0.2.1", b'5 OK message="not judged: no host"\n'),
        (b"6", b'6 BH message="not %METHOD %#>ru %SRC after a channel"\n'),
        (b"GET http://fine.example/ 192.0.2.1", b'0 BH message="not %METHOD %#>ru %SRC after a channel"\n'),
        (b"", b'0 BH message="not %METHOD %#>ru %SRC after a channel"\n'),
        (b"7 \xff http://fine.example/\xff \xff", b"7 ERR\n"),
    ],
)
def test_an_answer(answers: Callable[..., bytes], line: bytes, said: bytes) -> None:
    assert answers(line) == said


def test_what_cannot_be_judged_passes_where_errors_do(answers: Callable[..., bytes]) -> None:
    assert answers(b"5 GET / 192.0.2.1", blocks=False) == b'5 ERR message="not judged: no host"\n'


def test_one_reading_that_cannot_be_judged_excuses_no_other(answers: Callable[..., bytes]) -> None:
    line = b"6 GET http://asked.example/page?a=1&b=" + b"%26" * 1001 + b" 192.0.2.1"
    assert answers(line, blocks=False) == b'6 OK tag="list" log="block:S-6"\n'


def test_requests_come_in_any_pieces_and_the_end_ends_it(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(LIST)
    line = [sys.executable, "-m", "urlward", "helper", "squid", "--list", str(tmp_path / "list.txt")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"0 GET http://blo")
        process.stdin.flush()
        process.stdin.write(b"cked.example/ ::1\n" + b"1 GET http://fine.example/ ::1\n" * 5000 + b"2 GE")
        process.stdin.close()
        found = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert found[0].startswith(b"0 OK")
    assert found[1:] == [b"1 ERR"] * 5000
