"""One run: a published list that changes, is rolled back, and is fetched whole, by many simulated nodes."""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lists.material import KEY, artifacts, write_sources
from benchmarks.lists.measure import SIGNING
from benchmarks.reload.run import free_port

from urlward.config import Config, FeedTable, PublishTable
from urlward.engine.artifact import HEADER_SIZE, parse, read_header
from urlward.engine.delta import apply_delta
from urlward.engine.digest import format_key
from urlward.engine.signing import SigningKey
from urlward.publish.place import Folder
from urlward.publish.rollout import Lists

POLL = 2.0
"""Seconds between two looks of a node."""

WHOLE = 10
"""One node of so many takes part where the whole list is fetched: this machine has to read all of it."""

SHARE = 0.99


class Marked(Folder):
    """Folder that remembers when an object was written last."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.at: dict[str, float] = {}

    def write(self, name: str, data: bytes, over: str) -> str:
        """See `urlward.publish.place.ListPlace.write`."""
        tag = super().write(name, data, over)
        self.at[name] = time.perf_counter()
        return tag


class Counted(NamedTuple):
    """What has gone over the wire, without the layers below HTTP."""

    requests: int
    sent: int
    received: int
    cpu: float


class Server:
    """An nginx over a folder, and what its clients count."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self._process = process
        self._counted = [0, 0, 0]

    async def get(self, path: str, *fields: str) -> tuple[int, dict[bytes, bytes], bytes]:
        """One GET over a connection of its own, as nodes make them; status, fields and body."""
        lines = [f"GET {path} HTTP/1.1", "Host: lists.example", "User-Agent: urlward", "Accept: */*"]
        lines += [*fields, "Connection: close", "", ""]
        request = "\r\n".join(lines).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status, *rest = head.split(b"\r\n")
            found = dict(line.lower().split(b": ", 1) for line in rest if line)
            size, body = int(found.get(b"content-length", b"0")), b""
            if int(status.split()[1]) != 304:
                body = await reader.readexactly(size) if size <= 1 << 20 else await _read(reader, size)
        finally:
            writer.close()
        self._counted[0] += 1
        self._counted[1] += len(request)
        self._counted[2] += len(head) + (0 if int(status.split()[1]) == 304 else size)
        return int(status.split()[1]), found, body

    def counted(self) -> Counted:
        """All until now, and the seconds of processor time that nginx has taken."""
        ticks = 0
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return Counted(*self._counted, ticks / os.sysconf("SC_CLK_TCK"))


async def _read(reader: asyncio.StreamReader, size: int) -> bytes:
    """Read a large body and keep its beginning."""
    first = b""
    while size:
        data = await reader.read(min(size, 1 << 20))
        assert data, "cut short"
        first = first or data
        size -= len(data)
    return first


@contextmanager
def serving(folder: Path, served: Path) -> Iterator[Server]:
    """An nginx with one worker over a folder."""
    port, conf = free_port(), folder / "nginx.conf"
    conf.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "user root; worker_rlimit_nofile 8192; events { worker_connections 4096; }\n"
        f"http {{ access_log off; sendfile on;\n"
        f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; root {served}; }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait()


PATH = "/stable/bench.ward"


class Node:
    """A node that follows the list.

    Attributes:
        serial: that it has.
        deltas: whether it asks for deltas.
        at: when it had that.
    """

    def __init__(self, server: Server, choose: random.Random) -> None:
        self.serial = 0
        self.at = 0.0
        self.deltas = True
        self._server = server
        self._choose = choose
        self._etag = b""

    async def follow(self) -> None:
        """Look each `POLL` seconds, until cancelled; as `urlward.feeds.updates` does."""
        await asyncio.sleep(self._choose.random() * POLL)
        while True:
            header = await self._peek()
            if header is not None and header != self.serial:
                await self._refresh(header)
            await asyncio.sleep(POLL * (0.9 + self._choose.random() / 5))

    async def _peek(self) -> int | None:
        condition = [f"If-None-Match: {self._etag.decode()}"] if self._etag else []
        fields = (f"Range: bytes=0-{HEADER_SIZE - 1}", "Accept-Encoding: identity", *condition)
        status, found, body = await self._server.get(PATH, *fields)
        if status == 304:
            return None
        assert status == 206, status
        self._etag = found[b"etag"]
        return read_header(body).serial

    async def _refresh(self, header: int) -> None:
        """Take what is new: as `urlward.feeds.refresh` does."""
        if self.deltas:
            status, _, _ = await self._server.get(f"{PATH}.{self.serial}.delta")
            if status == 404:  # what it is made of is kept
                await self._server.get(PATH, f"Range: bytes=0-{HEADER_SIZE - 1}")
            self._has(header)
            return
        _, _, body = await self._server.get(PATH)
        self._has(read_header(body).serial)

    def _has(self, serial: int) -> None:
        self.serial, self.at = serial, time.perf_counter()


