"""A load of new connections: one request on each, plain or in TLS, straight, through CONNECT or SOCKS5.

It is for what wrk cannot do: resume a session of TLS, and ask a proxy for a tunnel. A program of its own
that needs nothing but the standard library. It reads a `Load` as JSON from standard input, has a process
for each job, and prints the line that ``load.lua`` prints, with `resumed` besides: how many of the
handshakes resumed a session.
"""

import json
import os
import socket
import ssl
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any, TypedDict


class Job(TypedDict):
    """What one process asks for.

    Attributes:
        file: of requests, host and target with a tab between.
        begin: share of the file to leave out first.
        address: to connect to.
        via: what is asked for a tunnel there: "connect", "socks5", or nothing.
        tls: whether there is TLS in it; the host of the request is the name that it is asked for.
        resume: offer the session of the connection before.
    """

    file: str
    begin: float
    address: tuple[str, int]
    via: str
    tls: bool
    resume: bool


class Load(TypedDict):
    """Everything.

    Attributes:
        seconds: how long new connections are made.
        timeout: seconds after which a connection has failed.
        mark: of the sockets.
        size: of the body of an answer with status 200; an answer with another was cut.
        jobs: one for each process.
    """

    seconds: float
    timeout: float
    mark: int
    size: int
    jobs: list[Job]


def main() -> None:
    load: Load = json.load(sys.stdin)
    pipes = []
    for job in load["jobs"]:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                json.dump(_Client(load, job).run(), out)
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    took = 0
    total: Counter[str] = Counter()
    latencies: Counter[int] = Counter()
    statuses: Counter[str] = Counter()
    for reader in pipes:
        with os.fdopen(reader) as answer:
            result = json.load(answer)
        took = max(took, result["microseconds"])
        total += Counter(result["total"])
        latencies += Counter({int(value): count for value, count in result["latencies"].items()})
        statuses += Counter(result["statuses"])
        os.wait()
    kinds = ("requests", "connect", "read", "write", "timeout", "status", "resumed")
    print("RESULT", json.dumps(
        {kind: total[kind] for kind in kinds}
        | {"microseconds": took, "latency": sorted(latencies.items()), "statuses": statuses}
    ))  # fmt: skip


class _Client:
    def __init__(self, load: Load, job: Job) -> None:
        self._load, self._job = load, job
        # Certificates are looked at before the load begins: here each would cost the load's core.
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        # Nor is it to spend a quarter of itself on keys against computers that are not there yet.
        self._context.set_ecdh_curve("X25519")
        self._sessions: dict[str, ssl.SSLSession | None] = {}
        self._total: Counter[str] = Counter()
        self._latencies: Counter[int] = Counter()
        self._statuses: Counter[int] = Counter()

    def run(self) -> dict[str, Any]:
        rows = Path(self._job["file"]).read_text().splitlines()
        at = int(len(rows) * self._job["begin"])
        first = time.monotonic()
        for row in cycle(rows[at:] + rows[:at]):
            begun = time.monotonic()
            if begun >= first + self._load["seconds"]:
                break
            host, target = row.split("\t")
            try:
                status = self._ask(host, target)
            except TimeoutError:
                self._total["timeout"] += 1
            except ConnectionRefusedError:
                self._total["connect"] += 1
            except OSError:
                self._total["read"] += 1
            else:
                self._latencies[int((time.monotonic() - begun) * 1e6)] += 1
                self._total["requests"] += 1
                self._total["status"] += status >= 400
                self._statuses[status] += 1
        return {
            "microseconds": int((time.monotonic() - first) * 1e6),
            "total": self._total,
            "latencies": self._latencies,
            "statuses": self._statuses,
        }

    def _ask(self, host: str, target: str) -> int:
        """Status of one answer.

        Raises:
            OSError: no connection, no tunnel, no handshake, no answer or a part of one.
        """
        job = self._job
        with socket.socket() as s:
            s.settimeout(self._load["timeout"])
            s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._load["mark"])
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.connect(tuple(job["address"]))
            port = 443 if job["tls"] else 80
            if job["via"] == "connect":
                open_tunnel(s, host, port)
            elif job["via"] == "socks5":
                _socks5(s, host, port)
            if not job["tls"]:
                return self._exchange(s, host, target)
            session = self._sessions.get(host)
            with self._context.wrap_socket(s, server_hostname=host, session=session) as tls:
                self._total["resumed"] += bool(tls.session_reused)
                status = self._exchange(tls, host, target)
                if job["resume"]:
                    # The tickets of TLS 1.3 come behind the handshake.
                    self._sessions[host] = tls.session
                return status

    def _exchange(self, s: socket.socket, host: str, target: str) -> int:
        s.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := s.recv(65536):
            parts.append(part)
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        status = int(head[9:12] or 0) if head.startswith(b"HTTP/1.") else 0
        if status == 0 or (status == 200 and len(body) != self._load["size"]):
            raise ConnectionError(f"an answer of {len(head)} and {len(body)} bytes")
        return status


def open_tunnel(s: socket.socket, host: str, port: int) -> None:
    """Ask an explicit proxy for a tunnel (RFC 9110, section 9.3.6).

    Raises:
        OSError: it gives none.
    """
    s.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        part = s.recv(4096)
        if not part:
            raise ConnectionError("no tunnel")
        answer += part
    if answer[9:12] != b"200":
        raise ConnectionError(f"no tunnel: {answer[:60]!r}")


def _socks5(s: socket.socket, host: str, port: int) -> None:
    """RFC 1928, without a password, by name."""
    name = host.encode()
    s.sendall(b"\x05\x01\x00")
    if _exactly(s, 2) != b"\x05\x00":
        raise ConnectionError("SOCKS5 wants a password")
    s.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2))
    _, reply, _, kind = _exactly(s, 4)
    if reply != 0:
        raise ConnectionError(f"SOCKS5 says {reply}")
    _exactly(s, {1: 4, 3: 0, 4: 16}[kind] + 2)


def _exactly(s: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = s.recv(count - len(data))
        if not part:
            raise ConnectionError("SOCKS5 ends")
        data += part
    return data


if __name__ == "__main__":
    main()
