from rows import each_row
from urlward.proxy.first_bytes import kind_of
from urlward.proxy.framing import LateRequest


@each_row(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET /",
        b"get /",
        b"\r\n\r\nGET /x\r\n",
        b"\x00\x0b GET\t/",
        b"GET\x0b/",
        b"GET http://a.test/",
        b"GET %2f",
        b"\x85GET /",
        b"\xa0\x1cGET /",
        b"GET \\a",
        # HTTP/0.9, to Python's servers.
        b"GET page.html\r\n",
        b"get\xa0page",
        b"GET \x80/../page",
        b"GET \x7f",
        b"HEAD\x85/",
        b"OPTIONS *",
        b"CONNECT a.test:80",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x01\x02 whatever HTTP/1.1",
        # What an origin passes over could go on for ever before a request.
        b"\r\n" * 2048,
        b"GET" + b" " * 4200,
        b"a" * 5000,
    ],
)
def test_what_an_origin_could_read_a_request_in(data: bytes) -> None:
    assert kind_of(data) == "http"


@each_row(
    "data",
    [
        b"",
        b"G",
        b"GET",
        b"GET ",
        b"HEAD ht",
        b"GET\xa0",
        b"\r\n",
        b" ",
        b"SSH-2.0-x",
        b"EHLO me",
        b"\x85",
        b"\xa0 G",
        b"\x1c\x1f",
    ],
)
def test_too_few_bytes(data: bytes) -> None:
    assert kind_of(data) == "unknown"


@each_row(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO me.test\r\n",
        b"\x01\x02\x03",
        b"\x80abc",
        b"\x00\x00\x01\xff",
    ],
)
def test_what_is_neither(data: bytes) -> None:
    assert kind_of(data) == "other"


SIZES = (1, 2, 5, 1 << 20)
"""Bytes that come at a time."""


def late(data: bytes, *, content: bool, size: int = 1 << 20) -> bool:
    watch = LateRequest(b"GET" if content else None)
    return any(watch.found(data[i : i + size]) for i in range(0, len(data), size))


@each_row(
    "data",
    [
        b"\xffGET / HTTP/1.1\r\n",
        b"\xffGET /",
        b"\x01\x02GET /",
        b"\0\r\n\xffGET\x0b\\a",
        b"\xffGET http://a.test/",
        b"\x01\x02\0\0 GET a HTTP/1.0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\x50GET /listed HTTP/1.1\r\n",
        b"SSH-2.0-x\r\nPOST x HTTP/1.1\r\n",
        # As uWSGI reads them.
        b"A\0B\tC /listed X\r\nHost: a.test\r\n",
        b"A\r\nB\xff /listed\r\nHost: a.test\r\n",
        b"\r\n /listed X\r\n",
        b"\0\1 http://a.test/ \r\n",
        # Servers in Python take lines of 64 KiB.
        b"\xe9" * 60_000 + b" /listed HTTP/1.1\r\n",
        b"\0\r\n" * 20_000 + b" /listed X\r\n",
    ],
)
def test_a_request_behind_other_bytes(data: bytes) -> None:
    for size in SIZES:
        assert late(data, content=False, size=size if len(data) < 1 << 12 else size * 1000), size


@each_row(
    "data",
    [
        b"\x03\0\0\x2a\x25\xe0\0\0\0\0\0Cookie: mstshash=user\r\n",  # RDP
        b"EHLO me.test\r\nMAIL FROM:<a@me.test>\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\0\0\5",
        b"\x80\x2e\1\0\2\0\x15 abc",
        b"\x80abc\n",
        b"NICK a\r\nUSER a 0 * :b c\r\n",  # IRC
        b"a1 LOGIN /a b\r\n",
        b"\0\1\0 /a b\rc\r\n",
        b"\xff" + b"\x01" * 5000 + b" HTTP/1.1",
    ],
)
def test_no_request_behind_other_bytes(data: bytes) -> None:
    assert not late(data, content=False)


@each_row(
    "data",
    [
        b"GET /listed HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\r\n" * 3000 + b"POST x HTTP/1.0\n",
        b"GET /listed\n",
        b"get http://a.test/",
        b"1a\r\nHEAD /a b HTTP/1.1\r\n",
        b"POST /" + b"a" * 8000 + b" HTTP/1.1\r\n",
        # As Python's servers read them.
        b"GET listed.html\r\n",
        b"HEAD a HTTP/1.01\r\n",
        b"POST\xa0a HTTP/01.1\r\n",
        b"GET\r /listed HTTP/1.1\r\n",
        b"POST \r a\rHTTP/1.1 \r\n",
        b"GET\rlisted\n",
        b"GET \x80/../listed\r\n",
        # As webfs does.
        b"GET \n\r/listed HTTP/1.1\r\n",
        # As Netty does.
        b"XGET /listed http/1.1\r\n",
        b"\x01\x7f\x9f\0GET /listed HTTP/1.1\r\n",
    ],
)
def test_a_request_in_content(data: bytes) -> None:
    for size in SIZES:
        assert late(data, content=True, size=size), size


