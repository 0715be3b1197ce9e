import pytest
from mitmproxy.proxy.layers import modes

from e2e.support import client_hello
from proxy.driver import make_context
from proxy.test_guard import guard
from proxy.test_names import to
from urlward.proxy.decide import decide

HELLO = client_hello("plain.example")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "wait"),
        (HELLO[:1], "wait"),
        (HELLO[:2], "wait"),
        (HELLO[:-1], "wait"),
        (HELLO, "relay"),
        (HELLO + b"more", "relay"),
        (client_hello("blocked.example"), "tls"),
        (client_hello("paged.example"), "tls"),
        (client_hello(None), "relay"),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", "refuse"),
        (b"\x16\x03\x01\xff\xff" + b"\x01\xff\xff\xff" + bytes(1 << 17), "refuse"),
        (b"G", "http"),
        (b"\x16GET", "http"),
        (b"SSH-2.0-x\r\n", "http"),
    ],
)
def test_by_the_first_bytes(data: bytes, what: str) -> None:
    assert decide(to("203.0.113.10", 443), data, guard(), relays_other=False).what == what


def test_a_hello_in_many_records() -> None:
    body = HELLO[5:]
    for size, what in ((len(body) // 20, "relay"), (1, "refuse")):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        data = b"".join(HELLO[:3] + len(piece).to_bytes(2) + piece for piece in pieces)
        if what == "relay":
            assert decide(to("203.0.113.10", 443), data[:-1], guard(), relays_other=False).what == "wait"
        assert decide(to("203.0.113.10", 443), data, guard(), relays_other=False).what == what


def test_what_is_neither_is_relayed_where_that_is_wanted() -> None:
    for data, what in (
        (b"SSH-2.0-x\r\n", "relay"),
        (b"G", "wait"),
        (b"GET / ", "http"),
        (HELLO[:-1], "wait"),
    ):
        found = decide(to("203.0.113.10", 80), data, guard(), relays_other=True)
        assert found.what == what
    assert decide(to("203.0.113.10"), b"\x80\0\0", guard(), relays_other=True).names.hosts == (
        "203.0.113.10",
    )


def test_where_no_tls_is_relayed_unread() -> None:
    strict = guard(intercept_port=8090)
    for mode, what in (("transparent@8090", "tls"), ("transparent@8080", "relay")):
        assert decide(to("203.0.113.10", 443, mode), HELLO, strict, relays_other=False).what == what
    # Only TLS: the rest is decided as everywhere.
    there = to("203.0.113.10", 443, "transparent@8090")
    assert decide(there, b"GET ", strict, relays_other=False).what == "http"
    assert decide(there, b"SSH-2.0-x\r\n", strict, relays_other=True).what == "relay"


def test_what_is_monitored() -> None:
    monitor = guard(monitor=True)
    hello = client_hello("whole.example")
    found = decide(to("203.0.113.10", 443), hello, monitor, relays_other=False)
    assert (found.what, found.names.told, found.names.tls) == ("relay", True, True)
    found = decide(to("192.0.2.66", 22), b"SSH-2.0-x\r\n", monitor, relays_other=True)
    assert (found.what, found.names.told, found.names.tls) == ("relay", True, False)


def test_what_is_spoken_to_the_proxy_itself() -> None:
    context = make_context("regular")
    modes.HttpProxy(context)
    assert decide(context, HELLO, guard(), relays_other=True).what == "tls"
    assert decide(context, b"SSH-2.0-x\r\n", guard(), relays_other=True).what == "http"
    reverse = to("203.0.113.10", 80, "reverse:http://203.0.113.10")
    assert decide(reverse, HELLO, guard(), relays_other=False).what == "tls"
    reverse = to("203.0.113.10", 443, "reverse:https://203.0.113.10")
    assert decide(reverse, HELLO, guard(), relays_other=False).what == "relay"
    inner = to("203.0.113.10", 443, sni="paged.example")
    assert decide(inner, HELLO, guard(), relays_other=False).what == "tls", "TLS inside TLS is ended as well"
