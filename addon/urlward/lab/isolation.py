"""Isolation of a lab: namespaces and mounts that the kernel ends with its process; what it needs of the
machine, and which labs run.

A lab is a process that is number 1 of a PID namespace of its own. When it ends, by itself, by Ctrl-C, in a
crash or by ``kill -9``, the kernel ends all processes in there; network namespaces, mounts and the temporary
file system that everything is written to go with the last of them. It ends with whoever has started it too
(the parent death signal), except for a lab that stays up.

A small file for each running lab says which process it is. A lab that has ended without telling anybody
leaves such a file and nothing else. It is seen by the process's start, which no other process of that number
shares, and removed.
"""

import ctypes.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.lab.topology import run
from urlward.process import module_command

WORK = Path("/run/urlward-lab")
"""Outside: states of labs that are up. Inside, a file system of its own hides it."""

NETNS = Path("/run/netns")
HOME, TEMPORARY = WORK / "home", WORK / "tmp"
BUNDLE, RESOLV = WORK / "trusted.pem", WORK / "resolv.conf"
_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/ssl/cert.pem"))

CHROMIUM_FOLDER = Path("/etc/chromium")

CHROMIUM_POLICIES = CHROMIUM_FOLDER / "policies" / "managed"

_NOT_KEPT = ("*.key", "key", "key.copy", "mitmproxy-ca.*", "bulk", "slow", "filler")
"""Secrets, and files of zeros."""

_UNSHARE = (
    "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--net", "--ipc", "--mount-proc",
    "--propagation=private",
)  # fmt: skip
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_END_WITHIN = 15.0

_PATH = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def program(order: str) -> list[str]:
    """Command line of process 1 of a lab; `order` is its task."""
    return module_command("urlward.lab.inside", order)


def isolated(order: str) -> list[str]:
    """Command line of a lab that ends with the process that runs it."""
    return [*_END_WITH_PARENT, *_UNSHARE, *program(order)]


def detached(order: str) -> list[str]:
    """Command line of a lab that outlives the process that runs it."""
    return [*_UNSHARE, *program(order)]


def joining(pid: int, order: str) -> list[str]:
    """Command line of a run in a running lab: in its network, as processes that end with their parent."""
    nested = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc"]
    return [*_END_WITH_PARENT, *entering(pid), *nested, *program(order)]


def entering(pid: int, namespace: str | None = None) -> list[str]:
    """First part of a command line that enters a running lab, on one of its machines where one is named.

    Args:
        pid: of the lab's number 1, as it is seen from outside.
        namespace: name of the machine.
    """
    net = f"--net=/proc/{pid}/root{NETNS}/{namespace}" if namespace else "--net"
    return ["nsenter", f"--target={pid}", "--mount", "--ipc", "--pid", net, "--wdns=/"]


def has_machine(pid: int, namespace: str) -> bool:
    """Whether a running lab has a machine.

    Args:
        pid: of the lab's number 1, as it is seen from outside.
        namespace: name of the machine.
    """
    return Path(f"/proc/{pid}/root{NETNS}/{namespace}").exists()


def make_mount_points() -> None:
    """Make the two folders that a lab hides; they are empty, and common to all labs."""
    for folder in (WORK, NETNS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UrlwardError(f"{folder}: {e.strerror or e}") from e


def furnish(resolvers: Sequence[str]) -> None:
    """Mount what a lab needs of its own, inside its mount namespace.

    Args:
        resolvers: addresses for ``/etc/resolv.conf``.
    """
    for folder, size in ((NETNS, "1m"), (WORK, "60%"), (Path("/dev/shm"), "50%")):  # noqa: S108 - a mount
        if folder.is_dir():
            run(["mount", "-t", "tmpfs", "-o", f"mode=0755,size={size}", "urlward-lab", str(folder)])
    for folder in (HOME, TEMPORARY):
        folder.mkdir()
    RESOLV.write_text("".join(f"nameserver {a}\n" for a in resolvers) + "options timeout:3 attempts:2\n")
    switch, hosts = WORK / "nsswitch.conf", WORK / "hosts"
    # Other sources than files and DNS would ask the machine that the lab runs on.
    switch.write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    BUNDLE.touch()
    _bind(RESOLV, Path("/etc/resolv.conf"), needed=True)
    _bind(switch, Path("/etc/nsswitch.conf"))
    _bind(hosts, Path("/etc/hosts"))
    for bundle in _BUNDLES:
        _bind(BUNDLE, bundle)
    if CHROMIUM_FOLDER.is_dir():
        run(["mount", "-t", "tmpfs", "urlward-lab", str(CHROMIUM_FOLDER)])


def small_disk(folder: Path, megabytes: int) -> None:
    """Mount a file system of that size, for what may become full."""
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "urlward-lab", str(folder)])


