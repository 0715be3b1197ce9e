import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds.certificates import make_certificates
from records.support import START, an_event
from urlward.config.records import StoreTable
from urlward.records import syslog_store as module
from urlward.records.event import Event
from urlward.records.store import KeepingStore, StoreError
from urlward.records.stores import open_store
from urlward.records.syslog_store import SyslogStore, frames, message


class Server:
    """Takes what it is sent, one connection at a time."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.messages: list[bytes] = []
        self.connections = 0
        self._now: socket.socket | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._now, _ = self._listener.accept()
                self.connections += 1
                with contextlib.suppress(OSError), self._now:
                    if self._context:
                        self._now = self._context.wrap_socket(self._now, server_side=True)
                    self._take(self._now)

    def _take(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            while length := b"".join(iter(lambda: file.read(1).strip(), b"")):
                one = file.read(int(length))
                with self._news:
                    self.messages.append(one)
                    self._news.notify_all()

    def wait(self, count: int) -> list[bytes]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.messages) >= count, 60)
            return self.messages

    def hang_up(self) -> None:
        assert self._now is not None
        with contextlib.suppress(OSError):
            self._now.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._now is not None:
            self.hang_up()
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@contextlib.contextmanager
def tls_server(certificates: Path, name: str) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    made = Server(context)
    yield made
    made.close()


def store_of(server: Server) -> SyslogStore:
    made = open_store(StoreTable(kind="syslog", address=server.address), Path("/nowhere"))
    assert isinstance(made, SyslogStore)
    assert not isinstance(made, KeepingStore)
    return made


def test_a_message() -> None:
    event = Event(
        id="0193ffffffff7fffbfffffffffffffff",
        time=START + 7,
        kind="block",
        node="gw 1\n",
        client="192.0.2.7",
        client_port=40213,
        list='a]b"c\\d é',
        detail='{"a":1}',
    )
    assert message(event, "local0").decode() == (
        "<133>1 2026-11-18T11:06:40.007Z gw1 urlward - block "
        '[event@32473 version="1" id="0193ffffffff7fffbfffffffffffffff" client="192.0.2.7" '
        'client_port="40213" list="a\\]b\\"c\\\\d é" detail="{\\"a\\":1}"]'
    )
    assert message(an_event(kind="alarm"), "kern").startswith(
        b"<3>1 2026-11-18T11:06:40.000Z - urlward - alarm ["
    )
    assert message(an_event(kind="start"), "local7").startswith(b"<190>1 ")


def test_octets_are_counted() -> None:
    framed = frames([an_event(0, list="é"), an_event(1)], "user")
    length = re.match(rb"\d+", framed)
    assert length
    first = message(an_event(0, list="é"), "user")
    assert int(length[0]) == len(first) == len(first.decode()) + 1
    assert framed.startswith(length[0] + b" " + first)


def test_what_is_written_arrives_once(server: Server) -> None:
    some = [an_event(n) for n in range(500)]
    store = store_of(server)
    store.write([])
    assert server.connections == 0
    store.write(some[:300])
    store.write(some)
    store.close()
    store.close()
    assert server.wait(500) == [message(event, "local0") for event in some]
    assert server.connections == 1


def test_a_connection_that_has_ended_is_made_anew(server: Server) -> None:
    store = store_of(server)
    store.write([an_event(0)])
    server.wait(1)
    server.hang_up()
    store.write([an_event(1)])
    server.wait(2)
    store.close()
    assert server.connections == 2


def test_a_server_that_is_not_there(server: Server) -> None:
    store = store_of(server)
    server.close()
    with pytest.raises(StoreError, match=rf"^syslog {re.escape(server.address)}: Connection refused$"):
        store.write([an_event()])


def test_a_server_is_missed_before_there_is_anything_to_send(server: Server) -> None:
    store = store_of(server)
    store.check()
    store.write([an_event(0)])
    server.wait(1)
    store.check()
    assert server.connections == 1
    server.close()
    with pytest.raises(StoreError, match=r"Connection refused$"):
        store.check()


def test_what_is_not_taken_counts_as_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with socket.socket() as listener:
        # As small as may be, and nobody reads.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        store = SyslogStore(f"127.0.0.1:{listener.getsockname()[1]}", "user", None)
        with pytest.raises(StoreError, match="timed out"):
            store.write([an_event(n) for n in range(100)])


def test_tls(certificates: Path) -> None:
    with tls_server(certificates, "good") as server:
        table = StoreTable(
            kind="syslog", address=server.address, tls=True, ca=str(certificates / "ca.pem"), facility="audit"
        )
        store = open_store(table, Path("/nowhere"))
        store.check()
        store.write([an_event(0)])
        server.wait(1)
        server.hang_up()
        store.write([an_event(1), an_event(2)])
        assert server.wait(3) == [message(an_event(n), "audit") for n in range(3)]
        store.close()


@pytest.mark.parametrize(
    ("name", "ca", "reason"),
    [
        ("good", "unknown", "unable to get local issuer certificate"),
        ("misnamed", "ca", "IP address mismatch, certificate is not valid for '127.0.0.1'."),
    ],
)
def test_tls_of_somebody_else(certificates: Path, name: str, ca: str, reason: str) -> None:
    with tls_server(certificates, name) as server:
        table = StoreTable(
            kind="syslog", address=server.address, tls=True, ca=str(certificates / f"{ca}.pem")
        )
        store = open_store(table, Path("/nowhere"))
        with pytest.raises(StoreError) as raised:
            store.write([an_event()])
    assert str(raised.value) == f"{store.name}: its certificate does not verify: {reason}"
    assert not server.messages


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    table = StoreTable(kind="syslog", address="127.0.0.1:1", tls=True, ca=str(path))
    with pytest.raises(StoreError) as raised:
        open_store(table, tmp_path)
    assert str(raised.value).startswith(f"'{path}': ")
