"""Isolation of a lab: namespaces and mounts that the kernel ends with its process.

A lab is a process that is number 1 of a PID namespace of its own. When it ends, by itself, by Ctrl-C, in a
crash or by ``kill -9``, the kernel ends all processes in there; network namespaces, mounts and the
temporary file system that everything is written to go with the last of them. It ends with whoever has
started it too (the parent death signal), except for a lab that stays up.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from urlward.lab.errors import LabError
from urlward.lab.topology import run
from urlward.process import module_command

WORK = Path("/run/urlward-lab")
"""Outside: states of labs that are up. Inside, a file system of its own hides it."""

NETNS = Path("/run/netns")
HOME, TEMPORARY = WORK / "home", WORK / "tmp"
BUNDLE, RESOLV = WORK / "trusted.pem", WORK / "resolv.conf"
_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/ssl/cert.pem"))
CHROMIUM = Path("/etc/chromium")
CHROMIUM_POLICIES = CHROMIUM / "policies" / "managed"

_NOT_KEPT = ("*.key", "mitmproxy-ca.*", "bulk", "slow", "filler")
"""Secrets, and files of zeros."""

_UNSHARE = (
    "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--net", "--ipc", "--mount-proc",
    "--propagation=private",
)  # fmt: skip
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


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


def make_mount_points() -> None:
    """Make the two folders that a lab hides; they are empty, and common to all labs."""
    for folder in (WORK, NETNS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise LabError(f"{folder}: {e.strerror or e}") from e


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
    if CHROMIUM.is_dir():
        run(["mount", "-t", "tmpfs", "urlward-lab", str(CHROMIUM)])


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
        raise LabError(f"{target}: is not there; make an empty file, which the lab covers with its own")


def copy_out(folder: Path, to: Path) -> None:
    """Copy what a lab has written to where it stays.

    Raises:
        LabError: it cannot be written there.
    """
    try:
        shutil.copytree(folder, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_KEPT))
    except (OSError, shutil.Error) as e:
        raise LabError(f"{to}: {getattr(e, 'strerror', None) or 'cannot be written whole'}") from e
