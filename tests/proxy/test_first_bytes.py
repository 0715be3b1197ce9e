import pytest
from mitmproxy.proxy.layers import modes

from e2e.support import client_hello
from proxy.driver import make_context, refused
from proxy.test_guard import guard
from proxy.test_names import to
from rows import each_row
from urlward.proxy.first_bytes import decide, is_for_origin

HELLO = client_hello("plain.example")


WARNING = b"\x15\x03\x01\0\2\1\x5a"
"""Of TLS, which Go's servers pass over before a ClientHello."""
NO_CHANGE, CHANGE = b"\x14\x03\x03\0\0", b"\x14\x03\x03\0\1\1"
"""Records of type change_cipher_spec; OpenSSL passes over the first one there, GnuTLS over the second."""


def other_version(hello: bytes, version: int) -> bytes:
    """A ClientHello whose first record names another version of TLS."""
    return hello[:1] + version.to_bytes(2) + hello[3:]


@each_row(
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
        (b"\x16\x03\x01\x00\x05hello", "refuse"),
        (b"G", "http"),
        (b"\x16GET", "wait"),
        (b"\x16GET / ", "http"),
        (other_version(HELLO, 0x0200), "relay"),
        (other_version(HELLO, 0x03FF), "relay"),
        (other_version(client_hello("blocked.example"), 0x0304), "refuse"),
        (other_version(client_hello("paged.example"), 0x0200), "refuse"),
        (client_hello("blocked.example") + bytes(1 << 13), "refuse"),
        (HELLO + bytes(1 << 13), "relay"),
        (b"SSH-2.0-x\r\n", "http"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:3].hex(),  # a real one is random
)
def test_by_the_first_bytes(data: bytes, what: str) -> None:
    judge = guard()
    assert decide(to("203.0.113.10", 443), data, judge, relays_other=False, for_origin=True).what == what
    assert refused(judge) == (what == "refuse")


