"""Actions of a step before its requests: reloads, faults, and checks of the gateway's rules, also on machines
that lack something a gateway needs.

Each of those machines is a namespace beside the lab's own, with interfaces of the same names, so nothing of
the lab notices.
"""

import ctypes
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.lab.fleet import Fleet
from urlward.lab.isolation import environment
from urlward.lab.outcome import JudgedAttempt, Result
from urlward.lab.scenario import ScenarioStep
from urlward.lab.topology import CLIENT, FILTERED_LINKS, GATEWAY, inside, run, set_sysctl
from urlward.lab.world import World

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
    # Which a namespace has as the machine has it, one with Docker, say.
    return _judged(_up(command, dict.fromkeys(families, "0")), 0, [f"{name} is 0" for name in families])


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
        raise UrlwardError(f"{_LIBRARY}: cannot be loaded") from e
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libnftables" in line:
            return line.split()[-1]
    raise UrlwardError(f"{_LIBRARY}: cannot be found")


_SLOW = 3.0
"""Seconds that a slow resolver takes, where the step does not say."""

_SETTLES = 10.0
"""Seconds after which what timed out must be gone."""

_BACK_WITHIN, _REPLACED_WITHIN = 2.0, 15.0
"""Seconds after which rules must be back, and a worker that hangs ended, on a machine that is busy too."""

_MORE_DESCRIPTORS, _MORE_BYTES = 24, 64 << 20
"""Descriptors and bytes that the filter may hold beyond what it began with."""

_NOTICED = 60.0
"""Seconds within which the filter must notice what has become of its way."""


def act(world: World, number: int, step: ScenarioStep) -> JudgedAttempt | None:
    """Carry out a step's action.

    Args:
        world: the lab.
        number: of the step, from 0.
        step: with an action.

    Returns:
        What it has shown, where it is a check.
    """
    assert step.action
    checked = _ACTIONS[step.action](world, step)
    if checked is None:
        return None
    title = f"{number + 1}" + (f" {step.name}" if step.name else "")
    return JudgedAttempt(title, step.action, "the lab", "", checked[0], checked[1])


def _stop_filter(world: World, _: ScenarioStep) -> Checked:
    code = world.filter.stop()
    if code:
        return Result.UNEXPECTED, f"it ended with {code}"
    return Result.HELD, "it ended with 0"


def _canary(world: World, _: ScenarioStep) -> Checked:
    """Check that the canary names a stage that breaks, and notices its end."""
    filter_ = world.filter
    if not _comes_to(lambda: filter_.status().returncode == 0):
        return Result.UNEXPECTED, "it does not come through"
    with filter_.in_the_way("tcp dport 80 ip daddr 192.0.2.252"):
        if not _comes_to(lambda: "redirect: " in filter_.status().stdout):
            return Result.UNEXPECTED, "a stage that is broken is not named"
        if filter_.status().returncode != 1:
            return Result.UNEXPECTED, "the exit code says that traffic is filtered"
    if not _comes_to(lambda: filter_.status().returncode == 0):
        return Result.UNEXPECTED, "it does not come through any more"
    return Result.HELD, "it comes through, and where it does not the stage is named"


def _routing_rule(world: World, _: ScenarioStep) -> Checked:
    """Check that filtered traffic still arrives after somebody adds a rule without a preference."""
    for version in ("-4", "-6") if world.ipv6 else ("-4",):
        # For all else it changes nothing.
        run(inside(GATEWAY, ["ip", version, "rule", "add", "lookup", "main"]))
    if not _comes_to(lambda: world.filter.status().returncode == 0):
        return Result.UNEXPECTED, "what is filtered goes another way"
    return Result.HELD, "what is filtered goes before it"


def _bridge_port(world: World, _: ScenarioStep) -> Checked:
    """Check that a warning says that clients come in by another interface name."""
    filter_, ip = world.filter, ["ip", "link"]
    run(inside(GATEWAY, [*ip, "add", "bridge", "type", "bridge"]))
    try:
        run(inside(GATEWAY, [*ip, "set", CLIENT.link, "master", "bridge"]))
        status = filter_.status()
        if status.returncode != 1 or f"{CLIENT.link} bridge" not in status.stdout:
            return Result.UNEXPECTED, "an interface that is a port is not named"
    finally:
        run(inside(GATEWAY, [*ip, "del", "bridge"]))
    if not _comes_to(lambda: filter_.status().returncode == 0):
        return Result.UNEXPECTED, "its end is not noticed"
    return Result.HELD, "named, and its end noticed"


