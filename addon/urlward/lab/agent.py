"""Agent: the lab's own client, a program in a machine's namespace that takes commands, a line of JSON each.

curl makes a new process, a new connection and a new DNS query each time. What needs more than that,
connections that stay, addresses that were resolved earlier, odd bytes, DNS queries to any address and many
samples, is done here.

With arguments it is a slow resolver, which forwards each query after a delay, over UDP and TCP.
"""

import asyncio
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rdtypes.svcbbase

if TYPE_CHECKING:
    from collections.abc import Callable

BEHIND = ("127.0.0.1", 5300)

_PARAMETERS = dns.rdtypes.svcbbase.ParamKey


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, address: Any) -> None:
        await asyncio.sleep(self._seconds)
        self._transport.sendto(await _ask(data), address)


async def _ask(query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*BEHIND)
    try:
        writer.write(len(query).to_bytes(2) + query)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()


async def serve_slowly(seconds: float, addresses: list[str]) -> None:
    """Answer queries on port 53 of each address."""

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                await asyncio.sleep(seconds)
                answer = await _ask(query)
                writer.write(len(answer).to_bytes(2) + answer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: _Udp(seconds), local_addr=(address, 53))
        await asyncio.start_server(tcp, address, 53)
    await asyncio.Event().wait()


def ask_dns(name: str, kind: str, server: str, *, tcp: bool = False, timeout: float = 5.0) -> dict[str, Any]:
    """Send one query.

    Args:
        name: spelt as it is sent, so that letter case and a trailing dot stay.
        kind: of the record, such as ``A``.
        server: address of the resolver.
        tcp: whether over TCP.
        timeout: seconds.

    Returns:
        ``rcode``, ``addresses``, ``ttl`` (the least of all records) and ``parameters`` (names of SVCB
        parameters, and the protocols of ``alpn``), or ``error``.
    """
    query = dns.message.make_query(name, kind)
    ask = dns.query.tcp if tcp else dns.query.udp
    try:
        reply = ask(query, server, timeout=timeout)
    except dns.exception.Timeout:
        return {"error": "timeout"}
    except dns.exception.DNSException as e:
        return {"error": _unreadable(e)}
    except ConnectionRefusedError:
        return {"error": "refused"}
    except (OSError, EOFError) as e:
        return {"error": str(getattr(e, "strerror", None) or "closed").lower()}
    addresses, parameters, ttls = [], set(), []
    for rrset in reply.answer:
        ttls.append(rrset.ttl)
        for record in rrset:
            if record.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                addresses.append(record.address)
            elif record.rdtype in (dns.rdatatype.HTTPS, dns.rdatatype.SVCB):
                parameters |= _parameters(record)
    return {
        "rcode": dns.rcode.to_text(reply.rcode()),
        "addresses": addresses,
        "records": len(reply.answer),
        "ttl": min(ttls, default=None),
        "parameters": sorted(parameters),
    }


def _unreadable(error: Exception) -> str:
    return f"unreadable answer: {type(error).__name__}"


def _parameters(record: Any) -> set[str]:
    found = set()
    for key, value in record.params.items():
        found.add(
            _PARAMETERS(key).name.lower().replace("_", "-") if key in list(_PARAMETERS) else f"key{key}"
        )
        if key == _PARAMETERS.ALPN:
            found |= {identifier.decode(errors="replace") for identifier in value.ids}
    return found


TIMEOUT = 8.0
_READ = 65536
_ISSUER = re.compile(r"commonName', '([^']*)'")


