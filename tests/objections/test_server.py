"""The place where objections are taken, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httputil import HTTPHeaders

from conftest import free_port
from urlward.config import ObjectionsTable, PageTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections import objections
from urlward.objections.objections import FILE, Objection, message_of, read_objections
from urlward.objections.server import ObjectionDesk, serve_objections, take_objections
from urlward.records import bounded_server
from urlward.state.folder import local_key

if TYPE_CHECKING:
    from tornado.httpserver import HTTPServer

REFERENCE = "7Q4M-2XKD-93FH"
FORM = "application/x-www-form-urlencoded"


class Place:
    """The server of a test, and a client of it."""

    def __init__(self, state: Path, **limits: Any) -> None:
        self.state = state
        self.key: Key = local_key(state)
        self.port = free_port()
        self.now = 0.0
        self.taken: list[Objection] = []
        table = ObjectionsTable(
            url=f"http://127.0.0.1:{self.port}/", listen=f"127.0.0.1:{self.port}", **limits
        )
        desk = ObjectionDesk(
            table,
            PageTable(),
            state,
            self.key,
            conceal=lambda address, _: f"<{address}>",
            taken=self.taken.append,
            clock=lambda: 1_800_000_000.0,
            timer=lambda: self.now,
        )
        server = serve_objections(desk, table)
        assert server is not None
        self.server: HTTPServer = server
        self.client = AsyncHTTPClient(force_instance=True)

    async def ask(self, path: str = "/", **more: Any) -> HTTPResponse:
        return await self.client.fetch(
            f"http://127.0.0.1:{self.port}{path}", raise_error=False, follow_redirects=False, **more
        )

    async def post(
        self, reference: str = REFERENCE, message: str = "It is a mistake", **headers: str
    ) -> HTTPResponse:
        body = urlencode({"reference": reference, "message": message})
        given = HTTPHeaders({"Content-Type": FORM, "Origin": "null"})
        given.update({name.replace("_", "-"): value for name, value in headers.items()})
        return await self.ask(method="POST", headers=given, body=body)


@pytest.fixture
async def places(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Place] = []

    def make(**limits: Any) -> Place:
        made.append(Place(tmp_path, **limits))
        return made[-1]

    yield make
    for place in made:
        place.client.close()
        place.server.stop()
        await place.server.close_all_connections()


async def test_the_form_with_its_reference(places: Any) -> None:
    response = await places().ask(f"/?reference={REFERENCE.lower()}", headers={"Accept-Language": "es"})
    assert response.code == 200
    assert f'value="{REFERENCE}"' in response.body.decode()
    assert response.headers["Content-Language"] == "es"
    assert response.headers["Cache-Control"] == "no-store"
    assert "form-action 'self'" in response.headers["Content-Security-Policy"]
    assert "Server" not in response.headers
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    "query", ["", "?reference=", "?reference=%22%3E%3Cscript%3E", "?reference=" + "A" * 5000]
)
async def test_what_is_no_reference_is_not_shown(places: Any, query: str) -> None:
    response = await places().ask(f"/{query}")
    assert 'name="reference" value=""' in response.body.decode()
    assert b"<script" not in response.body


async def test_an_objection_is_kept_and_told_of(places: Any) -> None:
    place = places()
    response = await place.post(message="Line one\r\nLine two é")
    assert response.code == 200
    assert REFERENCE in response.body.decode()
    (kept,) = read_objections(place.state)
    assert place.taken == [kept]
    assert (kept.reference, kept.client) == (REFERENCE, "<127.0.0.1>")
    assert message_of(kept, place.key) == "Line one\nLine two é"


async def test_an_answer_does_not_tell_whether_there_is_such_a_reference(places: Any) -> None:
    place = places(per_hour=100)
    bodies = set()
    for reference in (REFERENCE, "0000-0000-0000", REFERENCE):
        response = await place.post(reference)
        bodies.add((response.code, response.body.replace(reference.encode(), b"")))
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [("", "a"), ("nonsense", "a"), (REFERENCE, ""), (REFERENCE, " "), (REFERENCE, "a" * 21)],
)
async def test_what_is_faulty_is_not_kept(places: Any, reference: str, message: str) -> None:
    place = places(max_length=20)
    response = await place.post(reference, message)
    assert response.code == 400
    assert read_objections(place.state) == []
    assert not place.taken


async def test_the_longest_message_of_the_widest_characters_fits(places: Any) -> None:
    place = places(max_length=500)
    assert (await place.post(message="\U0001f600" * 500)).code == 200


async def test_a_body_that_is_too_large_is_not_read(places: Any) -> None:
    place = places(max_length=20)
    response = await place.post(message="a" * 5000)
    assert response.code == 400
    assert b"<html" not in response.body
    assert not place.taken


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/json"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Type": "text/plain"},
        {"Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Mode": "cors"},
    ],
)
async def test_what_no_form_sends_is_not_taken(places: Any, headers: dict[str, str]) -> None:
    place = places()
    assert (await place.post(**headers)).code == 400
    assert not place.taken


async def test_a_form_of_any_origin_is_taken(places: Any) -> None:
    place = places()
    headers = {
        "Origin": "https://blocked.example",
        "Sec_Fetch_Mode": "navigate",
        "Sec_Fetch_Site": "cross-site",
    }
    assert (await place.post(**headers)).code == 200
    assert len(place.taken) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_get_a_short_answer(places: Any, method: str) -> None:
    response = await places().ask(method=method, allow_nonstandard_methods=True)
    assert (response.code, response.body) == (405, b"405 Method Not Allowed\n")


async def test_a_client_that_writes_too_often_is_asked_to_wait(places: Any) -> None:
    place = places(per_hour=2)
    assert [(await place.post()).code for _ in range(4)] == [200, 200, 429, 429]
    response = await place.post()
    assert response.headers["Retry-After"] == "1800"
    assert len(read_objections(place.state)) == 2
    place.now = 1800.0
    assert (await place.post()).code == 200


async def test_faulty_ones_do_not_count(places: Any) -> None:
    place = places(per_hour=1)
    assert [(await place.post("nonsense")).code for _ in range(3)] == [400] * 3
    assert (await place.post()).code == 200


async def test_all_clients_together_are_limited(places: Any) -> None:
    place = places(per_hour=1, per_hour_all=2, proxies=("127.0.0.1",))
    codes = [(await place.post(X_Forwarded_For=f"192.0.2.{n}")).code for n in range(4)]
    assert codes == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 198.51.100.1", "192.0.2.7"),  # two proxies of ours
        ("203.0.113.9, nonsense", "127.0.0.1"),
        ("nonsense, 198.51.100.1", "198.51.100.1"),
        ("2001:db8::7", "2001:db8::7"),
        ("192.0.2.7:8080", "192.0.2.7"),
        ("192.0.2.7, [2001:db8::7]:8080", "2001:db8::7"),
        ("", "127.0.0.1"),
    ],
)
async def test_a_proxy_is_believed_and_what_its_client_says_is_not(
    places: Any, said: str, client: str
) -> None:
    place = places(proxies=("127.0.0.1", "198.51.100.1"))
    await place.post(X_Forwarded_For=said)
    assert place.taken[0].client == f"<{client}>"


async def test_a_neighbour_of_a_proxy_is_not_believed(places: Any) -> None:
    place = places(proxies=("127.0.0.2", "2001:db8::1"))
    await place.post(X_Forwarded_For="192.0.2.7")
    assert place.taken[0].client == "<127.0.0.1>"


async def test_nobody_else_is_believed(places: Any) -> None:
    place = places()
    await place.post(X_Forwarded_For="192.0.2.7")
    assert place.taken[0].client == "<127.0.0.1>"


async def test_where_as_many_as_are_kept_are_open_it_says_so(
    places: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(objections, "MAX_KEPT", 1)
    place = places()
    assert (await place.post()).code == 200
    response = await place.post()
    assert (response.code, response.headers["Retry-After"]) == (503, "600")
    assert "1 objections are open" in caplog.text
    assert REFERENCE not in caplog.text


async def test_a_damaged_record_is_set_aside_and_said_in_the_log(
    places: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = places()
    (place.state / FILE).write_text("damaged")
    assert (await place.post()).code == 200
    assert "set aside" in caplog.text


async def test_connections_are_bounded(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "MOST", 2)
    place = places()
    held = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(3)]
    try:
        async with asyncio.timeout(60):
            # Without a request, of which it would depend on the moment what its sender sees.
            held[0].setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(held[0], 1) == b""
        # Who comes now is served all the same.
        assert (await place.ask()).code == 200
    finally:
        for connection in held:
            connection.close()


async def test_nothing_is_served_where_nothing_is_configured(tmp_path: Path) -> None:
    table = ObjectionsTable(url="http://gateway.example/")
    desk = ObjectionDesk(table, PageTable(), tmp_path, Key(bytes(32)), conceal=lambda a, _: a, taken=print)
    assert serve_objections(desk, table) is None


async def test_an_address_that_is_taken(places: Any, tmp_path: Path) -> None:
    table = ObjectionsTable(url="http://gateway.example/", listen=f"127.0.0.1:{places().port}")
    desk = ObjectionDesk(table, PageTable(), tmp_path, Key(bytes(32)), conceal=lambda a, _: a, taken=print)
    with pytest.raises(UrlwardError, match=r"^objections\.listen: 127\.0\.0\.1:\d+: Addr"):
        serve_objections(desk, table)


async def test_the_task_takes_them_until_it_is_cancelled(tmp_path: Path) -> None:
    port, key = free_port(), local_key(tmp_path)
    url = f"http://127.0.0.1:{port}/"
    table = ObjectionsTable(url=url, listen=f"127.0.0.1:{port}")
    desk = ObjectionDesk(table, PageTable(), tmp_path, key, conceal=lambda a, _: a, taken=print)
    task = asyncio.create_task(take_objections(desk, table))
    client = AsyncHTTPClient(force_instance=True)
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.02)
            with suppress(OSError):
                assert (await client.fetch(url)).code == 200
                break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OSError):
        await client.fetch(url)
    client.close()
