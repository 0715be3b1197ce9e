"""Known files through a front, with real sockets: over every protocol none arrives whole, and others do."""

import asyncio
import gc
import gzip
import hashlib
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache, partial
from random import Random
from typing import Any, NamedTuple

import brotli
import pytest
import tomli_w
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamReset

from conftest import in_turns, until
from proxy.rig import GET, LONG, Rig, Serve, reset
from proxy.test_guard_files import Learned
from urlward.compression import _Brotli
from urlward.config import FilesTable
from urlward.engine.matcher import Matcher
from urlward.files.body import Inspection
from urlward.files.inspection import Hear, PictureFound
from urlward.proxy import known_files
from urlward.proxy.guard import Guard
from urlward.proxy.http2 import Lane
from urlward.proxy.known_files import KnownFiles
from urlward.proxy.session import Session
from urlward.proxy.threads import Threads
from urlward.records.worker import KnownFile

KNOWN = b"\xff\xd8\xff" + Random(1).randbytes(300_000)
OTHER = KNOWN[:-1] + b"!"
SMALL = KNOWN[:300]
ZERO = b"\0" * (14 << 20)  # as gzip, less than what waits at most
FILES = {"/known": KNOWN, "/other": OTHER, "/small": SMALL, "/zero": ZERO}
PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lru_cache(partial(gzip.compress, mtime=0)),
    "br": lru_cache(partial(brotli.compress, quality=1)),
}
LISTED = [
    "http://paged.example/listed",
    *(f"sha256:{hashlib.sha256(each).hexdigest()} id=F-{len(each)}" for each in (KNOWN, SMALL)),
]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An origin: a query says in which way."""
    with suppress(asyncio.IncompleteReadError, OSError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            path, _, way = head.split(b" ")[1].decode().partition("?")
            content, more = FILES[path], "Content-Type: image/jpeg\r\n"
            if way in PACKED:
                content, more = PACKED[way](content), f"{more}Content-Encoding: {way}\r\n"
            if way == "chunked":
                writer.write(f"HTTP/1.1 200 OK\r\n{more}Transfer-Encoding: chunked\r\n\r\n".encode())
                for at in range(0, len(content), 5000):
                    chunk = content[at : at + 5000]
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                writer.write(b"0\r\n\r\n")
            elif way in ("unbounded", "cut-off", "icy"):
                line = "ICY 200 OK" if way == "icy" else "HTTP/1.1 200 OK"
                writer.write(f"{line}\r\n{more}\r\n".encode() + content)
                if way == "cut-off":  # without close_notify, as many servers do
                    while writer.transport.get_write_buffer_size():
                        await asyncio.sleep(0.005)
                    writer.transport.abort()
                break
            elif way == "begun":
                writer.write(f"HTTP/1.1 200 OK\r\n{more}Transfer-Encoding: chunked\r\n\r\n5\r\n".encode())
                writer.write(content[:5] + b"\r\n")
            elif way == "half":
                writer.write(f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(content)}\r\n\r\n".encode())
                writer.write(content[: len(content) // 2])
            else:
                writer.write(
                    f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(content)}\r\n\r\n".encode() + content
                )
            await writer.drain()
    writer.close()


async def serve_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same over HTTP/2."""
    one = H2Connection(H2Configuration(client_side=False))
    one.initiate_connection()
    writer.write(one.data_to_send())
    waiting: dict[int, bytes] = {}
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            for event in one.receive_data(data):
                if isinstance(event, RequestReceived):
                    path, _, way = dict(event.headers)[b":path"].decode().partition("?")
                    fields = [(":status", "200"), ("content-type", "image/jpeg")]
                    waiting[event.stream_id] = FILES[path]
                    if way in PACKED:
                        waiting[event.stream_id] = PACKED[way](FILES[path])
                        fields.append(("content-encoding", way))
                    one.send_headers(event.stream_id, fields)
                elif isinstance(event, StreamReset):
                    waiting.pop(event.stream_id, None)
            for stream, rest in list(waiting.items()):
                while rest and (room := min(one.local_flow_control_window(stream), 1 << 14, len(rest))):
                    one.send_data(stream, rest[:room])
                    rest = rest[room:]
                waiting[stream] = rest
                if not rest:
                    one.end_stream(stream)
                    del waiting[stream]
            writer.write(one.data_to_send())
    one._frame_dispatch_table.clear()
    writer.close()


