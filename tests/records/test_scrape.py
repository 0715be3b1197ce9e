import socket
import threading
from pathlib import Path

import pytest

from conftest import free_port
from records.metrics_support import TOKEN, admin, full
from rows import each_row
from urlward.commands.metrics import reachable, scrape
from urlward.engine.errors import UrlwardError


def token(folder: Path, text: str = TOKEN + "\n") -> Path:
    path = folder / "admin.token"
    path.write_text(text)
    return path


def test_the_metrics_come(tmp_path: Path, port: int) -> None:
    exposition, _ = full(tmp_path / "state")
    with admin(exposition, port):
        text = scrape(f"127.0.0.1:{port}", token(tmp_path))
        assert 'urlward_blocks_total{category="phishing",list="one"} 1.0' in text
        with pytest.raises(UrlwardError, match="is nobody") as raised:
            scrape(f"127.0.0.1:{port}", token(tmp_path, "wrong-one"))
        assert "wrong-one" not in str(raised.value)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="nobody answers"):
        scrape(f"127.0.0.1:{free_port()}", token(tmp_path))


def test_something_else_answers(tmp_path: Path, port: int) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-other\r\n")

    with socket.create_server(("127.0.0.1", port)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UrlwardError, match="ProtocolError"):
            scrape(f"127.0.0.1:{port}", token(tmp_path))
        thread.join()


@each_row("text", ["", "\n", "two words", "a\r\nHost: b", "\x01"])
def test_a_file_without_a_token(tmp_path: Path, text: str) -> None:
    with pytest.raises(UrlwardError, match=r"admin\.token: no token"):
        scrape("127.0.0.1:1", token(tmp_path, text))


def test_no_token_file(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="No such file"):
        scrape("127.0.0.1:1", tmp_path / "admin.token")
    (tmp_path / "admin.token").write_bytes(b"\xff")
    with pytest.raises(UrlwardError, match="no token"):
        scrape("127.0.0.1:1", tmp_path / "admin.token")


@each_row(
    ("listen", "to"),
    [
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        (":80", "127.0.0.1:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
    ],
)
def test_where_to_connect(listen: str, to: str) -> None:
    assert reachable(listen) == to