def environment() -> dict[str, str]:
    """Environment of the lab's programs: the machine's, with the lab's folders and trust."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **kept,
        "HOME": str(HOME),
        "TMPDIR": str(TEMPORARY),
        "XDG_RUNTIME_DIR": str(TEMPORARY),
        "SSL_CERT_FILE": str(BUNDLE),
        "CURL_CA_BUNDLE": str(BUNDLE),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]),
    }


def child_of(pid: int) -> int | None:
    """The first child of a process."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and parent_of(int(path.name)) == pid:
            return int(path.name)
    return None


def children_of(pid: int) -> list[int]:
    """All children of a process, oldest first."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return sorted(child for child in found if parent_of(child) == pid)


def runs(pid: int, module: str) -> bool:
    """Whether a process runs a module of ours."""
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def parent_of(pid: int) -> int | None:
    """The parent of a process; None where there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def started_at(pid: int) -> int | None:
    """Start time of a process, in clock ticks since the boot; with its number it identifies the process."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else None


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat, beginning with the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _bind(source: Path, target: Path, *, needed: bool = False) -> None:
    real = target.resolve()
    if real.exists():
        run(["mount", "--bind", str(source), str(real)])
    elif needed:
        raise UrlwardError(f"{target}: is not there; make an empty file, which the lab covers with its own")


def copy_out(folder: Path, to: Path) -> None:
    """Copy what a lab has written to where it stays.

    Raises:
        UrlwardError: it cannot be written there.
    """
    try:
        shutil.copytree(folder, to, dirs_exist_ok=True, ignore=_not_kept)
    except (OSError, shutil.Error) as e:
        raise UrlwardError(f"{to}: {getattr(e, 'strerror', None) or 'cannot be written whole'}") from e


def _not_kept(folder: str, names: list[str]) -> set[str]:
    paths = ((name, Path(folder) / name) for name in names)
    others = {name for name, path in paths if not (path.is_file() or path.is_dir())}  # sockets
    return others | set(shutil.ignore_patterns(*_NOT_KEPT)(folder, names))


@dataclass(frozen=True, slots=True)
class Running:
    """Running lab.

    Attributes:
        name: given to it.
        pid: of its number 1, as seen from outside.
        start: of that process, in clock ticks since the boot.
        scenario: that it was set up for.
    """

    name: str
    pid: int
    start: int
    scenario: str


def path_of(name: str, folder: Path = WORK) -> Path:
    """Path of a lab's state file.

    Raises:
        UrlwardError: that is no name for a lab.
    """
    if not _NAME.fullmatch(name):
        raise UrlwardError(f"{name!r} is no name for a lab: letters, digits, - and _, 32 at most")
    return folder / f"{name}.json"


def find_running(name: str, folder: Path = WORK) -> Running | None:
    """Find the running lab of that name; None where there is none."""
    path = path_of(name, folder)
    try:
        running = Running(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        running = Running(name, 0, 0, "")
    if running.pid and started_at(running.pid) == running.start:
        return running
    with suppress(OSError):
        path.unlink()
    return None


def running_labs(folder: Path = WORK) -> list[Running]:
    """All running labs."""
    found = [find_running(path.stem, folder) for path in sorted(folder.glob("*.json"))]
    return [running for running in found if running]


def the_running(name: str, folder: Path = WORK) -> Running:
    """Find the running lab of that name, or raise.

    Raises:
        UrlwardError: it is not up.
    """
    running = find_running(name, folder)
    if running is None:
        others = ", ".join(other.name for other in running_labs(folder))
        raise UrlwardError(
            f"lab {name}: is not up ({f'there are: {others}' if others else 'none is'}); try: urlward lab up"
        )
    return running


def remember(running: Running, folder: Path = WORK) -> None:
    """Write a lab's state."""
    path = path_of(running.name, folder)
    try:
        path.write_text(json.dumps(asdict(running)))
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e


def end(running: Running, folder: Path = WORK) -> None:
    """Stop a lab, and wait until it has ended.

    Raises:
        UrlwardError: it does not end.
    """
    until = time.monotonic() + _END_WITHIN
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(running.pid, number)
        while started_at(running.pid) == running.start and time.monotonic() < until - _END_WITHIN / 3:
            time.sleep(0.02)
        until += _END_WITHIN / 3
    if started_at(running.pid) == running.start:
        raise UrlwardError(f"lab {running.name}: process {running.pid} does not end")
    with suppress(OSError):
        path_of(running.name, folder).unlink()


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
        UrlwardError: one line for each thing that is missing.
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
        raise UrlwardError("\nurlward: ".join(missing))
    _check_namespaces()


def _check_namespaces() -> None:
    command = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["unshare fails"]
        raise UrlwardError(
            f"lab: this machine lets nobody make namespaces ({reason[0].removeprefix('unshare: ')}); "
            "in a container it needs --privileged"
        )