class Got(NamedTuple):
    """What curl has got: its exit code, the status and the body."""

    code: int
    status: int
    body: bytes


async def curl(rig: Rig, path: str, way: str) -> Got:
    """Ask for a file, through the filter."""
    arguments: Sequence[str] = {
        "reverse": (f"http://127.0.0.1:{rig.port}{path}",),
        "regular": ("-x", f"http://127.0.0.1:{rig.port}", f"http://plain.example:{rig.origin_port}{path}"),
        "tls": ("--http1.1", "--connect-to", f"::127.0.0.1:{rig.port}", f"https://paged.example{path}"),
        "h2": ("--http2", "--connect-to", f"::127.0.0.1:{rig.port}", f"https://paged.example{path}"),
    }[way.removesuffix(" to h2")]
    process = await asyncio.create_subprocess_exec(
        "curl", "-sk", "-m", str(LONG), "-w", "%{stderr}%{http_code}", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    body, status = await process.communicate()
    assert process.returncode is not None
    return Got(process.returncode, int(status), body)


WAYS = {
    "reverse": "reverse:http://127.0.0.1",
    "regular": "regular",
    "tls": "transparent",
    "h2": "transparent",
    "h2 to h2": "transparent",
}

RESET, PARTIAL, STREAM = 56, 18, 92
"""Exit codes of curl where a connection is reset, a body ends too early, a stream is reset."""


async def looking(rig: Rig, way: str, *lines: str, serve: Serve = serve, **files: Any) -> None:
    """A front that looks for known files."""
    config = rig.authority.parent / f"{id(rig)}.toml"
    config.write_text(tomli_w.dumps({"files": files}))
    rig.tctx.options.update(urlward_http2=way.startswith("h2"), urlward_config=str(config))
    to_http2 = way.endswith("to h2")
    await rig.start(
        serve_http2 if to_http2 else serve, WAYS[way], tls=way[:2] in ("tl", "h2"), http2=to_http2
    )
    rig.lead()
    await rig.relist(*(lines or LISTED))


@pytest.mark.parametrize("way", WAYS)
async def test_a_known_file_does_not_arrive(rig: Rig, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "urlward")
    await looking(rig, way)
    for more in ["", "?gzip"] if way == "h2 to h2" else ["", "?chunked", "?gzip", "?unbounded"]:
        got = await curl(rig, f"/known{more}", way)
        assert got.code in (RESET, PARTIAL, STREAM), more
        assert len(got.body) < len(KNOWN)
        got = await curl(rig, f"/other{more}", way)
        assert (got.code, got.status) == (0, 200)
        assert (gzip.decompress(got.body) if more == "?gzip" else got.body) == OTHER
        page = await curl(rig, f"/small{more}", way)
        assert (page.code, page.status) == (0, 451), more
        assert SMALL not in page.body
    assert "file client=" in caplog.text
    assert "entry=F-" in caplog.text
    await rig.settled()


@pytest.mark.parametrize("way", ["h2", "h2 to h2"])
async def test_each_of_one_session_s_responses_is_looked_into(
    rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams after each other have one session, until one of them is cut."""
    sessions: list[Session] = []
    exchange = Session.exchange

    def noted(self: Session, lane: Lane) -> None:
        sessions.append(self)
        exchange(self, lane)

    monkeypatch.setattr(Session, "exchange", noted)
    await looking(rig, way)
    rig.addon.guard.learner = learner = Learned()
    paths = ("/other?gzip", "/other", "/other?gzip", "/small", "/other", "/known?gzip", "/other", "/small")
    process = await asyncio.create_subprocess_exec(
        "curl", "-sk", "--http2", "-m", str(LONG), "-w", "%{stderr}%{http_code}/%{size_download} ",
        "--connect-to", f"::127.0.0.1:{rig.port}", *(f"https://paged.example{path}" for path in paths),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    found = dict[str, list[tuple[int, int]]]()
    for path, one in zip(paths, said.split(), strict=True):
        status, _, size = one.partition(b"/")
        found.setdefault(path, []).append((int(status), int(size)))
    assert found["/other"] == [(200, len(OTHER))] * 3
    assert len(set(found["/other?gzip"])) == 1
    assert found["/known?gzip"][0][1] < len(PACKED["gzip"](KNOWN))
    assert [status for status, _ in found["/small"]] == [451, 451]
    urls = [match.url.partition("?")[0].rpartition("/")[2] for match in learner.matches]
    assert urls == ["small", "known", "small"]
    assert len(sessions) < len(paths)
    await rig.settled()


@pytest.mark.parametrize("mode", ["reverse", "regular"])
async def test_one_behind_a_head_that_only_browsers_read(rig: Rig, mode: str) -> None:
    await looking(rig, mode)
    target = b"" if mode == "reverse" else b"http://plain.example:%d" % rig.origin_port
    for path, content in ((b"/known", KNOWN), (b"/small", SMALL), (b"/other", OTHER)):
        head = b"GET %b%b?icy HTTP/1.1\r\nHost: plain.example:%d\r\n\r\n" % (target, path, rig.origin_port)
        reader, writer = await rig.connect()
        writer.write(head)
        got = b""
        with suppress(ConnectionResetError):
            while piece := await asyncio.wait_for(reader.read(1 << 16), LONG):
                got += piece
        writer.close()
        assert got.endswith(content) is (path == b"/other")
    await rig.settled()


@pytest.mark.parametrize("folders", [False, True])
async def test_a_stream_s_folder_is_learned_where_that_is_wanted(
    rig: Rig, folders: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host may keep everybody's files in it."""
    segment = b"\0\0\0\x18styp" + bytes(500)
    monkeypatch.setitem(FILES, "/everybodys/one.m4s", segment)
    listed = f"sha256:{hashlib.sha256(segment).hexdigest()}"
    await looking(rig, "reverse", LISTED[0], listed, learn_folders=folders)
    rig.addon.guard.learner = learner = Learned()
    assert (await curl(rig, "/everybodys/one.m4s", "reverse")).status == 451
    assert [match.folder for match in learner.matches] == [folders]
    await rig.settled()


async def test_a_client_of_the_explicit_proxy_chooses_no_host(rig: Rig) -> None:
    """It is asked for one host, by another's name, both of which may have one address."""
    await looking(rig, "regular")
    rig.addon.guard.learner = learner = Learned()
    for host, learned in (
        ("other.example", []),
        (f"plain.example:{rig.origin_port}", ["plain.example/small"]),
    ):
        target = f"http://plain.example:{rig.origin_port}/small"
        answer = await rig.ask(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), end=False)
        assert answer.startswith(b"HTTP/1.1 451 ")
        assert [match.url for match in learner.matches] == learned
    await rig.settled()


@pytest.mark.parametrize("way", ["tls", "h2"])
async def test_one_whose_end_is_an_end_inside_tls(rig: Rig, way: str) -> None:
    """Clients bear that an origin does not say so, and get all there is; of what is known they do not."""
    await looking(rig, way)
    got = await curl(rig, "/other?cut-off", way)
    assert (got.code, got.body) == (RESET if way == "tls" else 0, OTHER)
    got = await curl(rig, "/known?cut-off", way)
    assert got.code in (RESET, STREAM)
    assert len(got.body) < len(KNOWN)
    await rig.settled()


@pytest.mark.parametrize("way", ["reverse", "regular", "h2 to h2"])
async def test_a_body_that_grows_is_looked_at_in_turns(
    rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[Session] = []
    later = Session.inspect_later

    def noted(self: Session) -> None:
        turns.append(self)
        later(self)

    monkeypatch.setattr(Session, "inspect_later", noted)
    monkeypatch.setattr(Session, "turn_is_over", lambda _: True)
    await looking(rig, way, LISTED[0], f"sha256:{hashlib.sha256(ZERO).hexdigest()}")
    got = await curl(rig, "/zero?gzip", way)
    assert (got.code, got.status) == (0, 451)
    assert len(turns) >= len(ZERO) >> 16
    got = await curl(rig, "/other?gzip", way)
    assert gzip.decompress(got.body) == OTHER
    await rig.settled()


@pytest.mark.parametrize("way", in_turns(*WAYS))
async def test_what_takes_long_is_undone_in_a_thread(
    rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes of Brotli can keep whoever undoes them for a tenth of a second."""
    decoder, where = _Brotli.decompress, list[bool]()

    def noted(self: _Brotli, data: bytes, most: int) -> bytes:
        where.append(threading.current_thread() is threading.main_thread())
        return decoder(self, data, most)

    monkeypatch.setattr(_Brotli, "decompress", noted)
    await looking(rig, way, *LISTED, f"sha256:{hashlib.sha256(ZERO).hexdigest()}")
    for path, known in (("/zero", True), ("/other", False), ("/known", True), ("/other", False)):
        got = await curl(rig, f"{path}?br", way)
        if not known:
            assert (got.code, got.status, brotli.decompress(got.body)) == (0, 200, OTHER)
        elif path == "/zero":
            assert (got.code, got.status) == (0, 451), "nothing has left yet"
        else:
            assert got.code in (RESET, PARTIAL, STREAM)
            assert len(got.body) < len(KNOWN)
    assert len(where) > 50
    assert not any(where)
    await rig.settled()


async def test_a_client_leaves_what_is_undone_in_a_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, begun, go_on = _Brotli.decompress, threading.Event(), threading.Event()

    def slow(self: _Brotli, data: bytes, most: int) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        begun.set()
        go_on.wait(LONG)
        return decoder(self, data, most)

    monkeypatch.setattr(_Brotli, "decompress", slow)
    await looking(rig, "reverse")
    _, writer = await rig.connect()
    writer.write(GET % b"known?br")
    await until(begun.is_set)
    assert (await curl(rig, "/other", "reverse")).body == OTHER, "others are served meanwhile"
    reset(writer)
    await until(lambda: not list(rig.addon.live))
    go_on.set()
    await rig.settled()


async def test_the_loop_waits_for_its_thread_where_that_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for long, and not at all behind what takes long: that keeps its own network waiting alone."""
    threads, go_on, told = Threads(known_files._undo, "inflate", threads=4), threading.Event(), list[str]()

    def slow() -> bytes:
        go_on.wait(LONG)
        return b"slow"

    def begin(work: Callable[[], bytes], name: str, seconds: float, network: str = "a") -> Future[bytes]:
        monkeypatch.setattr(known_files, "AT_ONCE", seconds)
        return known_files.begin(threads, network, work, partial(told.append, name))

    try:
        for _ in range(3):
            assert begin(lambda: b"at once", "at once", LONG).done()
        late = begin(slow, "late", 0.001)
        left = begin(lambda: b"left", "left", LONG)
        behind = begin(lambda: b"behind", "behind", LONG)
        assert left.cancel()
        begin(lambda: b"last", "last", LONG)
        assert [late.done(), behind.done()] == [False, False]
        assert begin(lambda: b"another's", "another's", LONG, "b").result() == b"another's"
        go_on.set()
        await until(lambda: "last" in told)
        assert (late.result(), behind.result()) == (b"slow", b"behind")
        assert told == ["left", "late", "behind", "last"], "nobody has to be told of what was there at once"
        assert begin(lambda: b"at once", "at once", LONG).done()
    finally:
        go_on.set()


@pytest.mark.parametrize("way", in_turns("reverse", "h2"))
async def test_bodies_that_are_too_large_take_no_room_from_others(rig: Rig, way: str) -> None:
    """40 that unfold to more than is hashed, and one that is known: no collector runs in a worker."""
    await looking(rig, way, max_size="1MB")
    gc.disable()
    try:
        for _ in range(40):
            assert (await curl(rig, "/zero?br", way)).status == 200
            assert (await curl(rig, "/small?br", way)).status == 451
    finally:
        gc.enable()
    await rig.settled()


@pytest.mark.parametrize("way", ["reverse", "regular"])
async def test_a_connection_serves_on(rig: Rig, way: str) -> None:
    await looking(rig, way)
    reader, writer = await rig.connect()
    target = b"" if way == "reverse" else b"http://plain.example:%d" % rig.origin_port
    for path in (b"/other", b"/other?chunked", b"/other"):
        writer.write(b"GET %b%b HTTP/1.1\r\nHost: plain.example\r\n\r\n" % (target, path))
        async with asyncio.timeout(LONG):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            if b"chunked" in path:
                body = b""
                while not body.endswith(b"\r\n0\r\n\r\n"):
                    body += await reader.readline()
                assert len(body) > len(OTHER)
            else:
                assert await reader.readexactly(len(OTHER)) == OTHER
    writer.close()
    await rig.settled()


@pytest.mark.parametrize("size", [1_100_000, 3 << 19])
async def test_a_connection_serves_on_behind_what_took_two_looks(
    rig: Rig, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "/zero", bytes(size))
    await looking(rig, "reverse")
    reader, writer = await rig.connect()
    compressed = gzip.compress(bytes(size), mtime=0)
    for _ in range(2):
        writer.write(GET % b"zero?gzip")
        async with asyncio.timeout(LONG):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(len(compressed)) == compressed
    writer.close()
    await rig.settled()


async def test_what_an_origin_says_now_and_then_arrives(rig: Rig) -> None:
    await looking(rig, "reverse")
    reader, writer = await rig.connect()
    writer.write(GET % b"other?begun")
    async with asyncio.timeout(LONG):
        await reader.readuntil(b"\r\n\r\n5\r\n")
        assert await reader.readexactly(7) == OTHER[:5] + b"\r\n"
    reset(writer)
    await rig.settled()


@pytest.mark.parametrize("how", ["alert", "monitor", "excused", "listed no more"])
async def test_one_that_passes(rig: Rig, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    known = Guard.known_file

    def noted(self: Guard, verdict: Any, file: KnownFile, *more: Any) -> Any:
        told.append(f"{verdict.action} {file.algorithm} {file.media} {file.size}")
        return known(self, verdict, file, *more)

    monkeypatch.setattr(Guard, "known_file", noted)
    lines = [*LISTED, *(f"@@{line.partition(' ')[0]}" for line in LISTED[1:])] if how == "excused" else LISTED
    await looking(rig, "reverse", *lines, action="alert" if how == "alert" else "cut")
    if how == "monitor":
        rig.tctx.options.update(urlward_monitor=True)
    elif how == "listed no more":
        await rig.relist("http://paged.example/listed", f"sha256:{'0' * 64}")
    assert await curl(rig, "/known", "reverse") == (0, 200, KNOWN)
    assert told == ([f"block sha256 image/jpeg {len(KNOWN)}"] if how in ("alert", "monitor") else [])
    await rig.settled()


@pytest.mark.parametrize("on_error", ["block", "pass"])
@pytest.mark.parametrize("where", ["file_algorithms", "check_file"])
async def test_a_fault_of_ours(
    rig: Rig, on_error: str, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("quotes a secret")

    await looking(rig, "reverse")
    rig.tctx.options.update(urlward_on_error=on_error)
    matcher = rig.addon.keeper.matcher  # type: ignore[union-attr]
    if where == "check_file":
        monkeypatch.setattr(Matcher, where, fails)
    else:
        monkeypatch.delattr(matcher, where)
    got = await curl(rig, "/other", "reverse")
    if on_error == "pass":
        assert got == (0, 200, OTHER)
    else:
        assert got.code
        assert len(got.body) < len(OTHER)
    assert " error client=" in caplog.text
    assert "secret" not in caplog.text
    await rig.settled()


@pytest.mark.parametrize("how", ["no table", "no digests", "no exact ones"])
async def test_nothing_is_looked_at(rig: Rig, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Inspection, "__init__")  # whatever is made fails
    if how == "no table":
        await rig.start(serve)
        await rig.relist(*LISTED)
        assert rig.addon.files is None
    else:
        lines = LISTED if how == "no exact ones" else LISTED[:1]
        await looking(rig, "reverse", *lines, exact=how != "no exact ones")
    assert await curl(rig, "/known", "reverse") == (0, 200, KNOWN)
    await rig.settled()


class Copy:
    waited: Callable[[], None]

    def __init__(self, hear: Hear, answers: list[PictureFound | None]) -> None:
        self.hear = hear
        self.content = b""
        self.ended = self.dropped = False
        self._answers = answers

    def write(self, content: bytes) -> None:
        self.content += content

    def end(self) -> None:
        self.ended = True
        for answer in self._answers:
            asyncio.get_running_loop().call_soon(self.hear, answer)

    def drop(self) -> None:
        self.dropped = True


class Inspector:
    """Answers what it is told to, of the first list's first row."""

    is_behind = False

    def __init__(self, *answers: PictureFound | None) -> None:
        self.answers = [*answers]
        self.copies: list[Copy] = []

    def offer(self, media: str, size: int | None, found: Hear, place: str) -> Copy:
        assert (media, size) == ("image", len(OTHER))
        self.copies.append(Copy(found, self.answers))
        return self.copies[-1]

    def close(self) -> None:
        """Nothing is open."""


PDQ = f"pdq:{'5a' * 32} id=P-1"


async def inspected(rig: Rig, pictures: str, inspector: Inspector, **files: Any) -> tuple[str, int]:
    """A front with an inspector, and the list and row of its one picture."""
    await looking(rig, "reverse", "http://paged.example/listed", PDQ)
    rig.addon.files = KnownFiles(FilesTable.model_validate({"pictures": pictures, **files}), inspector)
    assert rig.addon.keeper is not None
    (one,) = rig.addon.keeper.matcher.perceptual()
    return one.name, int(one.rows[0])


@pytest.mark.parametrize("pictures", ["cut", "alert"])
async def test_a_picture_that_looks_like_a_listed_one(
    rig: Rig, pictures: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "urlward")
    inspector = Inspector()
    name, row = await inspected(rig, pictures, inspector)
    inspector.answers = [PictureFound(name, row, 12), PictureFound(name, row, 14), None]
    got = await curl(rig, "/other", "reverse")
    if pictures == "cut":
        assert got.code == RESET
        assert len(got.body) < len(OTHER)
    else:
        assert got == (0, 200, OTHER)
        await until(lambda: "entry=P-1" in caplog.text)
    assert inspector.copies[0].content == OTHER
    assert caplog.text.count("entry=P-1") == 1, "of a picture it is said once"
    inspector.answers = [None]
    assert await curl(rig, "/other", "reverse") == (0, 200, OTHER)
    inspector.answers = [PictureFound(name, row, 90), None]
    assert await curl(rig, "/other", "reverse") == (0, 200, OTHER), "farther than its entry allows"
    await rig.settled()


async def test_a_picture_whose_answer_takes_long_arrives_and_is_learned(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = Inspector()
    name, row = await inspected(rig, "cut", inspector)
    told: list[tuple[str, str]] = []
    known = Guard.known_file

    def noted(self: Guard, verdict: Any, found: KnownFile, *more: Any) -> Any:
        told.append((found.algorithm, found.action))
        return known(self, verdict, found, *more)

    monkeypatch.setattr(Guard, "known_file", noted)
    asking = asyncio.ensure_future(curl(rig, "/other", "reverse"))
    await until(lambda: inspector.copies and inspector.copies[0].ended)
    (copy,) = inspector.copies
    copy.waited()
    assert await asking == (0, 200, OTHER)
    copy.hear(PictureFound(name, row, 12))
    copy.hear(None)
    assert told == [("pdq", "learn")], "nobody is told that it was cut"
    await rig.settled()


async def test_what_is_only_said_of_a_picture_is_cut_by_its_digest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list has all digests of a file under one id, and a frame of a video is met before its end."""
    inspector = Inspector()
    name, row = await inspected(rig, "alert", inspector, action="cut")
    await rig.relist("http://paged.example/listed", PDQ, f"sha256:{hashlib.sha256(OTHER).hexdigest()} id=P-1")
    told: list[tuple[str, str]] = []
    known = Guard.known_file

    def noted(self: Guard, verdict: Any, found: KnownFile, *more: Any) -> Any:
        told.append((found.algorithm, found.action))
        return known(self, verdict, found, *more)

    def write(self: Copy, content: bytes) -> None:
        self.hear(PictureFound(name, row, 1))

    monkeypatch.setattr(Guard, "known_file", noted)
    monkeypatch.setattr(Copy, "write", write)
    got = await curl(rig, "/other", "reverse")
    assert got.code
    assert len(got.body) < len(OTHER)
    assert told == [("pdq", "alert"), ("sha256", "cut")]
    await rig.settled()


async def test_what_a_classifier_says_is_told_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "urlward")
    inspector = Inspector(PictureFound("", -1, 0, "classifier", score=0.97), None)
    await inspected(rig, "cut", inspector, classifier="institute:score")
    assert await curl(rig, "/other", "reverse") == (0, 200, OTHER)
    assert "algorithm=classifier action=alert" in caplog.text
    await rig.settled()


async def test_a_client_that_leaves_in_the_midst_of_a_picture(rig: Rig) -> None:
    inspector = Inspector()
    await inspected(rig, "cut", inspector)
    _, writer = await rig.connect()
    writer.write(GET % b"other?half")
    await until(lambda: inspector.copies and inspector.copies[0].content)
    reset(writer)
    await until(lambda: inspector.copies[0].dropped)
    await rig.settled()


async def test_a_client_that_leaves_while_its_picture_is_looked_at(rig: Rig) -> None:
    inspector = Inspector()
    name, row = await inspected(rig, "cut", inspector)
    _, writer = await rig.connect()
    writer.write(GET % b"other")
    await until(lambda: inspector.copies and inspector.copies[0].ended)
    reset(writer)
    await until(lambda: not list(rig.addon.live))
    inspector.copies[0].hear(PictureFound(name, row, 1))
    inspector.copies[0].hear(None)
    await rig.settled()


async def test_an_end_that_comes_with_a_switch_behind_a_picture_is_passed_on(rig: Rig) -> None:
    """All of it has been read from TLS by the time that the picture may go on."""

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(OTHER)}\r\n\r\n"
        writer.write(
            head.encode() + OTHER + b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello"
        )
        writer.close()

    inspector = Inspector()
    await looking(rig, "tls", "http://paged.example/listed", PDQ, serve=switch)
    rig.addon.files = KnownFiles(FilesTable.model_validate({"pictures": "cut"}), inspector)
    streams = reader, writer = await rig.connect()
    await rig.secure(streams, "paged.example")
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    writer.write(
        b"".join(
            b"GET /%b HTTP/1.1\r\nHost: paged.example\r\n%b\r\n" % each
            for each in [(b"other", b""), (b"chat", upgrade)]
        )
    )
    await until(lambda: inspector.copies and inspector.copies[0].ended)
    await asyncio.sleep(0.1)
    inspector.copies[0].hear(None)
    got = await asyncio.wait_for(reader.read(), LONG)
    assert got.endswith(b"hello")
    writer.close()
    await rig.settled()