def _comes_to(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + _NOTICED
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _second_filter(world: World, _: ScenarioStep) -> Checked:
    done = world.filter.second()
    lines = done.stderr.strip().splitlines()
    if done.returncode == 2 and len(lines) == 1 and lines[0].startswith("urlward: "):
        return Result.HELD, "refused, in one line"
    return Result.UNEXPECTED, f"ended with {done.returncode} and {len(lines)} lines"


def _rules(world: World, *, there: bool) -> Checked:
    """Check whether the gateway has rules, as it should."""
    are_there = world.agent(GATEWAY).ask("rules")["there"]
    if there:
        return (Result.HELD, "they are there") if are_there else (Result.UNEXPECTED, "there are none")
    return (Result.UNEXPECTED, "there are rules") if are_there else (Result.HELD, "there are none")


def _reload_firewall(world: World, _: ScenarioStep) -> Checked:
    before = world.agent(GATEWAY).ask("rules")
    run(inside(GATEWAY, ["nft", "-f", "-"]), "flush ruleset\n")
    began = time.monotonic()
    end = began + _BACK_WITHIN
    while (now := world.agent(GATEWAY).ask("rules")) != before and time.monotonic() < end:
        time.sleep(0.01)
    told = f"{(time.monotonic() - began) * 1000:.0f} ms"
    if now == before:
        return Result.HELD, f"seen to be back, with the content of the sets, after {told}"
    return Result.UNEXPECTED, f"not back as they were after {told}"


def _hang_worker(world: World, _: ScenarioStep) -> Checked:
    began = time.monotonic()
    stopped = world.filter.stop_worker()
    end = began + _REPLACED_WITHIN
    while stopped in world.filter.workers() and time.monotonic() < end:
        time.sleep(0.05)
    told = f"{time.monotonic() - began:.1f} s"
    if stopped in world.filter.workers():
        return Result.UNEXPECTED, f"it hangs on after {told}"
    return Result.HELD, f"it is ended after {told}"


def _nothing_piles_up(world: World, _: ScenarioStep) -> Checked:
    before, now = world.begun_with, world.filter.holds()
    end = time.monotonic() + _SETTLES
    while now.descriptors > before.descriptors + _MORE_DESCRIPTORS and time.monotonic() < end:
        time.sleep(0.1)
        now = world.filter.holds()
    files, size = now.descriptors - before.descriptors, now.bytes - before.bytes
    told = f"{files:+} open files, {size / 1e6:+.0f} MB"
    good = files <= _MORE_DESCRIPTORS and size <= _MORE_BYTES
    return (Result.HELD if good else Result.UNEXPECTED), told


def _start_node(world: World, step: ScenarioStep) -> Checked:
    began = time.monotonic()
    lacks = _fleet(world).start_again(step.node)
    if lacks:
        return Result.UNEXPECTED, f"it filters, and {lacks}"
    return Result.HELD, f"it filters after {time.monotonic() - began:.1f} s, with all that others steer"


def _every_node(world: World, _: ScenarioStep) -> Checked:
    if idle := _fleet(world).idle():
        return Result.UNEXPECTED, f"node {idle[0]} has blocked nothing"
    return Result.HELD, "each node has blocked something since this was last asked"


def _address_moves(world: World, _: ScenarioStep) -> Checked:
    number, device, address, ethernet = _fleet(world).move_address()
    world.agent(f"node{number}").ask("announce", device=device, address=address, ethernet=ethernet)
    return Result.HELD, f"node {number} has it"


def _flush_valkey(world: World, _: ScenarioStep) -> Checked:
    began = time.monotonic()
    count = _fleet(world).flush_valkey()
    return Result.HELD, f"it has its {count} addresses again after {time.monotonic() - began:.1f} s"


def _nodes_together(world: World, _: ScenarioStep) -> Checked:
    began = time.monotonic()
    _fleet(world).come_together()
    return Result.HELD, f"all nodes have the new one after {time.monotonic() - began:.1f} s more"


def _allow(world: World, step: ScenarioStep) -> None:
    assert step.requests[0].url
    _fleet(world).allow(step.node, step.requests[0].url)


def _fleet(world: World) -> Fleet:
    assert world.fleet, "as the scenario was checked"
    return world.fleet


_ACTIONS: dict[str, Callable[[World, ScenarioStep], Checked | None]] = {
    "reload": lambda world, step: world.filter.write_list(step.entries),
    "kill-worker": lambda world, _: world.filter.kill_workers(1),
    "kill-all-workers": lambda world, _: world.filter.kill_workers(),
    "kill-filter": lambda world, _: world.filter.kill(),
    "stop-filter": _stop_filter,
    "start-filter": lambda world, _: world.start_filter(),
    "canary": _canary,
    "routing-rule": _routing_rule,
    "bridge-port": _bridge_port,
    "fresh-rules": lambda world, _: world.filter.begin_anew(),
    "second-filter": _second_filter,
    "stop-resolver": lambda world, _: world.resolver.stop(),
    "hang-resolver": lambda world, _: world.resolver.hang(),
    "slow-resolver": lambda world, step: world.resolver.slow(step.value or _SLOW),
    "fill-disk": lambda world, _: world.filter.fill_disk(),
    "damage-list": lambda world, _: world.filter.damage_list(),
    "rules-gone": lambda world, _: _rules(world, there=False),
    "rules-there": lambda world, _: _rules(world, there=True),
    "reload-firewall": _reload_firewall,
    "hang-worker": _hang_worker,
    "no-forwarding": lambda world, _: without_forwarding(world.filter.up_command, world.ipv6),
    "no-ipv6": lambda world, _: without_ipv6(world.filter.up_command, world.ipv6),
    "no-nftables": lambda world, _: without_nftables(world.filter.up_command),
    "nothing-piles-up": _nothing_piles_up,
    "restore": lambda world, _: world.restore(),
    "kill-node": lambda world, step: _fleet(world).kill(step.node),
    "start-node": _start_node,
    "every-node": _every_node,
    "address-moves": _address_moves,
    "kill-valkey": lambda world, _: _fleet(world).kill_valkey(),
    "hang-valkey": lambda world, _: _fleet(world).hang_valkey(),
    "flush-valkey": _flush_valkey,
    "nodes-together": _nodes_together,
    "roll-back": lambda world, _: _fleet(world).roll_back(),
    "allow": _allow,
}
