"""SOCKS5, bytes in and bytes out."""

from base64 import b64decode

import pytest

from rows import each_row
from urlward.proxy.socks import SUCCEEDED, SocksError, SocksHandshake

GREETING = b"\x05\x01\x00"
TO_NAME = b"\x05\x01\x00\x03\x0dplain.example\x01\xbb"


def _any_port(_: int) -> bool:
    return True


def reply(code: int) -> bytes:
    return b"\x05" + bytes([code]) + SUCCEEDED[2:]


@each_row("size", [1, 2, 3, 100])
@each_row("greeting", [GREETING, b"\x05\x02\x02\x00"])
def test_a_name(size: int, greeting: bytes) -> None:
    sent = greeting + TO_NAME + b"rest"
    handshake, said = SocksHandshake(_any_port), b""
    for start in range(0, len(sent) - 4, size):
        said += handshake.feed(sent[start : min(start + size, len(sent) - 4)])
    assert said == b"\x05\x00" + SUCCEEDED
    assert handshake.destination == ("plain.example", 443)
    handshake = SocksHandshake(_any_port)
    handshake.feed(sent)
    assert handshake.rest == b"rest"


@each_row(
    ("address", "host"),
    [
        (b"\x01\xc0\x00\x02\x07", "192.0.2.7"),
        (b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07", "2001:db8::7"),
        (b"\x03\x02\xc3\x9f", "\xc3\x9f"),  # as bytes, whatever they are
        (b"\x03\x0b192.0.2.007", "192.0.2.007"),
    ],
)
def test_addresses(address: bytes, host: str) -> None:
    handshake = SocksHandshake(_any_port)
    assert handshake.feed(GREETING) == b"\x05\x00"
    assert handshake.feed(b"\x05\x01\x00" + address + b"\x00\x50") == SUCCEEDED
    assert handshake.destination == (host, 80)
    assert handshake.rest == b""


@each_row(
    ("sent", "said"),
    [
        (b"\x04\x01\x00\x50", b""),  # SOCKS4
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (GREETING + b"\x04\x01\x00\x01\x00", b"\x05\x00"),
        (GREETING + b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50", b"\x05\x00" + reply(7)),  # BIND
        (GREETING + b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x50", b"\x05\x00" + reply(7)),  # UDP ASSOCIATE
        (GREETING + b"\x05\x01\x00\x02\x00\x00\x00\x00\x00\x50", b"\x05\x00" + reply(8)),
        (GREETING + b"\x05\x01\x00\x03\x04a\\1b\x01\xbb", b"\x05\x00" + reply(4)),
    ],
)
def test_what_is_not_understood(sent: bytes, said: bytes) -> None:
    handshake = SocksHandshake(_any_port)
    with pytest.raises(SocksError) as raised:
        handshake.feed(sent)
    assert raised.value.reply == said
    assert handshake.destination is None


def test_too_few_bytes_say_nothing() -> None:
    for cut in range(len(GREETING)):
        assert SocksHandshake(_any_port).feed(GREETING[:cut]) == b""
    for cut in range(len(TO_NAME)):
        handshake = SocksHandshake(_any_port)
        assert handshake.feed(GREETING + TO_NAME[:cut]) == b"\x05\x00"
        assert handshake.destination is None


# -- with a password (RFC 1929)


@each_row("size", [1, 2, 5, 100])
@each_row(("user", "password"), [(b"someone", b"secret"), (b"x", b""), (b"s" * 255, b"p" * 255)])
def test_a_password(size: int, user: bytes, password: bytes) -> None:
    said = b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
    sent = b"\x05\x02\x00\x02" + said + TO_NAME
    handshake, answers = SocksHandshake(_any_port, authenticates=True), b""
    for start in range(0, len(sent), size):
        answers += handshake.feed(sent[start : start + size])
    assert answers == b"\x05\x02"
    assert b64decode(handshake.token) == user + b":" + password
    assert handshake.destination is None
    assert handshake.admit(admitted=True) == b"\x01\x00"
    assert handshake.token == b""
    assert handshake.feed(b"") == SUCCEEDED
    assert handshake.destination == ("plain.example", 443)


def test_a_wrong_password() -> None:
    handshake = SocksHandshake(_any_port, authenticates=True)
    handshake.feed(b"\x05\x01\x02\x01\x01a\x01b" + TO_NAME)
    with pytest.raises(SocksError) as raised:
        handshake.admit(admitted=False)
    assert raised.value.reply == b"\x01\x01"
    assert handshake.destination is None


@each_row(
    ("sent", "reply"),
    [(b"\x05\x01\x00", b"\x05\xff"), (b"\x05\x01\x02\x02\x01a", b""), (b"\x05\x01\x02" + TO_NAME, b"")],
)
def test_a_client_that_gives_no_password(sent: bytes, reply: bytes) -> None:
    with pytest.raises(SocksError) as raised:
        SocksHandshake(_any_port, authenticates=True).feed(sent)
    assert raised.value.reply == reply


def test_a_port_that_is_not_allowed() -> None:
    handshake = SocksHandshake(lambda port: port != 443)
    handshake.feed(GREETING)
    with pytest.raises(SocksError) as raised:
        handshake.feed(TO_NAME)
    assert raised.value.reply == reply(2)
    assert handshake.destination is None
