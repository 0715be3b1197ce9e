"""ClientHellos: names in any bytes, over any records, and what no two servers read alike is refused."""

import ssl
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.support import client_hello
from engine.support import examples
from rows import each_row
from urlward.proxy.client_hello import (
    ClientHelloError,
    may_be_client_hello,
    parse_client_hello,
    read_client_hello,
)

HELLO = client_hello("plain.example")
NAME_AT = HELLO.index(b"plain.example")


def record(data: bytes, version: int = 0x0301) -> bytes:
    return struct.pack("!BHH", 22, version, len(data)) + data


def vector(data: bytes, size: int = 2) -> bytes:
    return len(data).to_bytes(size) + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2) + vector(body)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(b"".join(bytes([kind]) + vector(name) for name in names)))


def body(extensions: bytes | None) -> bytes:
    start = b"\3\3" + bytes(32) + vector(b"", 1) + vector(b"\x13\1") + vector(b"\0", 1)
    return start if extensions is None else start + vector(extensions)


def hello(extensions: bytes | None) -> bytes:
    return record(b"\1" + vector(body(extensions), 3))


def sni(data: bytes) -> bytes | None:
    found = read_client_hello(data)
    assert found is not None
    return found.sni


@each_row("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@each_row("name", ["plain.example", "xn--strae-oqa.test", None])
def test_a_real_client(version: ssl.TLSVersion, name: str | None) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    data = outgoing.read()
    assert may_be_client_hello(data)
    assert sni(data) == (name.encode() if name else None)
    assert sni(data + b"more") == (name.encode() if name else None)


@each_row(
    "name",
    [b"listed.test:443", b"foo$bar|x.test", b"x\xff.test", b"xn--1ug.test", b"\0", b"..", b"a" * 300, b" "],
)
def test_any_bytes_are_a_name(name: bytes) -> None:
    assert sni(hello(server_name(name))) == name
    assert (
        parse_client_hello(body(extension(10, b"") + server_name(name) + extension(0xFFFF, b"x"))).sni == name
    )


def test_no_name_is_only_where_there_is_none() -> None:
    assert sni(hello(None)) is None
    assert sni(hello(b"")) is None
    assert sni(hello(extension(10, b"x"))) is None
    assert sni(hello(server_name(b"x.test", kind=1))) is None


@each_row(
    "extensions",
    [
        server_name(b"a.test", b"b.test"),
        server_name(b"a.test") + server_name(b"b.test"),
        server_name(b""),
        extension(0, b""),
        extension(0, vector(b"\0" + vector(b"a.test")) + b"x"),
        extension(0, vector(b"\0\0\7a.test")),
        extension(0, b"\0\x20\0\0\6a.test"),
        server_name(b"a.test")[:-1],
        b"\0",
    ],
)
def test_what_is_not_read_in_one_way_is_refused(extensions: bytes) -> None:
    with pytest.raises(ClientHelloError):
        read_client_hello(hello(extensions))


def test_nothing_may_follow_the_extensions() -> None:
    with pytest.raises(ClientHelloError):
        parse_client_hello(body(server_name(b"a.test")) + b"x")
    for size in range(len(body(None))):
        with pytest.raises(ClientHelloError):
            parse_client_hello(body(None)[:size])


def test_records_of_every_version_that_servers_take() -> None:
    """OpenSSL and BoringSSL take 0x0300 to 0x03ff, Go 0x0000 to 0x0fff."""
    for version in range(0x1000):
        data = record(HELLO[5:], version)
        assert may_be_client_hello(data)
        assert sni(data) == b"plain.example"


def test_records_split_at_every_byte() -> None:
    message = HELLO[5:]
    for at in range(1, len(message)):
        data = record(message[:at]) + record(message[at:], 0x0304)
        assert sni(data) == b"plain.example"
        assert read_client_hello(data[: 5 + at]) is None
        assert read_client_hello(data[:-1]) is None
    assert sni(record(b"") + record(message[:9]) + record(b"") + record(message[9:])) == b"plain.example"


def test_records_of_a_byte_each() -> None:
    message = hello(server_name(b"plain.example"))[5:]
    data = b"".join(record(message[i : i + 1]) for i in range(len(message)))
    assert sni(data) == b"plain.example"
    for end in range(len(data)):
        assert may_be_client_hello(data[:end])
        assert read_client_hello(data[:end]) is None


@each_row("data", [record(b"\2" + HELLO[6:]), record(b"hello"), record(b"") + record(b"\0\0\0\0")])
def test_another_message_is_refused(data: bytes) -> None:
    assert may_be_client_hello(data)
    with pytest.raises(ClientHelloError):
        read_client_hello(data)


def test_too_many_records_and_too_large_messages_are_refused() -> None:
    with pytest.raises(ClientHelloError):
        read_client_hello(record(b"") * 600)
    with pytest.raises(ClientHelloError):
        read_client_hello(record(b"\1\xff\xff\xff"))


@each_row(
    ("data", "may_be"),
    [
        (b"", True),
        (b"\x16", True),
        (b"\x16\x03\x01\x00\x05", True),
        (b"\x16\x03\x01\x00\x05\x01", True),
        (b"\x16\x03\x01\x00\x05\x02", True),
        (b"\x16\x02\x01\x00\x05\x02", False),
        (b"\x16\x02\x01\x00\x05\x01", True),
        (b"\x16\x03\x01\x00\x00", True),
        (b"\x16\x03\x01\x00\x00\x16\x0f\xff\x00\x05\x01", True),
        (b"\x16\x03\x01\x00\x00\x17", False),
        (b"\x16GET / HTTP/1.1", False),
        (b"\x16\0\xfb\5\x0eplay.example", False),
        (b"\x15", True),
        (b"\x15\x03\x01\x00\x02", True),
        (b"\x15\x03\x01\x00\x02\x01", True),
        (b"\x15\x03\x01\x00\x02\x02", False),
        (b"\x15\x03\x01\x00\x03", False),
        (b"\x15\x03\x01\x00\x02\x01\x5a\x16\x03\x01\x00\x05\x01", True),
        (b"\x16\x03\x01\x00\x00\x15\x03\x01\x00\x02\x01\x5aG", False),
        (b"\x14", True),
        (b"\x14\x03\x03\x00\x00", True),
        (b"\x16\x03\x01\x00\x00\x14\x03\x03\x00\x01\x01", True),
        (b"\x14\x00\x00", False),
        (b"G", False),
        (b"\x80\x2e\x01\x03\x01", False),
    ],
)
def test_what_may_be_one(data: bytes, may_be: bool) -> None:
    assert may_be_client_hello(data) == may_be


@each_row("kind", [b"\x14", b"\x15", b"\x17"])
def test_another_record_inside_is_refused(kind: bytes) -> None:
    data = record(HELLO[5:30]) + kind
    for more in (b"", b"\x03\x03\x00\x01\x01"):
        with pytest.raises(ClientHelloError):
            read_client_hello(data + more)


@given(st.binary(max_size=80), st.integers(0, len(HELLO)), st.integers(0, len(HELLO)))
@examples(500)
def test_any_bytes_raise_nothing_else(noise: bytes, start: int, end: int) -> None:
    for data in (noise, b"\x16" + noise, HELLO[:start] + noise + HELLO[end:]):
        may_be_client_hello(data)
        with suppress(ClientHelloError):
            read_client_hello(data)
        with suppress(ClientHelloError):
            parse_client_hello(data)


@given(st.binary(min_size=1, max_size=40), st.lists(st.integers(1, 60), max_size=8))
@examples(300)
def test_however_it_is_split_the_name_is_the_same(name: bytes, sizes: list[int]) -> None:
    message = hello(server_name(name))[5:]
    data, at = b"", 0
    for size in sizes:
        data += record(message[at : at + size])
        at += size
    data += record(message[at:])
    assert sni(data) == name
