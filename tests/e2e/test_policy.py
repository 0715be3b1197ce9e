"""What is blocked for some clients is not for others, nor at all times, and says so in its own page."""

import socket
from collections.abc import Iterator

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.support import Authority, Filter, Nginx, issuer, read_response, running

CONFIG = """\
[[group]]
name = "staff"
networks = ["127.0.0.2/32"]
  [[group.rule]]
  categories = ["games"]
  action = "allow"
  [[group.rule]]
  categories = ["ads"]
  action = "monitor"

[[group]]
name = "pupils"
networks = ["127.0.0.0/29"]
page = "school"
  [[group.rule]]
  categories = ["never"]
  action = "block"
  schedule = "past"

[[rule]]
action = "allow"

[schedule.past]
zone = "UTC"
days = ["mon"]
from = "00:00"
to = "00:01"

[page]
operator = "Example Net"
[pages.school]
operator = "Example School"
"""
LIST = """\
blocked.example category=games id=P-1
ads.example category=ads id=P-2
csam.example category=csam id=P-3
http://plain.example/game category=games id=P-4
"""
STAFF, PUPIL, OTHERS = "127.0.0.2", "127.0.0.3", "127.0.0.9"


@pytest.fixture(scope="module")
def proxy(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    folder = tmp_path_factory.mktemp("policy")
    config = folder / "urlward.toml"
    config.write_text(CONFIG)
    with running(folder, "--config", str(config), *trust(authority), text=LIST, shares_ca=False) as proxy:
        proxy.secrets = ("blocked.example", "ads.example", "csam.example")
        yield proxy


def connect(proxy: Filter, client: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10, source_address=(client, 0))


def ask(proxy: Filter, client: str, url: str) -> tuple[int, bytes]:
    with connect(proxy, client) as s:
        host = url.split("/")[2]
        s.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        response = read_response(s)
    return response.status, response.body


@pytest.mark.parametrize(
    ("host", "staff", "pupil", "others"),
    [
        ("blocked.example", 200, 451, 200),
        ("ads.example", 200, 451, 200),
        ("csam.example", 451, 451, 200),
        ("unlisted.example", 200, 200, 200),
    ],
)
def test_each_group_has_its_own(
    proxy: Filter, origin: Nginx, host: str, staff: int, pupil: int, others: int
) -> None:
    url = f"http://{host}:{origin.http}/"
    assert [ask(proxy, client, url)[0] for client in (STAFF, PUPIL, OTHERS)] == [staff, pupil, others]


def test_the_page_and_the_log_say_who(proxy: Filter, origin: Nginx) -> None:
    url, told = f"http://csam.example:{origin.http}/", proxy.blocks_from_here()
    assert b"Example School" in ask(proxy, PUPIL, url)[1]
    assert b"Example Net" in ask(proxy, STAFF, url)[1]
    assert [line["group"] for line in told()] == ["pupils", "staff"]


def test_what_is_monitored_is_said(proxy: Filter, origin: Nginx) -> None:
    told = proxy.blocks_from_here("would-block")
    assert ask(proxy, STAFF, f"http://ads.example:{origin.http}/")[0] == 200
    wait_for(told, "the line")
    (line,) = told()
    assert (line["entry"], line["category"], line["group"]) == ("P-2", "ads", "staff")


def tunnel(s: socket.socket, authority: str) -> int:
    """CONNECT; the status."""
    s.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += s.recv(1)
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("host", "client", "decrypted"),
    [
        ("plain.example", PUPIL, True),
        # A list that has pages there counts for them, if not those of this category.
        ("plain.example", STAFF, True),
        ("plain.example", OTHERS, False),
        ("blocked.example", STAFF, False),
        ("blocked.example", OTHERS, False),
    ],
)
def test_nothing_is_decrypted_for_those_whom_it_does_not_concern(
    proxy: Filter, authority: Authority, origin: Nginx, host: str, client: str, decrypted: bool
) -> None:
    with connect(proxy, client) as s:
        assert tunnel(s, f"{host}:{origin.https}") == 200
        with authority.client_context(proxy.ca).wrap_socket(s, server_hostname=host) as tls:
            assert (issuer(tls) == "Example Net filter") is decrypted


def test_a_host_is_blocked_inside_tls_for_its_group(
    proxy: Filter, authority: Authority, origin: Nginx
) -> None:
    with connect(proxy, PUPIL) as s:
        status = tunnel(s, f"blocked.example:{origin.https}")
        if status == 200:
            with authority.client_context(proxy.ca).wrap_socket(s, server_hostname="blocked.example") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: blocked.example\r\nConnection: close\r\n\r\n")
                status = read_response(tls).status
    assert status == 451
