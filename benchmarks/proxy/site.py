"""A network of its own: the origin's address, who is sent through the proxy, and names.

All of it lives in namespaces of this process, so it is gone when the process is, however it ends, and
so is all that it started in them.
The proxy is transparent: connections of the load's user to the origin's ports 80 and 443 are
redirected to it, its own go through, and nothing else needs to know of it. The load's connections
have a source address that no other proxy's load had: what the kernel remembers of a connection would
else send a new one with the same ports past the proxy, or to one that is gone.
"""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from itertools import cycle
from pathlib import Path

ORIGIN = "198.51.100.10"
LOAD_USER = 65534
"""Nobody: no proxy may run as this one."""
MARK = 0x75
"""A socket of ours with this mark is routed and redirected like the load's."""
LOAD_NETWORK = "192.0.2."
"""What source addresses of the load begin with."""
EXPLICIT = ("127.0.0.1", 8081)
"""Where each proxy that can be an explicit one is one."""

_TABLE = "75"
_sources = cycle(range(1, 255))

_SETTINGS = {
    # A new connection each means tens of thousands that wait for their end.
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/tcp_max_tw_buckets": "262144",
    "net/core/somaxconn": "4096",
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait": "1",
    "net/netfilter/nf_conntrack_tcp_timeout_close": "1",
}
_OPEN_FILES = 20_000

_OVERFLOWS = ("ListenOverflows", "TCPTimeWaitOverflow", "TCPReqQFullDrop")

# Redirected connections need tracking; what a proxy asks of the origin, and explicit proxying, do not.
_UNTRACKED = "; ".join(f"ip saddr {it} ip daddr {it} notrack" for it in (ORIGIN, "127.0.0.1"))


def enter(folder: Path, hosts: Iterable[str]) -> None:
    """Leave the machine's network for an empty one in which these hosts are the origin.

    Raises:
        PermissionError: not root.
    """
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
    _guard(folder)
    _do("mount", "--make-rprivate", "/")
    names = folder / "hosts"
    names.write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")
    with names.open("a") as file:
        file.writelines(f"{ORIGIN} {host}\n" for host in hosts)
    names.chmod(0o644)
    _do("mount", "--bind", str(names), "/etc/hosts")
    # What a server that was killed leaves there would stay, and keep the next one from starting.
    _do("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "addr", "add", f"{ORIGIN}/32", "dev", "lo")
    _do("ip", "addr", "add", f"{LOAD_NETWORK}0/24", "dev", "lo")
    # The table of local addresses comes first unless it is moved.
    _do("ip", "rule", "add", "pref", "9", "lookup", "local")
    _do("ip", "rule", "del", "pref", "0")
    _do("ip", "rule", "add", "pref", "1", "uidrange", f"{LOAD_USER}-{LOAD_USER}", "lookup", _TABLE)
    _do("ip", "rule", "add", "pref", "2", "fwmark", str(MARK), "lookup", _TABLE)
    for name, value in _SETTINGS.items():
        path = Path("/proc/sys", name)
        if path.exists():
            path.write_text(value)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _guard(folder: Path) -> None:
    """Have a process that ends all others in this network, and the folder, once this one is gone."""
    reader, writer = os.pipe()
    this = os.getpid()
    if os.fork():
        os.close(reader)
        return
    os.setsid()
    os.close(writer)
    # Nobody writes: this is the end of the only process that could, be it by SIGKILL.
    os.read(reader, 1)
    network = Path("/proc/self/ns/net").stat().st_ino
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with suppress(OSError):
            if pid not in (this, os.getpid()) and (path / "ns/net").stat().st_ino == network:
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def redirect(ports: tuple[int, int]) -> None:
    """Send the load's HTTP and HTTPS to these ports, and give it a new source address."""
    rules = [
        f"{who} ip daddr {ORIGIN} tcp dport {origin} redirect to :{port}"
        for who in (f"meta skuid {LOAD_USER}", f"meta mark {MARK}")
        for origin, port in zip((80, 443), ports, strict=True)
    ]
    chain = "type nat hook output priority -100; " + "; ".join(rules)
    table = "table ip load"
    raw = "".join(
        f"chain raw_{hook} {{ type filter hook {hook} priority raw; {_UNTRACKED}; }}; "
        for hook in ("output", "prerouting")
    )
    text = f"{table}\ndelete {table}\n{table} {{ {raw}chain out {{ {chain}; }}; }}\n"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)
    source = f"{LOAD_NETWORK}{next(_sources)}"
    _do("ip", "route", "replace", "local", ORIGIN, "dev", "lo", "src", source, "table", _TABLE)


def overflows() -> int:
    """Connections lost because a queue of the kernel's or its table of connections was full, until now."""
    names, values = (
        line.split()
        for line in Path("/proc/net/netstat").read_text().splitlines()
        if line.startswith("TcpExt")
    )
    lost = sum(int(v) for name, v in zip(names, values, strict=True) if name in _OVERFLOWS)
    tracking = Path("/proc/net/stat/nf_conntrack")
    if tracking.exists():
        columns, *rows = (line.split() for line in tracking.read_text().splitlines())
        at = [columns.index(name) for name in ("drop", "early_drop")]
        lost += sum(int(row[n], 16) for row in rows for n in at)
    return lost


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