def test_a_hello_in_many_records() -> None:
    body = HELLO[5:]
    for size, what in ((len(body) // 20, "relay"), (1, "refuse")):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert (len(pieces) > 512) == (what == "refuse")
        data = b"".join(HELLO[:3] + len(piece).to_bytes(2) + piece for piece in pieces)
        if what == "relay":
            assert (
                decide(to("203.0.113.10", 443), data[:-1], guard(), relays_other=False, for_origin=True).what
                == "wait"
            )
        assert (
            decide(to("203.0.113.10", 443), data, guard(), relays_other=False, for_origin=True).what == what
        )


def test_what_is_neither_is_relayed_where_that_is_wanted() -> None:
    for data, what in (
        (b"SSH-2.0-x\r\n", "relay"),
        (b"G", "wait"),
        (b"GET / ", "http"),
        (HELLO[:-1], "wait"),
        (HELLO, "relay"),
        (client_hello("blocked.example"), "tls"),
        (other_version(client_hello("blocked.example"), 0x0304), "refuse"),
        (other_version(client_hello("blocked.example"), 0x03FF), "refuse"),
        (other_version(client_hello("blocked.example"), 0x0FFF), "refuse"),
        (b"\x16\x03\x01\0\0" + client_hello("blocked.example"), "tls"),
        (WARNING[:4], "wait"),
        (WARNING + client_hello("blocked.example"), "refuse"),
        (WARNING * 2 + other_version(client_hello("paged.example"), 0x0FFF), "refuse"),
        (b"\x16\x03\x01\0\0" + WARNING + client_hello("blocked.example"), "refuse"),
        (b"\x15\x03\x01\0\3abc", "relay"),
        (CHANGE[:4], "wait"),
        (NO_CHANGE + client_hello("blocked.example"), "refuse"),
        (CHANGE + client_hello("paged.example"), "refuse"),
        (b"\x16\x03\x01\0\0" + NO_CHANGE + client_hello("blocked.example"), "refuse"),
        (b"\x14\0\0\0\1\1", "relay"),
    ):
        found = decide(to("203.0.113.10", 80), data, guard(), relays_other=True, for_origin=True)
        assert found.what == what
    assert decide(
        to("203.0.113.10"), b"\x80\0\0", guard(), relays_other=True, for_origin=True
    ).names.hosts == ("203.0.113.10",)


def test_where_no_tls_is_relayed_unread() -> None:
    strict = guard(intercept_port=8090)
    for mode, what in (("transparent@8090", "tls"), ("transparent@8080", "relay")):
        assert (
            decide(to("203.0.113.10", 443, mode), HELLO, strict, relays_other=False, for_origin=True).what
            == what
        )
    # Only TLS: the rest is decided as everywhere.
    there = to("203.0.113.10", 443, "transparent@8090")
    assert decide(there, b"GET ", strict, relays_other=False, for_origin=True).what == "http"
    assert decide(there, b"SSH-2.0-x\r\n", strict, relays_other=True, for_origin=True).what == "relay"


def test_what_is_monitored() -> None:
    monitor = guard(monitor=True)
    hello = client_hello("whole.example")
    found = decide(to("203.0.113.10", 443), hello, monitor, relays_other=False, for_origin=True)
    assert (found.what, found.names.told, found.names.tls) == ("relay", True, True)
    found = decide(to("192.0.2.66", 22), b"SSH-2.0-x\r\n", monitor, relays_other=True, for_origin=True)
    assert (found.what, found.names.told, found.names.tls) == ("relay", True, False)


def test_what_is_spoken_to_the_proxy_itself() -> None:
    context = make_context("regular")
    modes.HttpProxy(context)
    assert not is_for_origin(context)
    assert is_for_origin(to("203.0.113.10", 443))
    for data, what in ((HELLO, "tls"), (client_hello("whole.example"), "tls"), (b"SSH-2.0-x\r\n", "http")):
        assert decide(context, data, guard(), relays_other=True, for_origin=False).what == what
    reverse = to("203.0.113.10", 80, "reverse:http://203.0.113.10")
    assert decide(reverse, HELLO, guard(), relays_other=False, for_origin=True).what == "tls"
    reverse = to("203.0.113.10", 443, "reverse:https://203.0.113.10")
    assert decide(reverse, HELLO, guard(), relays_other=False, for_origin=True).what == "relay"
    inner = to("203.0.113.10", 443, sni="paged.example")
    assert decide(inner, HELLO, guard(), relays_other=False, for_origin=True).what == "tls", (
        "TLS inside TLS is ended as well"
    )


@each_row(
    ("name", "what"),
    [
        ("xn--strae-oqa.blocked.example", "tls"),
        ("xn--1ug.blocked.example", "tls"),
        ("a$b.blocked.example", "tls"),
        ("a|b.blocked.example", "tls"),
        ("blocked.example:443", "tls"),
        ("blocked.example:", "tls"),
        ("paged.example:x", "tls"),
        ("xn--strae-oqa.example", "relay"),
        ("printer.42", "relay"),
        ("foo.1", "relay"),
        ("a|b.example", "relay"),
    ],
)
def test_names_that_mitmproxy_takes_for_none(name: str, what: str) -> None:
    found = decide(to("203.0.113.10", 443), client_hello(name), guard(), relays_other=False, for_origin=True)
    assert found.what == what
    if what == "relay":
        assert found.names.hosts[0] == name


def test_a_client_hello_of_ssl_2_is_refused_where_others_pass() -> None:
    """Servers agree on TLS 1.2 behind it, in which nobody here would read."""
    hello = b"\x80\x2e\1\3\3\0\x15\0\0\0\x10"
    for size in range(1, 4):
        assert outcome(hello[:size]) == "wait"
    assert outcome(hello) == "refuse"
    assert outcome(b"\x80\x2e\1\0\2\0\x15\0\0\0\x10") == "refuse"
    assert outcome(b"\x80\x2e\2\3\3") == "relay"
    assert outcome(b"\x80\x2e\1\5\3") == "relay"


def outcome(data: bytes) -> str:
    return decide(to("203.0.113.10"), data, guard(), relays_other=True, for_origin=True).what


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)]
)
def test_a_header_of_the_proxy_protocol_is_refused_where_others_pass(header: bytes) -> None:
    """A server that takes it finds a ClientHello behind it, which nobody would have read."""

    def what(data: bytes) -> str:
        return decide(to("203.0.113.10", 443), data, guard(), relays_other=True, for_origin=True).what

    assert what(header + HELLO) == what(header[:12]) == "close"
    assert {what(header[:size]) for size in range(6)} == {"wait"}
    assert what(b"PROXIES\n") == what(b"\r\n\r\n\0\r\nEXIT") == "relay"
