"""Kea on the loopback interface, and a relay that asks it for addresses (RFC 2131, RFC 8415)."""

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import free_port, wait_for

RELAY4, RELAY6 = "127.0.0.1", "2001:db8:1::1"
HOUR = 3600


def missing() -> str:
    """Why Kea cannot be run here, or nothing."""
    if not shutil.which("kea-dhcp4") or not shutil.which("kea-dhcp6"):
        return "Kea is not installed"
    return "" if os.geteuid() == 0 else "Kea needs root"


def configuration(version: int, leases: Path) -> dict[str, Any]:
    common = {
        "lease-database": {"type": "memfile", "persist": True, "name": str(leases), "lfc-interval": 0},
        "valid-lifetime": HOUR,
        "loggers": [
            {"name": f"kea-dhcp{version}", "severity": "INFO", "output_options": [{"output": "stdout"}]}
        ],
    }
    if version == 4:
        subnet = {
            "id": 1,
            "subnet": "192.0.2.0/24",
            "pools": [{"pool": "192.0.2.10 - 192.0.2.20"}],
            "relay": {"ip-addresses": [RELAY4]},
        }
        interfaces: dict[str, Any] = {"interfaces": ["lo"], "dhcp-socket-type": "udp"}
        return {"Dhcp4": {**common, "interfaces-config": interfaces, "subnet4": [subnet]}}
    subnet = {
        "id": 1,
        "subnet": "2001:db8:1::/48",
        "interface": "lo",
        "pools": [{"pool": "2001:db8:1::10 - 2001:db8:1::20"}],
        "pd-pools": [{"prefix": "2001:db8:2::", "prefix-len": 48, "delegated-len": 56}],
    }
    interfaces = {"interfaces": ["lo/::1"]}
    return {
        "Dhcp6": {
            **common,
            "interfaces-config": interfaces,
            "preferred-lifetime": HOUR,
            "server-id": {"type": "LLT", "persist": False},
            "subnet6": [subnet],
        }
    }


@contextmanager
def kea(version: int, folder: Path, leases: Path) -> Iterator[tuple[int, int]]:
    """Run a server; its port and its clients'."""
    config = folder / f"kea{version}.json"
    config.write_text(json.dumps(configuration(version, leases)))
    ports = free_port(), free_port()
    log = folder / f"kea{version}.log"
    environment = {
        **os.environ,
        **dict.fromkeys(("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR", "KEA_DHCP_DATA_DIR"), str(folder)),
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            [f"kea-dhcp{version}", "-c", config, "-p", str(ports[0]), "-P", str(ports[1])],
            stdout=output, stderr=output, env=environment,
        )  # fmt: skip
    try:
        wait_for(
            lambda: f"DHCP{version}_STARTED" in log.read_text() or server.poll() is not None, f"Kea: {log}"
        )
        assert server.poll() is None, log.read_text()
        yield ports
    finally:
        server.terminate()
        server.wait()


class Client4:
    """Leases of IPv4, through a relay that the client is itself."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.server, port = ports
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((RELAY4, port))
        self.socket.settimeout(60)

    def send(self, kind: int, mac: bytes, *options: tuple[int, bytes], address: str = "0.0.0.0") -> None:
        parts = (1, 1, 6, 1, 7, 0, 0, socket.inet_aton(address), bytes(4), bytes(4), socket.inet_aton(RELAY4))
        data = struct.pack(">BBBBIHH4s4s4s4s16s192x", *parts, mac) + b"\x63\x82\x53\x63"
        for code, value in ((53, bytes([kind])), *options):
            data += bytes([code, len(value)]) + value
        self.socket.sendto(data + b"\xff", (RELAY4, self.server))

    def answer(self) -> tuple[str, bytes]:
        data = self.socket.recv(4096)
        at, server = 240, b""
        while data[at] != 255:
            if data[at] == 54:
                server = data[at + 2 : at + 6]
            at += 2 + data[at + 1]
        return socket.inet_ntoa(data[16:20]), server

    def lease(self, mac: bytes) -> tuple[str, bytes]:
        self.send(1, mac)
        address, server = self.answer()
        self.send(3, mac, (50, socket.inet_aton(address)), (54, server))
        assert self.answer()[0] == address
        return address, server

    def renew(self, mac: bytes, address: str) -> None:
        self.send(3, mac, address=address)
        assert self.answer()[0] == address

    def release(self, mac: bytes, address: str, server: bytes) -> None:
        self.send(7, mac, (54, server), address=address)


class Client6:
    """Addresses and delegated prefixes, through a relay that the client is itself."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.server, port = ports
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("::1", port))
        self.socket.settimeout(60)

    def ask(self, kind: int, duid: bytes, body: bytes) -> dict[int, bytes]:
        inner = bytes([kind, 0, 0, 7]) + _option(1, duid) + body
        ends = socket.inet_pton(socket.AF_INET6, RELAY6) + socket.inet_pton(socket.AF_INET6, "fe80::1")
        self.socket.sendto(bytes([12, 0]) + ends + _option(9, inner), ("::1", self.server))
        return _options(_options(self.socket.recv(4096)[34:])[9][4:])

    def lease(self, duid: bytes) -> bytes:
        """What to say to renew or release it."""
        nothing = struct.pack(">III", 1, 0, 0)
        offer = self.ask(1, duid, _option(3, nothing) + _option(25, nothing))
        chosen = b"".join(_option(code, offer[code]) for code in (2, 3, 25))
        self.ask(3, duid, chosen)
        return chosen

    def renew(self, duid: bytes, lease: bytes) -> None:
        self.ask(5, duid, lease)

    def release(self, duid: bytes, lease: bytes) -> None:
        self.ask(8, duid, lease)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, size = struct.unpack_from(">HH", data)
        found[code], data = data[4 : 4 + size], data[4 + size :]
    return found
