import pytest

from urlward.proxy.kind import kind_of


@pytest.mark.parametrize(
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
        b"GET \\a",
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


@pytest.mark.parametrize(
    "data", [b"", b"G", b"GET", b"GET ", b"GET ht", b"\r\n", b" ", b"SSH-2.0-x", b"EHLO me"]
)
def test_too_few_bytes(data: bytes) -> None:
    assert kind_of(data) == "unknown"


@pytest.mark.parametrize(
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
