"""Checks of ``urlward gateway up`` on machines that lack something a gateway needs.

Each is a namespace beside the lab's own, with interfaces of the same names, so nothing of the lab notices.
"""

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

from urlward.lab.addresses import FILTERED_LINKS
from urlward.lab.errors import LabError
from urlward.lab.isolation import environment
from urlward.lab.outcome import Result
from urlward.lab.topology import inside, run, set_sysctl

_SPARE = "spare"
_LIBRARY = "libnftables.so.1"
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")

type Checked = tuple[Result, str]


def without_forwarding(command: Sequence[str], ipv6: bool) -> Checked:
    """Check on a kernel that does not route: rules are installed, and the missing setting is named.

    Args:
        command: ``urlward gateway up`` with the lab's configuration.
        ipv6: whether the kernel has it.
    """
    families = _FORWARDING if ipv6 else _FORWARDING[:1]
    return _judged(_up(command, {}), 0, [f"{name} is 0" for name in families])


def without_ipv6(command: Sequence[str], ipv6: bool) -> Checked:
    """Check on a kernel without IPv6: IPv4 is filtered, and the output says that IPv6 is not."""
    settings = {"net.ipv4.ip_forward": "1"}
    if ipv6:
        settings |= {"net.ipv6.conf.all.forwarding": "1", "net.ipv6.conf.all.disable_ipv6": "1"}
    return _judged(_up(command, settings), 0, ["IPv6 is off in this kernel"] if ipv6 else [])


def without_nftables(command: Sequence[str]) -> Checked:
    """Check on a machine without libnftables: nothing is done, and the output says what to install."""
    hidden = ["sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', _library()]
    unshared = ["unshare", "--mount", "--propagation=private", *hidden, *command]
    return _judged(_up(unshared, {}), 2, ["nftables"])


def _up(command: Sequence[str], settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    run(["ip", "netns", "add", _SPARE])
    try:
        one, other = FILTERED_LINKS
        run(["ip", "-n", _SPARE, "link", "set", "lo", "up"])
        run(["ip", "-n", _SPARE, "link", "add", one, "type", "veth", "peer", "name", other])
        for name, value in settings.items():
            set_sysctl(_SPARE, name, value)
        return subprocess.run(  # noqa: S603 - the lab's own command
            inside(_SPARE, command), capture_output=True, text=True, check=False, env=environment()
        )
    finally:
        run(["ip", "netns", "del", _SPARE])


def _judged(done: "subprocess.CompletedProcess[str]", code: int, words: Sequence[str]) -> Checked:
    """Whether a command ended with that code, and printed a line with each of these words and no more."""
    lines = done.stderr.strip().splitlines()
    if done.returncode != code:
        return Result.UNEXPECTED, f"ended with {done.returncode}"
    if len(lines) != len(words):
        return Result.UNEXPECTED, f"says {len(lines)} lines, not {len(words)}"
    for line, word in zip(lines, words, strict=True):
        if not line.startswith("urlward: ") or word not in line:
            return Result.UNEXPECTED, f"does not say {word!r}"
    return Result.HELD, "says it in one line" if len(lines) == 1 else "says it in a line each"


def _library() -> str:
    """The path of the library, as the linker finds it."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as e:
        raise LabError(f"{_LIBRARY}: cannot be loaded") from e
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libnftables" in line:
            return line.split()[-1]
    raise LabError(f"{_LIBRARY}: cannot be found")