class Agent:
    """Agent that carries out commands; each is a dictionary with ``do`` and that method's arguments."""

    def __init__(self) -> None:
        self._kept: dict[str, socket.socket] = {}
        self._streams: dict[str, _Stream] = {}
        self._resolved: dict[tuple[str, int], str] = {}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command; a network error is a result too."""
        do: Callable[..., dict[str, Any]] = getattr(self, f"do_{command.pop('do')}")
        try:
            return do(**command)
        except (OSError, HTTPException) as e:
            return {"error": _told(e)}

    def do_hello(self) -> dict[str, Any]:
        """Report that the agent runs."""
        return {}

    def do_dns(self, **question: Any) -> dict[str, Any]:
        """Send a DNS query to a resolver."""
        return ask_dns(**question)

    def do_announce(self, device: str, address: str, ethernet: str) -> dict[str, Any]:
        """Announce an IPv4 address that has moved here, by gratuitous ARP (RFC 5944, 4.6)."""
        mine, where = bytes.fromhex(ethernet.replace(":", "")), socket.inet_aton(address)
        everybody = b"\xff" * 6
        request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mine + where + everybody + where
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind((device, 0x0806))
            s.send(everybody + mine + b"\x08\x06" + request)
        return {}

    def do_rules(self) -> dict[str, Any]:
        """The names of urlward's nftables sets and chains here, and which sets have elements."""
        from urlward.gateway.nft import Nft
        from urlward.gateway.rules import PASSING
        from urlward.gateway.table import NoTableError

        nft = Nft()
        try:
            listing = nft.json("list table inet urlward")
        except NoTableError:
            return {"there": False, "filled": []}
        sets = [item["set"] for item in listing if "set" in item]
        filled = [one["name"] for one in sets if one.get("elem") and one["name"] not in PASSING]
        return {"there": True, "filled": filled}

    def do_ask(
        self,
        url: str,
        family: int,
        tag: str,
        *,
        host: str | None = None,
        to: str | None = None,
        keep: str | None = None,
        cached: bool = False,
        raw: str | None = None,
        method: str = "GET",
        stream: bool = False,
        source: str = "",
    ) -> dict[str, Any]:
        """Request a URL; see `urlward.lab.scenario.ScenarioRequest` for the arguments.

        Returns:
            ``status``, ``body`` (its beginning), ``issuer``, ``local`` (address and port), or ``error``.
        """
        parts = urlsplit(url)
        found: dict[str, Any] = {}
        s = self._kept.get(keep or "")
        if s is None:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            address = self._address(to or parts.hostname or "", family, cached)
            plain = socket.create_connection((address, port), TIMEOUT, (source, 0) if source else None)
            found["local"] = list(plain.getsockname()[:2])
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                s = self._secured(plain, parts.hostname or "") if parts.scheme == "https" else plain
            except OSError as e:
                plain.close()
                return {**found, "error": _told(e)}
            if keep:
                self._kept[keep] = s
        else:
            found["local"] = list(s.getsockname()[:2])
        if isinstance(s, ssl.SSLSocket):
            match = _ISSUER.search(str(s.getpeercert() and s.getpeercert()["issuer"]))  # type: ignore[index]
            found["issuer"] = match[1] if match else ""
        head = raw.replace("{tag}", tag) if raw else _head(parts, host, tag, method, bool(keep))
        try:
            s.sendall(head.encode())
            if stream and keep:
                self._streams[keep] = _Stream(s)
                return {**found, "status": 200, "body": ""}
            response = HTTPResponse(s, method=method)
            response.begin()
            body = response.read()
            found |= {"status": response.status, "body": body[:_READ].decode(errors="replace")}
            if response.getheader("Connection", "").lower() == "close":
                self._forget(keep)
        except (OSError, HTTPException) as e:
            self._forget(keep)
            found["error"] = _told(e)
        finally:
            if not keep:
                s.close()
        return found

    def do_stream(self, keep: str, seconds: float = 0.0) -> dict[str, Any]:
        """Whether a download that was started is still receiving: what more comes within so many seconds."""
        stream = self._streams.get(keep)
        if stream is None:
            return {"error": "was not begun"}
        before, end = stream.size, time.monotonic() + seconds
        while not stream.ended and stream.size == before and time.monotonic() < end:
            time.sleep(0.02)
        return {"ended": stream.ended, "bytes": stream.size, "more": stream.size - before}

    def do_sample(
        self, url: str, family: int, seconds: float, *, fresh: bool, rate: float = 0, count: int = 0
    ) -> dict[str, Any]:
        """Request one URL repeatedly, one request at a time.

        Args:
            url: without a query of importance.
            family: IP version, 4 or 6.
            seconds: for how long at most.
            fresh: whether each request has a connection of its own.
            rate: requests a second; as many as can be where 0.
            count: requests at most; any number where 0.

        Returns:
            ``samples``: of each request, seconds since the epoch, milliseconds, and status (0: failed).
        """
        parts = urlsplit(url)
        address = self._address(parts.hostname or "", family, cached=False)
        target = (address, parts.port or (443 if parts.scheme == "https" else 80))
        head = _head(parts, None, "urlward-load", "GET", not fresh).encode()
        samples: list[tuple[float, float, int]] = []
        s: socket.socket | None = None
        begin = time.monotonic()
        while time.monotonic() < begin + seconds and not (count and len(samples) >= count):
            if rate:
                due = begin + len(samples) / rate
                time.sleep(max(0.0, due - time.monotonic()))
            # A slow answer delays those behind it: what counts is from when each was due.
            start = due if rate else time.monotonic()
            status = 0
            try:
                if s is None:
                    s = socket.create_connection(target, TIMEOUT)
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if parts.scheme == "https":
                        s = self._secured(s, parts.hostname or "")
                s.sendall(head)
                response = HTTPResponse(s)
                response.begin()
                response.read()
                status = response.status
            except (OSError, HTTPException):
                status = 0
            samples.append((time.time(), (time.monotonic() - start) * 1000, status))
            if s is not None and (fresh or not status):
                s.close()
                s = None
        if s is not None:
            s.close()
        return {"samples": samples}

    def _secured(self, plain: socket.socket, name: str) -> ssl.SSLSocket:
        try:
            socket.getaddrinfo(name.strip("[]"), None, flags=socket.AI_NUMERICHOST)
        except OSError:
            return _context(True, _trusted()).wrap_socket(plain, server_hostname=name.rstrip("."))
        return _context(False, _trusted()).wrap_socket(plain)

    def _address(self, host: str, family: int, cached: bool) -> str:
        key = (host, family)
        if not (cached and key in self._resolved):
            kind = socket.AF_INET6 if family == 6 else socket.AF_INET
            self._resolved[key] = str(socket.getaddrinfo(host, None, kind, socket.SOCK_STREAM)[0][4][0])
        return self._resolved[key]

    def _forget(self, keep: str | None) -> None:
        if keep:
            s = self._kept.pop(keep, None)
            if s is not None:
                s.close()


