import pytest

from rows import each_row
from urlward.proxy.head import (
    HeadError,
    could_be_head,
    read_request_head,
    read_response_head,
    with_plain_framing,
    without_upgrade,
)


def head(*fields: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def test_a_request() -> None:
    found = read_request_head(head("HOST:a.test ", "X-A:", "x-a:\t b\t", line="GET /a?b#c HTTP/1.0"))
    assert (found.method, found.target, found.fields.minor) == (b"GET", b"/a?b#c", 0)
    assert [value.strip() for value in found.fields.hosts] == [b"a.test"]
    assert (found.fields.length, found.fields.keep_alive) == (0, False)
    assert (found.fields.expects, found.fields.websocket) == (False, False)
    assert found.get(b"x-a") == b""
    assert found.get(b"none") == b""


@each_row("method", ["GET", "PROPFIND", "QUERY", "get", "X-1!", "CONNECT", "SOURCE"])
@each_row("target", ["/", "*", "http://b.test/c", "/caf\xc3\xa9", '/"<>\\^`{|}', "a.test:80"])
def test_methods_and_targets_of_every_kind(method: str, target: str) -> None:
    found = read_request_head(head("Host: a.test", "Content-Length: 3", line=f"{method} {target} HTTP/1.1"))
    assert (found.method, found.target) == (method.encode(), target.encode("latin-1"))
    assert (found.fields.hosts, found.fields.length, found.fields.all) == (
        [b"a.test"],
        3,
        [(b"Host", b"a.test"), (b"Content-Length", b"3")],
    )


@each_row(
    "line",
    [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / ICE/1.0",
        "GET / HTTP/1.11",
        "GET /",
        "GET /a\x0bb HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET / HTTP/1.1\nX: y",
        "",
    ],
)
def test_lines_in_doubt(line: str) -> None:
    with pytest.raises(HeadError) as info:
        read_request_head(head("Host: a.test", line=line))
    assert info.value.status == 400


@each_row(
    "field",
    [
        "Host : a.test",
        "X y: z",
        ": z",
        "X\xe9: z",
        "\xff: z",
        "no colon",
        "X: a\r\n folded",
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\x00b",
        "X: \x01",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Content-Length: 1" + "0" * 20,
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:",
        "Transfer_Encoding : chunked",
        "Transfer_Encoding: chunked",
        "Content_Length: 5\r\nContent-Length: 50",
        "CONTENT_LENGTH: 5",
        "Content.Length: 5",
        "Content(Length: 5",
    ],
)
def test_fields_in_doubt(field: str) -> None:
    for method in ("GET", "POST", "UNKNOWN"):
        with pytest.raises(HeadError):
            read_request_head(head("Host: a.test", field, line=f"{method} / HTTP/1.1"))


@each_row("name", ["X[0]", "X(a)", "[Host]x", "a/b", '"x"', "Content_Lengths", "Content_Type"])
def test_names_that_are_no_tokens_mean_nothing(name: str) -> None:
    for method in ("GET", "UNKNOWN"):
        found = read_request_head(head("Host: a.test", f"{name}: b.test", line=f"{method} / HTTP/1.1"))
        assert (found.fields.hosts, found.fields.length) == ([b"a.test"], 0)


@each_row("name", ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade"])
@each_row("odd", ["{}\xa0", "\xa0{}", "({})", '"{}"', "{},", "{}\x85"])
def test_nor_are_they_taken_for_names_of_weight(name: str, odd: str) -> None:
    with pytest.raises(HeadError):
        read_request_head(head("Host: a.test", f"{odd.format(name)}: 5"))


def test_framing() -> None:
    assert read_request_head(head("Content-Length: 007")).fields.length == 7
    assert read_request_head(head("transfer-encoding: Chunked ")).fields.length is None
    with pytest.raises(HeadError):
        read_request_head(head("Transfer-Encoding: chunked", line="GET / HTTP/1.0"))


@each_row(
    ("minor", "field", "keep"),
    [
        (1, "X: y", True),
        (1, "Connection: Close", False),
        (1, "connection: te, close", False),
        (0, "X: y", False),
        (0, "Connection: keep-alive", True),
    ],
)
def test_keep_alive(minor: int, field: str, keep: bool) -> None:
    assert read_request_head(head(field, line=f"GET / HTTP/1.{minor}")).fields.keep_alive is keep


@each_row(
    ("fields", "websocket", "other"),
    [
        (["Upgrade: WebSocket", "Connection: Upgrade"], True, False),
        (["Upgrade: websocket"], True, False),
        (["Upgrade: h2c", "Connection: Upgrade"], False, True),
        (["Upgrade: websocket", "Upgrade: h2c"], False, True),
        (["Upgrade: websocket", "Upgrade: websocket"], False, True),
        (["Upgrade: websocket, h2c"], False, True),
        (["Expect: 100-continue"], False, False),
    ],
)
def test_upgrades(fields: list[str], websocket: bool, other: bool) -> None:
    found = read_request_head(head(*fields)).fields
    assert (found.websocket, found.other_upgrade) == (websocket, other)
    assert found.expects == fields[0].startswith("Expect")


def test_fields_that_were_read_before_are_so_for_another_line_alone() -> None:
    one, other = (
        read_request_head(head("Host: a.test", line=f"{line} HTTP/1.1")) for line in ("GET /a", "X b")
    )
    assert one.fields is other.fields
    assert (other.method, other.target, other.get(b"host")) == (b"X", b"b", b"a.test")
    for fields in (["Host: a.test", "Host: a.test"], ["Host: a.test", "Connection: close"], ["Host: a.tes"]):
        assert read_request_head(head(*fields)).fields.all != one.fields.all
    older = read_request_head(head("Host: a.test", line="GET / HTTP/1.0"))
    assert (older.fields.minor, older.fields.keep_alive, one.fields.keep_alive) == (0, False, True)
    long = "X: " + "y" * 4096
    first, second = (read_request_head(head(long)).fields for _ in range(2))
    assert first is not second, "what is long is not remembered"
    assert first.all == second.all


@pytest.mark.parametrize("field", ["a: b", "Cookie: " + "c" * 50])
def test_a_head_of_very_many_fields(field: str) -> None:
    """Which takes long to read, and which nobody sends who means well."""
    line, host = "GET / HTTP/1.1\r\n", "Host: a.test\r\n"
    most = f"{line}{host}{999 * f'{field}\r\n'}\r\n".encode()
    assert len(read_request_head(most).fields.all) == 1_000
    with pytest.raises(HeadError) as raised:
        read_request_head(f"{line}{host}{1_000 * f'{field}\r\n'}\r\n".encode())
    assert raised.value.status == 431
    long = f"{line}{host}A: {'b' * 60_000}\r\n\r\n".encode()
    assert len(read_request_head(long).fields.all) == 2


def test_an_upgrade_is_taken_out() -> None:
    whole = head("A: b", "UPGRADE: h2c, x", "Connection: Upgrade", "http2-settings:", "upgrade : y", "C: d")
    assert without_upgrade(whole) == head("A: b", "Connection: Upgrade", "C: d")


@each_row(
    ("fields", "length"),
    [
        ([], -1),
        (["Content-Length: 5"], 5),
        (["Content-Length: 5", "Content-Length: 5"], 5),
        (["Content-Length: 5, 5"], 5),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], None),
        (["Content-Length: 5", "Transfer-Encoding: identity"], 5),
        (["X: a", " folded", "Content-Length: 5"], 5),
        (["Bad field: x", "no colon", "X: \x01", "Content-Length : 5"], 5),
        (["Content-Length: 5", "Content-Length: 6"], -2),
        (["Content-Length: x"], -1),
        (["Content-Length:"], -1),
        (["Content-Length: -1"], -1),
        (["Transfer-Encoding: chunked"], None),
        (["Transfer-Encoding: gzip, chunked"], None),
        (["Transfer-Encoding: chunked, x y"], None),
        (["Transfer-Encoding: x chunked"], None),
        (["X: y\rTransfer-Encoding: chunked"], None),
        (["Transfer-Encoding: gzip"], -1),
    ],
)
def test_the_length_of_a_response(fields: list[str], length: int | None) -> None:
    data = head(*fields, line="HTTP/1.1 200 OK")
    if length == -2:
        with pytest.raises(ValueError):
            read_response_head(data, to_head=False)
        return
    assert read_response_head(data, to_head=False).length == length
    assert read_response_head(data, to_head=True).length == 0


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\nContent-Length: 5\n\n", b"HTTP/1.1 200\r\nContent-Length: 5\n\r\n"]
)
def test_line_breaks_of_every_kind(data: bytes) -> None:
    found = read_response_head(data, to_head=False)
    assert (found.status, found.length) == (200, 5)


