"""Clients that ask for much at once, and one beside them that asks for little.

By hand, from the folder of the tests, with what each costs that one:

    python -m e2e.bursts [NAME]...
"""

import ctypes
import json
import os
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

GREEDY, MODEST = "127.0.0.66", "127.0.0.5"
"""Addresses of the two clients."""

LISTED = "paged.example"
"""A host with pages that are listed."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""System calls."""

COSTLY: dict[str, bytes] = {
    "escapes": b"/" + b"%25" * 5000 + b"41",
    "dots": b"/" + b"/".join(b"a%2f..;x" for _ in range(120)) + b"/view?topic=1",
    "parameters": b"/view?" + b"&".join(b"topic.%d=%%20x" % n for n in range(990)),
    "long and parameters": b"/" + b"a" * 40_000 + b"/view?" + b"&".join(b"t%d=1" % n for n in range(990)),
    "files and parameters": b"/a.b" + b"/c.d" * 6 + b"?" + b"&".join(b"t%d=%%41" % n for n in range(500)),
    "wide": b"/" + b"a%u002f/../b;c//" * 60 + b"#?" + b"&".join(b"a=%d" % n for n in range(60)),
    "beyond ASCII": b"\xa0/" + b"a%2f\xc2\xa0/..;b//(S(x))/" * 50 + b"?x=1#y?z=2;\xa0",
}
"""Targets that take long to judge."""


def connect(port: int, source: str = GREEDY) -> socket.socket:
    s = socket.create_connection(("127.0.0.1", port), 60, source_address=(source, 0))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def flood(make: Callable[[], socket.socket], data: bytes, connections: int) -> None:
    """Send it on many connections again and again, read what comes, and begin anew where one is closed."""
    selector = selectors.DefaultSelector()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE

    def begin() -> None:
        with suppress(OSError):
            s = make()
            s.setblocking(False)
            selector.register(s, both, [0])

    for _ in range(connections):
        begin()
    while True:
        for key, events in selector.select(1):
            s, place = key.fileobj, key.data
            assert isinstance(s, socket.socket)
            try:
                if events & selectors.EVENT_READ and not s.recv(1 << 18):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    place[0] = (place[0] + s.send(data[place[0] :])) % len(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                selector.unregister(s)
                s.close()
                begin()


def secure(port: int, *alpn: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(connect(port), server_hostname=LISTED)


def get(target: bytes, host: str = LISTED, *, whole: bool = False) -> bytes:
    target = b"http://" + host.encode() + target if whole else target
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host.encode())


def costly_streams(target: bytes) -> bytes:
    """HTTP/2: as many streams as there may be, of these requests."""
    from hpack import Encoder

    encoder = Encoder()
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    for number in range(100):
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", LISTED), (":path", target)]
        block = encoder.encode(fields)
        stream = (2 * number + 1).to_bytes(4, "big")
        first, rest = block[: 1 << 14], block[1 << 14 :]
        out += len(first).to_bytes(3, "big") + bytes([1, 1 if rest else 5]) + stream + first
        while rest:
            part, rest = rest[: 1 << 14], rest[1 << 14 :]
            out += len(part).to_bytes(3, "big") + bytes([9, 0 if rest else 4]) + stream + part
    return out


def ask_over_http2(port: int, target: bytes, connections: int) -> None:
    """Ask it on all streams of many connections, and again on new ones."""
    data = costly_streams(target)
    while True:
        made = []
        for _ in range(connections):
            with suppress(OSError):
                s = secure(port, "h2")
                s.settimeout(2)
                s.sendall(data)
                made.append(s)
        for s in made:
            with suppress(OSError):
                s.settimeout(0.2)
                while s.recv(1 << 16):
                    pass
            s.close()


def shake(port: int) -> None:
    """Begin sessions, for a host of its own each, and leave."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    number = 0
    while True:
        number += 1
        with suppress(OSError), connect(port) as s:
            context.wrap_socket(s, server_hostname=f"a{number % 5000}.{LISTED}").close()


def hello(port: int) -> None:
    """Send a ClientHello on many connections, and never what follows."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, outgoing, server_hostname=LISTED)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data = outgoing.read()
    while True:
        made = []
        for _ in range(500):
            with suppress(OSError):
                s = connect(port)
                s.send(data)
                made.append(s)
        for s in made:
            s.close()


def trickle(port: int, *, tls: bool) -> None:
    """Send a body a byte at a time, in a segment of its own, or in a record of its own, many at once."""
    head = b"PUT /up HTTP/1.1\r\nHost: fine.example\r\nContent-Length: 1000000000\r\n\r\n"
    made = []
    for _ in range(64):
        with suppress(OSError):
            s = secure(port) if tls else connect(port)
            s.sendall(head)
            s.setblocking(False)
            made.append(s)
    while True:
        for s in made:
            with suppress(OSError):
                for _ in range(64):
                    s.send(b"a")


def open_only(port: int) -> None:
    """Open connections as fast as possible, and send nothing."""
    made: list[socket.socket] = []
    while True:
        with suppress(OSError):
            made.append(connect(port))
        if len(made) > 4000:
            for s in made:
                s.close()
            made.clear()


@dataclass(frozen=True)
class Ports:
    """Of a filter: in reverse mode before an origin, as an explicit proxy, and in reverse mode over TLS."""

    reverse: int
    regular: int
    tls: int


ATTACKS: dict[str, Callable[[Ports], None]] = {
    "pipelined": lambda at: flood(lambda: connect(at.reverse), get(b"/", "fine.example") * 2000, 600),
    "pipelined, listed": lambda at: flood(
        lambda: connect(at.regular), get(b"/listed.html", whole=True) * 1000, 600
    ),
    **{
        f"costly: {name}": lambda at, target=target: flood(  # type: ignore[misc]
            lambda: connect(at.regular), get(target, whole=True) * 20, 50
        )
        for name, target in COSTLY.items()
    },
    "handshakes": lambda at: shake(at.tls),
    "ClientHellos": lambda at: hello(at.tls),
    "a byte a record": lambda at: trickle(at.tls, tls=True),
    "a byte a segment": lambda at: trickle(at.reverse, tls=False),
    "chunks of a byte": lambda at: flood(
        lambda: connect(at.reverse),
        b"PUT /up HTTP/1.1\r\nHost: fine.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 500_000,
        50,
    ),
    "streams": lambda at: ask_over_http2(at.tls, COSTLY["dots"], 20),
    "connections": lambda at: open_only(at.reverse),
}


@contextmanager
def attacked(name: str, ports: Ports, processes: int = 1) -> Iterator[None]:
    """Have an attack go on, by processes of their own."""
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "e2e.bursts", "--attack", name]
            + [str(each) for each in (ports.reverse, ports.regular, ports.tls)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
        )
        for _ in range(processes)
    ]
    try:
        yield
        assert all(each.poll() is None for each in begun), "the attack goes on"
    finally:
        for each in begun:
            each.kill()
            each.wait()


