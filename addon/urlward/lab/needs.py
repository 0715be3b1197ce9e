"""Requirements of the lab on the machine, and how to get what is missing."""

import ctypes.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from urlward.lab.errors import LabError

_PATH = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"]))


@dataclass(frozen=True, slots=True)
class Program:
    """Program that is needed, and its Debian package."""

    name: str
    package: str


NEEDED = (
    Program("ip", "iproute2"),
    Program("unshare", "util-linux"),
    Program("setpriv", "util-linux"),
    Program("nsenter", "util-linux"),
    Program("mount", "mount"),
    Program("nginx", "nginx-light"),
    Program("dnsmasq", "dnsmasq-base"),
    Program("curl", "curl"),
)
CHROMIUM = Program("chromium", "chromium")
WRK = Program("wrk", "wrk")
NFT_LIBRARY = Program("nftables", "libnftables1")


@cache
def find(name: str) -> str | None:
    """Path of a program; administrators' folders are searched even where PATH leaves them out."""
    return shutil.which(name, path=_PATH)


def check_needs() -> None:
    """Check everything that the lab cannot do without.

    Raises:
        LabError: one line for each thing that is missing.
    """
    missing = [
        f"{program.name}: not found; install the Debian package {program.package}"
        for program in NEEDED
        if not find(program.name)
    ]
    if not ctypes.util.find_library(NFT_LIBRARY.name):
        missing.append(f"libnftables.so.1: not found; install the Debian package {NFT_LIBRARY.package}")
    if os.geteuid():
        missing.insert(0, "lab: needs root, for network namespaces; try: sudo")
    if missing:
        raise LabError("\nurlward: ".join(missing))
    _check_namespaces()


def _check_namespaces() -> None:
    command = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["unshare fails"]
        raise LabError(
            f"lab: this machine lets nobody make namespaces ({reason[0].removeprefix('unshare: ')}); "
            "in a container it needs --privileged"
        )


def has_ipv6() -> bool:
    """Whether the kernel has IPv6."""
    return Path("/proc/net/if_inet6").exists()
