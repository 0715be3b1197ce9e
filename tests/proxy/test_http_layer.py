"""The layer that relays unread in mitmproxy's stack, events in and commands out."""

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.context import Context

from proxy.driver import Driver, nobody
from proxy.test_guard import guard
from proxy.test_names import to
from urlward.proxy.layers import ListedAddress, RelayLayer
from urlward.proxy.live import Live
from urlward.proxy.names import Names
from urlward.proxy.raw_relay import RawRelay


def relay_layer(context: Context) -> RelayLayer:
    return RelayLayer(context, guard(), Live(), nobody, Names(("plain.example",), (443,), "", ""))


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


def test_a_fault_closes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    driver = Driver(relay_layer(to("203.0.113.10", 443)))
    monkeypatch.setattr(RawRelay, "client_data", None)
    driver.receive(b"hello")
    assert driver.client in driver.closed
    assert driver.to_server == b""
    assert "error=TypeError" in caplog.text


def test_membership_ends_with_the_connection() -> None:
    live, context = Live(), to("name.example", 443)
    names = Names(("plain.example",), (443,), "", "")
    driver = Driver(RelayLayer(context, guard(), live, nobody, names))
    (member,) = live
    assert (member.client, list(member.live())) == (driver.client, [names._replace(address="203.0.113.10")])
    assert not member.idle()
    driver.close(context.server)
    driver.close()
    assert list(live) == []