def latencies(port: int, seconds: float, *, new: bool = False) -> list[float]:
    """Seconds that one client's requests take that come now and then, on one connection or on new ones."""
    request = get(b"/", "fine.example")
    s = connect(port, MODEST)
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.004)
        start = time.perf_counter()
        if new:
            s.close()
            s = connect(port, MODEST)
        s.sendall(request)
        if not s.recv(1 << 16).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("no answer")
        found.append(time.perf_counter() - start)
    s.close()
    return found


def _give_a_processor(process: int) -> None:
    """Let a process have a processor for nearly all of each millisecond (sched(7), SCHED_DEADLINE).

    By any other class the kernel takes it away for 50 ms of each second, or for some milliseconds whenever
    another wants it, and that would be all that is seen.
    """
    runtime, period = 850_000, 1_000_000
    attributes = struct.pack("IIQiIQQQ", 48, 6, 1, 0, 0, runtime, period, period)  # reset in what it starts
    if ctypes.CDLL(None, use_errno=True).syscall(_SCHED_SETATTR[os.uname().machine], process, attributes, 0):
        raise OSError(ctypes.get_errno(), "sched_setattr")


def _told(found: Sequence[float]) -> str:
    cuts = quantiles(found, n=100)
    return "".join(f"{each * 1e3:8.2f}" for each in (cuts[49], cuts[89], cuts[98], max(found)))


def main(names: Sequence[str]) -> None:
    """Measure."""
    from e2e.support import make_authority, nginx, running

    # What is measured is the filter, not who has the processor: so for this client and the origin, too.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory() as folder:
        make_authority(Path(folder), ("localhost",))
        with nginx(Path(folder)) as origin:
            modes = [
                f"reverse:http://127.0.0.1:{origin.http}",
                "regular",
                f"reverse:https://127.0.0.1:{origin.https}",
            ]
            arguments = ("--workers", "1", "--set", "ssl_insecure=true")
            with running(
                Path(folder) / "filter", *arguments, modes=modes, check=False, forked=False
            ) as proxy:
                _give_a_processor(proxy.process.pid)
                ports = Ports(*proxy.ports)
                seconds = float(os.environ.get("SECONDS_EACH", "6"))
                print(f"{'milliseconds':24} {'median':>8}{'p90':>8}{'p99':>8}{'longest':>8}   (by new ones)")
                for name in ("alone", *(names or ATTACKS)):
                    both = []
                    for new in (False, True):
                        if name == "alone":
                            both.append(_told(latencies(ports.reverse, seconds, new=new)))
                            continue
                        with attacked(name, ports):
                            time.sleep(1.5)
                            try:
                                both.append(_told(latencies(ports.reverse, seconds, new=new)))
                            except OSError as e:
                                both.append(f"{type(e).__name__} {e}")
                    print(f"{name:24} {both[0]}   {both[1]}", flush=True)
                    time.sleep(1)
                print(
                    json.dumps(
                        [line for line in proxy.log().splitlines() if "answered" in line or "Trace" in line]
                    )
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        ATTACKS[sys.argv[2]](Ports(*map(int, sys.argv[3:])))
    else:
        main(sys.argv[1:])
