"""The relaying layers, events in and commands out; what sockets do to them is in tests/e2e."""

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.context import Context

from proxy.driver import Driver, nobody
from proxy.test_guard import broken, guard
from proxy.test_names import to
from urlward.proxy.http_layer import HttpRelayLayer, ListedAddress, RelayLayer
from urlward.proxy.live import Live
from urlward.proxy.names import Names
from urlward.proxy.relay import HttpRelay

GET = b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
BLOCKED = b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def relay_layer(context: Context) -> RelayLayer:
    return RelayLayer(context, guard(), Live(), nobody, Names(("plain.example",), (443,), "", ""))


def http_layer(context: Context | None = None, **changes: object) -> Driver:
    layer = HttpRelayLayer(context or to("203.0.113.10"), guard(), Live(), nobody)
    return Driver(layer, **changes)  # type: ignore[arg-type]


def test_a_request_and_its_response() -> None:
    driver = http_layer()
    driver.receive(GET)
    assert driver.to_server == GET
    driver.receive(OK, driver.opened[0])
    assert driver.to_client == OK
    assert driver.hooks == [], "no flow"
    driver.receive(GET)
    assert driver.to_server == GET * 2
    assert len(driver.opened) == 1


def test_a_blocked_request_opens_nothing() -> None:
    driver = http_layer()
    driver.receive(BLOCKED)
    assert driver.to_client.startswith(b"HTTP/1.1 451 Unavailable For Legal Reasons\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in driver.to_client
    assert (driver.opened, driver.closed, driver.wakeups) == ([], [], [])
    driver.receive(GET)
    assert driver.to_server == GET


def test_an_answer_is_lingered_behind() -> None:
    driver = http_layer()
    driver.receive(b"POST / HTTP/1.1\r\nHost: blocked.example\r\nContent-Length: 9\r\n\r\nab")
    assert b"\r\nConnection: close\r\n" in driver.to_client
    assert driver.client.state is ConnectionState.CLOSED or driver.wakeups
    driver.receive(b"cde")
    driver.wake()
    assert driver.closed[-1] is driver.client
    assert driver.opened == []


def test_an_origin_that_refuses() -> None:
    driver = http_layer(refuse="refused")
    driver.receive(GET)
    assert driver.to_client.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


@pytest.mark.parametrize("refuse", ["", ListedAddress("192.0.2.66")])
def test_a_name_that_has_a_listed_address(refuse: str) -> None:
    driver = http_layer(to("name.example"), peer="192.0.2.66", refuse=refuse)
    driver.receive(GET)
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")
    assert driver.to_server == b""


def test_a_fault_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = http_layer()
    monkeypatch.setattr(HttpRelay, "client_data", None)
    driver.receive(GET)
    assert driver.closed == [driver.client]
    assert driver.opened == []


def test_what_cannot_be_judged_is_refused() -> None:
    driver = Driver(HttpRelayLayer(to("203.0.113.10"), broken(), Live(), nobody))
    driver.receive(GET)
    assert driver.to_client.startswith(b"HTTP/1.1 503 ")
    assert driver.opened == []
    driver = Driver(HttpRelayLayer(to("203.0.113.10"), broken(on_error="pass"), Live(), nobody))
    driver.receive(GET)
    assert driver.to_server == GET


def test_membership_ends_with_the_connection() -> None:
    live = Live()
    driver = Driver(HttpRelayLayer(to("203.0.113.10"), guard(), live, nobody))
    assert [member.client for member in live] == [driver.client]
    driver.receive(GET)
    (member,) = live
    assert [names.hosts[0] for names in member.live()] == ["plain.example"]
    driver.receive(OK, driver.opened[0])
    assert list(member.live()) == []
    assert member.idle()
    assert member.head() is None
    driver.close()
    assert list(live) == []


# -- bytes that nobody reads


def test_a_relay() -> None:
    context = to("203.0.113.10", 443)
    driver = Driver(relay_layer(context))
    driver.receive(b"hello")
    assert driver.to_server == b"hello"
    driver.receive(b"hi", context.server)
    assert driver.to_client == b"hi"
    assert driver.hooks == []
    driver.close(context.server)
    assert context.server.state is ConnectionState.CAN_WRITE or context.server in driver.closed


@pytest.mark.parametrize("refuse", ["", ListedAddress("192.0.2.66")])
def test_a_relay_to_a_listed_address(refuse: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "urlward")
    driver = Driver(relay_layer(to("name.example", 443)), peer="192.0.2.66", refuse=refuse)
    driver.receive(b"hello")
    assert driver.client in driver.closed
    assert driver.to_server == b""
    assert caplog.text.count("entry=E-3") == 1


def test_a_relay_that_cannot_connect() -> None:
    driver = Driver(relay_layer(to("203.0.113.10", 443)), refuse="refused")
    assert driver.closed == [driver.client]
    driver.receive(b"late")
    assert driver.to_client == b""