@each_row("data", [b"ICY 200 OK\r\n\r\n", b"\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n"])
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_response_head(data, to_head=False)


@each_row("status", [100, 103, 101, 204, 304])
def test_statuses_without_a_body(status: int) -> None:
    found = read_response_head(head("X: y", line=f"HTTP/1.1 {status} X"), to_head=False)
    assert (found.status, found.length) == (status, 0)


def test_what_may_become_a_head() -> None:
    for data in (b"", b"G", b"GET / HT", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX", bytearray(b"x y")):
        assert could_be_head(data)
    for data in (b"GET /\r\n", b"hello\n", b"GET / HTTP/2.0\r\n", b"\x00\n", b"GET  / HTTP/1.1\n"):
        assert not could_be_head(data)


@each_row(
    ("field", "plain"),
    [
        ("Transfer-Encoding: chunked", ""),
        ("transfer-encoding:chunked", ""),
        ("Transfer-Encoding: Chunked ", "Transfer-Encoding: chunked"),
        ("transfer-encoding:\tchunked", "transfer-encoding: chunked"),
        ("content-length: 15", ""),
        ("Content-Length: 007", "Content-Length: 7"),
        ("content-length: 007", "content-length: 7"),
        ("Content-Length:  7", "Content-Length: 7"),
        ("Content-Length: 0", ""),
        ("X: Content-Length:  7", ""),
    ],
)
def test_what_says_where_a_body_ends_goes_out_in_one_spelling(field: str, plain: str) -> None:
    """To Starman `chunked` with a blank behind it is not chunked."""
    for method in ("POST", "UNKNOWN"):
        raw = head("Host: a.test", field, "X: y", line=f"{method} / HTTP/1.1")
        expected = head("Host: a.test", plain or field, "X: y", line=f"{method} / HTTP/1.1")
        assert with_plain_framing(read_request_head(raw).fields, raw) == expected