class _Stream:
    """Reads a response that takes long, in a thread of its own."""

    def __init__(self, s: socket.socket) -> None:
        self.size = 0
        self.ended = ""
        self._socket = s
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        self._socket.settimeout(None)
        try:
            while data := self._socket.recv(_READ):
                self.size += len(data)
            self.ended = "closed"
        except OSError as e:
            self.ended = _told(e)


def _trusted() -> float:
    """Time of the last change of the trusted authorities: the filter's comes later than this program."""
    try:
        return Path(os.environ.get("SSL_CERT_FILE", "")).stat().st_mtime
    except OSError:
        return 0.0


@lru_cache(4)
def _context(named: bool, _changed: float) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Certificates that mitmproxy makes lack what only this flag asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = named
    return context


def _head(parts: Any, host: str | None, tag: str, method: str, keep: bool) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (
        f"{method} {target} HTTP/1.1\r\nHost: {host or parts.netloc}\r\nUser-Agent: {tag}\r\nAccept: */*\r\n"
        f"{'' if keep else 'Connection: close\r\n'}\r\n"
    )


def _told(error: Exception) -> str:
    """Text of an error, without the URL or host of the request."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return f"tls: {(error.reason or 'error').lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return "no address"
    if isinstance(error, ConnectionResetError):
        return "reset"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, HTTPException):
        return "closed"
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def main() -> None:
    """Serve commands from standard input until it ends."""
    agent = Agent()
    lock = threading.Lock()

    def serve(number: int, command: dict[str, Any]) -> None:
        try:
            answer = agent.answer(command)
        except Exception as e:  # noqa: BLE001 - whoever asked must not wait for ever
            answer = {"bug": f"{type(e).__name__}: {e}"}
        with lock:
            print(json.dumps({"number": number, **answer}), flush=True)

    with ThreadPoolExecutor(32) as pool:
        for line in sys.stdin:
            command = json.loads(line)
            pool.submit(serve, command.pop("number"), command)


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(serve_slowly(float(sys.argv[1]), sys.argv[2:]))
    else:
        main()
