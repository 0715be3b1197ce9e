"""What the machine itself says: its addresses, its interfaces, its kernel's settings."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_PROC = Path("/proc/thread-self")


def own_addresses(proc: Path = _PROC) -> frozenset[IPv4Address | IPv6Address]:
    """All unicast addresses of this machine, in this network namespace.

    Args:
        proc: the folder of a process, whose network namespace is meant; the calling thread's.
    """
    found: set[IPv4Address | IPv6Address] = set()
    address = ""
    for line in _lines(proc / "net/fib_trie"):
        # "|-- 192.0.2.1" names a leaf; what it is follows.
        mark, _, rest = line.strip().partition(" ")
        if mark == "|--":
            address = rest
        elif line.strip() == "/32 host LOCAL":
            found.add(IPv4Address(address))
    found.update(IPv6Address(bytes.fromhex(line[:32])) for line in _lines(proc / "net/if_inet6"))
    return frozenset(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        # A kernel without that protocol.
        return []