@each_row("first", [False, True])
@each_row("blank", [b" ", b"\xa0", b"\xa0 ", b"\r", b"\r ", b" HTTP/1.1 ", b" HTTP/1.1\xa0", b" HTTP/1.1\r"])
def test_a_long_line_takes_no_longer_than_it_is_long(blank: bytes, first: bool) -> None:
    """Where a part of it could be taken by two repeats of the expression, this would take minutes."""
    assert not LateRequest(b"POST" if first else b"GET").found((b"A" + blank * (1 << 16))[: 1 << 16])
    assert not LateRequest(b"POST" if first else b"GET").found((b"A" + blank * (1 << 16))[: 1 << 15] + b"x\n")


@each_row("size", SIZES)
def test_only_the_beginning_counts_where_content_has_a_meaning(size: int) -> None:
    def found(data: bytes) -> bool:
        watch = LateRequest(b"POST")
        return any(watch.found(data[i : i + size]) for i in range(0, len(data), size))

    assert found(b"GET /listed HTTP/1.1\r\nX-Pad: ")
    assert found(b"\r\n\r\nPOST http://a.test/" + b"a" * 8000 + b" HTTP/1.1\n")
    assert found(b"get /listed\n")
    assert found(b"\x01\r\n\x9fGET /listed HTTP/1.1\r\n")
    assert found(b"xget /listed hTTp/1.1\r\n")
    assert found(b"GET\r/listed HTTP/1.1\r\n")
    assert not found(b"\x01\x02a=1\nGET /listed HTTP/1.1\r\n\r\n")
    # A name of what is traced, behind the lengths of gRPC and protobuf.
    assert not found(b"\0\0\0\0\x15\x0a\x13GET /users/{id}/all\x10\x01\n")
    assert not found(b"\x82\x01GET /users HTTP/1.1\x12\x03abc")
    assert not found(b"--batch\r\nContent-Type: application/http\r\n\r\nGET /listed HTTP/1.1\r\n\r\n")
    assert not found(b"a=1\nGET /listed HTTP/1.1\r\n\r\n")


@each_row(
    "data",
    [
        b'{"query": {"match": {"message": "GET /a HTTP/1.1"}}}',
        b'{"q":"GET /a HTTP/1.1"}\n',
        b"PREFIX foaf: <http://a.test/>\nSELECT ?a",
        b"<s:Envelope xmlns:s='http://a.test/'>\n</s:Envelope>\n",
        b"a=1&b=2",
        b"getter /x",
        b"read of http/1.1: RFC 9112\n",
        b"see http/2 and http/11\n",
        bytes(range(256)) * 300,
    ],
)
def test_no_request_in_content(data: bytes) -> None:
    assert not late(data, content=True)
    assert not late(data, content=True, size=1)


@each_row("size", SIZES)
@each_row(
    "data",
    [
        b"28\r\nOPTIONS /listed.html HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n0\r\n\r\n",
        b"28\r\nA\r\nB /listed.html X\r\nA: b\r\n c\r\n\r\n",
        b'25;a=" /listed.html X"\r\n\r\nabc',
        b'25;a=" /listed.html X"\r\nHost: a.test\r\n\r\n',
    ],
)
def test_a_request_of_which_the_chunks_of_content_are_a_part(data: bytes, size: int) -> None:
    """As uWSGI reads it, which takes no chunks at `--http11-socket`."""

    def found(*, chunked: bool) -> bool:
        watch = LateRequest(b"POST", chunked=chunked)
        return any(watch.found(data[i : i + size]) for i in range(0, len(data), size))

    assert found(chunked=True)
    assert not found(chunked=False)


@each_row(
    "data",
    [
        b'1c\r\n{"path": "/a b", "c": "/d"}\r\n0\r\n\r\n',
        b"80\r\n--batch\r\nContent-Type: application/http\r\n\r\nGET /listed HTTP/1.1\r\n\r\n",
        b"80\r\n--form\r\nContent-Disposition: form-data; name=a\r\n\r\n/a b\r\n",
        b"20\r\n#!/bin/sh\ncd /tmp/a && ls /x\n\r\n0\r\n\r\n",
        b"1000\r\n" + bytes(range(256)) * 16 + b"\r\n0\r\n\r\n",
    ],
)
def test_no_request_in_chunks(data: bytes) -> None:
    watch = LateRequest(b"POST", chunked=True)
    assert not any(watch.found(data[i : i + 7]) for i in range(0, len(data), 7))
