from urlward.proxy.block_page import on_wire, plain


def test_a_line_of_text() -> None:
    answer = plain(502, "no ans\u00fcer")
    assert (answer.status, answer.reason, answer.body) == (502, "Bad Gateway", b"no ans?er\n")
    head = plain(502, "no answer", head=True)
    assert head.body == b""
    assert dict(head.headers)[b"Content-Length"] == b"10"


def test_on_the_wire() -> None:
    data = on_wire(plain(400, "no"), keep_alive=False)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n")
    assert b"\r\nDate: " in head
    assert head.endswith(b"\r\nConnection: close")
    assert body == b"no\n"
    assert b"\r\nConnection: keep-alive\r\n" in on_wire(plain(400, "no"), keep_alive=True)