async def measure(folder: Path, entries: int, count: int, idle: float) -> dict[str, Any]:
    """Run it.

    Args:
        folder: for all of it.
        entries: of the list.
        count: nodes.
        idle: seconds in which nothing changes.
    """
    first, second = artifacts(write_sources(folder, entries, 2), SIGNING)
    (folder / "key").write_bytes(format_key(KEY.secret))
    (folder / "body").write_bytes(SigningKey(SIGNING).pem())
    config = Config(
        publish=PublishTable(key=str(folder / "key"), sign=str(folder / "body")),
        feed=(FeedTable(name="bench", path="bench.txt"),),
    )
    (folder / "first.ward").write_bytes(first)
    (folder / "second.ward").write_bytes(second)
    publisher = partial(asyncio.get_running_loop().run_in_executor, ProcessPoolExecutor(1))
    await publisher(_published, config, folder, "first.ward")
    place = Folder(folder / "www")
    lists, choose = Lists(place, config), random.Random(1)
    with serving(folder, folder / "www") as server:
        nodes = [Node(server, choose) for _ in range(count)]
        serial = lists.rollout("bench").stable
        for node in nodes:
            node.serial = serial
        tasks = [asyncio.ensure_future(node.follow()) for node in nodes]
        try:
            await asyncio.sleep(2 * POLL)
            before, start = server.counted(), time.perf_counter()
            await asyncio.sleep(idle)
            rows = {"idle": _row(before, server.counted(), time.perf_counter() - start)}
            begin = time.perf_counter()
            rows["delta"], at = await _until(
                server, nodes, lambda: publisher(_published, config, folder, "second.ward"), offered=True
            )
            rows["rollback"], _ = await _until(
                server, nodes, lambda: publisher(_rolled_back, config, folder), offered=False
            )
            for task in tasks[count // WHOLE :]:
                task.cancel()
            some = nodes[: count // WHOLE]
            for node in some:
                node.deltas = False
            lists.release("bench")
            rows["whole"], _ = await _until(
                server, some, lambda: publisher(_published, config, folder, "second.ward"), offered=True
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    delta = await asyncio.to_thread(_applied, place, serial)
    return {
        "entries": entries,
        "nodes": count,
        "poll_s": POLL,
        "artifact_bytes": len(second),
        "published_s": at - begin,
        **delta,
        "rows": rows,
    }


def _published(config: Config, folder: Path, name: str) -> float:
    """Publish a list, in a process of its own; returns when it was offered to all."""
    place = Marked(folder / "www")
    Lists(place, config).publish("bench", (folder / name).read_bytes())
    return place.at["stable/bench.ward"]


def _rolled_back(config: Config, folder: Path) -> float:
    """Roll it back, likewise."""
    place = Marked(folder / "www")
    Lists(place, config).roll_back("bench", why="measured", who="benchmark")
    return place.at["stable/bench.ward"]


async def _until(
    server: Server, nodes: list[Node], act: Callable[[], Awaitable[float]], *, offered: bool
) -> tuple[dict[str, float], float]:
    """Do something, and wait until all nodes have another list than before; times are from when that was
    offered, or from now on. Also returns when it was offered."""
    before, start = server.counted(), time.perf_counter()
    old = nodes[0].serial
    at = await act()
    while any(node.serial == old for node in nodes):
        await asyncio.sleep(0.05)
    took = sorted(node.at - (at if offered else start) for node in nodes)
    row = {
        **_row(before, server.counted(), time.perf_counter() - start),
        "nodes": len(nodes),
        "offered_s": at - start,
        "median_s": took[len(took) // 2],
        "share_s": took[int(SHARE * len(took)) - 1],
        "last_s": took[-1],
    }
    return row, at


def _row(before: Counted, after: Counted, seconds: float) -> dict[str, float]:
    requests, sent, received, cpu = (now - then for now, then in zip(after, before, strict=True))
    return {"seconds": seconds, "requests": requests, "sent": sent, "received": received, "cpu_s": cpu}


def _applied(place: Folder, serial: int) -> dict[str, float]:
    """Size of the delta from a version, and the seconds that a node takes to apply it."""
    old = place.read(f"versions/bench/{serial}.ward")
    delta = place.read(f"stable/bench.ward.{serial}.delta")
    assert old is not None
    assert delta is not None
    start = time.perf_counter()
    apply_delta(parse(old.data), delta.data, KEY)
    return {"delta_bytes": len(delta.data), "applied_s": time.perf_counter() - start}
