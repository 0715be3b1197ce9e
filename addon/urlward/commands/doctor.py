"""``urlward doctor``: what usually is wrong on a machine that filters, and what to do about it."""

import argparse
import errno
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from urlward.commands.arguments import DONE, WRONG, Command
from urlward.config import SYSTEM, Config, configured
from urlward.config.tables import Table, split_address
from urlward.engine.errors import UrlwardError
from urlward.options import given_path
from urlward.process import module_command
from urlward.units import in_words

if TYPE_CHECKING:
    from urlward.proxy.preflight import Listener
    from urlward.proxy.settings import Settings


def together[T](parts: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T]:
    """Do all parts at a time, each in a thread that nobody waits for beyond the time, not even at the end.

    Args:
        parts: by name; they raise nothing.
        seconds: that all of them have.

    Returns:
        Results of those that were done in time.
    """
    found: dict[str, T] = {}

    def do(name: str) -> None:
        found[name] = parts[name]()

    threads = [threading.Thread(target=do, args=(name,), daemon=True) for name in parts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {name: found[name] for name in parts if name in found}


State = Literal["ok", "note", "wrong"]

CHECK_WITHIN = 20.0
"""Seconds in which a configuration has to be tried: a bundle for support has 30 for all that is looked at."""

NAMES_WITHIN = 5.0
"""Seconds in which a name has to be found."""

FILES = 4_096
"""Descriptors that a worker should be allowed."""

SPACE = 256 << 20
"""Bytes that should be free where state is kept."""

OLD = 30 * 86_400.0
"""Seconds after which a list that does not change is old."""

SECRETS = frozenset((
    "key", "seal", "sign", "users", "client_key", "url_file", "token_file", "password_file",
    "sentinel_password_file",
))  # fmt: skip
"""Keys of files whose content is nobody else's to know."""

CERTIFICATES = {"client_cert": "client_key", "certificate": "key"}
"""Keys of certificates' files, and of the files of their keys."""

ENDS_SOON = timedelta(days=30)


class Finding(NamedTuple):
    """Finding of one look.

    Attributes:
        about: what was looked at.
        state: ``note`` for what may be meant so.
        text: what was found.
        advice: what to do; empty where nothing is to be done.
    """

    about: str
    state: State
    text: str
    advice: str = ""


def _ok(about: str, text: str) -> Finding:
    return Finding(about, "ok", text)


def _note(about: str, text: str, advice: str) -> Finding:
    return Finding(about, "note", text, advice)


def _wrong(about: str, text: str, advice: str = "") -> Finding:
    return Finding(about, "wrong", text, advice)


def add_doctor_command(command: Command) -> None:
    """Declare ``urlward doctor``; what it needs is imported when it runs."""
    doctor = command("doctor", _doctor, "Look for what usually is wrong; exit code 1 where something is.")
    doctor.add_argument("--config", type=given_path, metavar="FILE", help=f"TOML file ({SYSTEM})")
    doctor.add_argument("--json", action="store_true", help="as a JSON array")


def _doctor(args: argparse.Namespace) -> int:
    path, config = configured(args.config)
    found = list(findings(path, config))
    if args.json:
        print(json.dumps([finding._asdict() for finding in found], indent=1))
    else:
        for finding in found:
            print(f"{finding.state:6}{finding.about:14}{finding.text}")
            if finding.advice:
                print(f"{'':20}{finding.advice}")
    return WRONG if any(finding.state == "wrong" for finding in found) else DONE


def findings(path: Path | None, config: Config) -> Iterator[Finding]:
    """Look at everything.

    Args:
        path: of the configuration; None for the defaults.
        config: read from it.
    """
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "configuration": lambda: _configuration(path, config),
        "clock": lambda: _clock(config),
        "DNS": lambda: _names(config),
        "ports": lambda: _ports(config),
        "reach": lambda: _reach(config),
        "state folder": lambda: _state(config),
        "secrets": lambda: _secrets(config),
        "certificate": lambda: _authority(config),
        "lists": lambda: _lists(config),
        "kernel": lambda: _kernel(config),
        "NAT64": lambda: _nat64(config),
        "fleet": lambda: _fleet(config),
        "hook": lambda: _hook(config),
        "pictures": lambda: _pictures(config),
        "files": _descriptors,
    }
    for about, look in looks.items():
        try:
            yield from look()
        except (UrlwardError, OSError) as e:
            yield _wrong(about, str(e))


def _configuration(path: Path | None, config: Config) -> Iterator[Finding]:
    from urlward.state.folder import state_folder
    from urlward.state.included import LastIncluded

    about = "configuration"
    if path is None:
        yield _note(about, f"none given, and there is no {SYSTEM}", "urlward init writes one")
        return
    command = module_command("urlward", "run", "--check", "--config", str(path))
    try:
        done = subprocess.run(  # noqa: S603 - our own
            command, capture_output=True, text=True, check=False, timeout=CHECK_WITHIN
        )
    except subprocess.TimeoutExpired:
        text = f"{path}: not tried within {CHECK_WITHIN:.0f} s; lists may be large, or the machine busy"
        yield _note(about, text, f"urlward run --check --config {path}")
        return
    if done.returncode == 0:
        yield _ok(about, f"{path} can be used")
        if lost := LastIncluded(config, state_folder(config.state)).lost:
            yield _wrong(about, lost, "put it back, or an empty file, or take it out of include")
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("urlward: ")]
    for line in said or [f"urlward: run --check ends with {done.returncode}"]:
        yield _wrong(about, line.removeprefix("urlward: "))


def _clock(config: Config) -> Iterator[Finding]:
    about, now = "clock", time.time()
    newest = max((f.stat().st_mtime for f in _files(config)), default=0.0)
    if newest > now + 86_400:
        when = f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M} UTC"
        yield _wrong(about, f"it is behind: files here are of {when}", "set it; timedatectl set-ntp true")
        return
    tool = shutil.which("timedatectl")
    said = ""
    if tool is not None:
        line = [tool, "show", "-p", "NTPSynchronized", "--value"]
        with suppress(subprocess.TimeoutExpired):  # where no D-Bus answers
            done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
            said = done.stdout.strip()
    if said == "no":
        advice = "timedatectl set-ntp true; schedules, certificates and records go by it"
        yield _note(about, "no time server keeps it", advice)
    else:
        yield _ok(about, f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC")


def _files(config: Config) -> list[Path]:
    from urlward.state.folder import state_folder

    state = state_folder(config.state)
    return [f for f in (*map(Path, config.list), *state.glob("*")) if f.is_file()]


def _names(config: Config) -> Iterator[Finding]:
    about = "DNS"
    # A feed's proxy finds the feed's own name.
    hosts = {host for feed in config.feed if feed.url and (host := urlsplit(feed.proxy or feed.url).hostname)}
    if not hosts:
        yield _ok(about, "no feed has a name to be found")
        return
    answers = together({host: partial(_lookup_error, host) for host in hosts}, NAMES_WITHIN)
    for host in sorted(hosts):
        if why := answers.get(host, "no answer"):
            yield _wrong(
                about,
                f"{host}: {why}",
                "look at /etc/resolv.conf, the feed's url, and its proxy (https_proxy is not read)",
            )
        else:
            yield _ok(about, f"{host} is found")


def _lookup_error(host: str) -> str:
    """Why a host is not found; empty where it is."""
    try:
        socket.getaddrinfo(host, 443)
    except (OSError, UnicodeError) as e:
        return getattr(e, "strerror", None) or str(e)
    return ""


def _settings(config: Config) -> "Settings":
    """What `urlward run` makes of a configuration, as far as addresses and modes go."""
    from urlward.gateway.rules import default_listen, default_modes
    from urlward.proxy.settings import DEFAULT_HOST, DEFAULT_PORT, Settings

    gateway, steer = config.gateway, config.gateway.steer
    listen = config.listen or default_listen(gateway, config.mode, steer=steer)
    return Settings(
        lists=(),
        modes=tuple(config.mode) or default_modes(gateway, steer=steer),
        listen=split_address(listen, lowest=0, any_host=True) if listen else (DEFAULT_HOST, DEFAULT_PORT),
        options={},
        confdir="",
        extra=(),
        config=config,
        steer=steer,
    )


def _reach(config: Config) -> Iterator[Finding]:
    """Who reaches the proxy and the dashboard from other machines."""
    from urlward.proxy.preflight import ASKING

    about, settings = "reach", _settings(config)
    hosts = {
        mode.listen_host(settings.listen[0])
        for mode in settings.parsed().values()
        if isinstance(mode, ASKING)
    }
    if not all(map(_is_local, hosts)) and config.proxy.users is None and "proxyauth" not in config.mitmproxy:
        advice = (
            "proxy.users has each asked for a password; or see that a firewall lets your own clients alone in"
        )
        yield _note(
            about, "whoever reaches the proxy's port can use it, to wherever this machine gets", advice
        )
    if config.admin is not None and not _is_local(split_address(config.admin.listen, lowest=0)[0]):
        text = f"admin.listen: {config.admin.listen}: tokens can be read on the way to it"
        yield _note(
            about, text, "127.0.0.1 and ssh -L, or a server with HTTPS in front; urlward help dashboard"
        )


def _is_local(host: str) -> bool:
    """Whether only this machine itself reaches an address to listen on; empty for all addresses."""
    with suppress(ValueError):
        return ip_address(host.partition("%")[0]).is_loopback
    return host == "localhost"


def _ports(config: Config) -> Iterator[Finding]:
    from urlward.proxy.preflight import Preflight
    from urlward.records.asking import NotRunningError, ask
    from urlward.state.folder import state_folder

    about = "ports"
    try:
        ask(state_folder(config.state), "status")
    except NotRunningError:
        pass
    else:
        yield _ok(about, "the filter runs, and has them")
        return
    for one in Preflight(config, _settings(config), ()).addresses():
        for protocol in sorted(one.protocols):
            where = f"{one.key}: {one}" + " (UDP)" * (protocol == "udp")
            if (error := _taken(one, protocol)) is not None:
                who = {
                    errno.EADDRINUSE: f"ss -ln{protocol[0]}p 'sport = :{one.port}' says who has it",
                    errno.EADDRNOTAVAIL: "ip address shows those of this machine",
                    errno.EACCES: "a port below 1024 is for root, and for the service's capabilities",
                }.get(error.errno or 0, "it is no address to listen on")
                text, advice = f"{where}: {error.strerror or error}", f"{who}; or choose another in {one.key}"
                if error.errno == errno.EADDRINUSE and config.records is None:
                    yield _note(
                        about, text, f"by this filter, if it runs, which [records] would tell; else {advice}"
                    )
                else:
                    yield _wrong(about, text, advice)
            else:
                yield _ok(about, f"{where} is free")


def _taken(address: "Listener", protocol: str) -> OSError | None:
    """Why nothing can listen at an address; None where something can."""
    from urlward.gateway.system import has_ipv6

    hosts = [address.host] if address.host else ["0.0.0.0", *["::"] * has_ipv6()]  # noqa: S104 - tried only
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as s:
                if protocol == "tcp":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                s.bind((host, address.port))
        except OSError as e:
            return e
    return None


def _state(config: Config) -> Iterator[Finding]:
    from urlward.state.folder import state_folder

    about, state = "state folder", state_folder(config.state)
    if not state.exists():
        yield _note(about, f"{state}: not there yet", "the first start makes it")
        return
    mode, free = state.stat().st_mode, shutil.disk_usage(state).free
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield _wrong(about, f"{state}: not writable for this user", f"run as its owner, or chown {state}")
    elif mode & 0o007:
        yield _wrong(about, f"{state}: everybody can look into it", f"chmod o-rwx {state}")
    elif free < SPACE:
        yield _wrong(about, f"{state}: {free >> 20} MB are free", "make room, or keep records for less long")
    else:
        yield _ok(about, f"{state}, {free >> 30} GB are free")


def _secrets(config: Config) -> Iterator[Finding]:
    from urlward.gateway.ca import authority_folder
    from urlward.lists.build import is_artifact

    about, folder = "secrets", authority_folder(config)
    files = {
        **dict(_secret_files(config, "")),
        **{f"key of {name}": Path(f"{name}.key") for name in config.list},
        **{f"confdir: {each.name}": each for each in folder.glob("mitmproxy-ca.p*")},
    }
    for n, feed in enumerate(config.feed):
        if config.sources and "@" in (feed.proxy or ""):
            number, _ = config.sources.place(f"feed.{n}.proxy")
            files[f"feed.{n}.proxy"] = config.sources.files[number].path
    found = [(key, file) for key, file in files.items() if _is_open(file, 0o006)]
    for key, file in found:
        advice = f"chmod o-rwx {file}, in a group of who reads it; and what is in it may be known: change it"
        yield _wrong(about, f"{key}: {file}: every user of this machine can read it", advice)
    for file in map(Path, (*config.list, *(feed.path for feed in config.feed if feed.path))):
        if _is_open(file, 0o006) and not (file.is_file() and is_artifact(file)):
            text = f"{file}: every user of this machine can read the list"
            yield _note(about, text, f"chmod o-rwx {file}, unless it is public; compile hashes it")
    if _is_open(folder, 0o002):
        yield _wrong(about, f"confdir: {folder}: every user can replace the authority", f"chmod o-w {folder}")
    elif not found:
        yield _ok(about, "no other user of this machine can read them")


def _secret_files(table: Table, within: str) -> Iterator[tuple[str, Path]]:
    """Files of a table, and of those in it, that hold what is secret, by their keys."""
    for name in type(table).model_fields:
        value, key = getattr(table, name), f"{within}{name}"
        # What is not absolute is in the state folder.
        # The file of a certificate has its key, too, where that has none of its own.
        is_secret = name in SECRETS or (name in CERTIFICATES and getattr(table, CERTIFICATES[name]) is None)
        if is_secret and isinstance(value, str) and (file := Path(value)).is_absolute():
            yield key, file
        for n, each in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(each, Table):
                yield from _secret_files(each, f"{key}.{n}." if isinstance(value, tuple) else f"{key}.")


def _is_open(path: Path, mode: int) -> bool:
    """Whether every user gets at a file or folder by one of these bits of its mode."""
    with suppress(OSError):
        real = path.resolve(strict=True)
        return bool(real.stat().st_mode & mode) and _is_reached(real)
    return False


def _is_reached(path: Path) -> bool:
    """Whether every user gets through the folders that a path is in."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)


def _authority(config: Config) -> Iterator[Finding]:
    from urlward.gateway.ca import authority, authority_folder

    about = "certificate"
    if config.intercept == "none":
        yield _ok(about, "nothing is decrypted (intercept)")
        return
    folder = authority_folder(config)
    if not folder.exists():
        yield _note(about, f"{folder}: no authority yet", "the first start makes one")
        return
    one = authority(folder)
    until = one.certificate.not_valid_after_utc
    if one.expired or until - datetime.now(UTC) < ENDS_SOON:
        advice = "have clients trust the next one before it is used: urlward help modes"
        yield _wrong(about, f"it ends, or has ended, {until:%Y-%m-%d}", advice)
        return
    trusted = ssl.create_default_context().get_ca_certs(binary_form=True)
    if one.encoded("der") in trusted:
        yield _ok(about, f"valid until {until:%Y-%m-%d}, and this machine trusts it")
    else:
        advice = "clients have to: urlward ca page; this machine need not"
        yield _note(about, f"valid until {until:%Y-%m-%d}; this machine does not trust it", advice)


def _lists(config: Config) -> Iterator[Finding]:
    from urlward.records.status import status_alone
    from urlward.state.folder import state_folder

    about, now = "lists", time.time()
    if not config.list and not config.feed:
        yield _note(about, "only the shipped sample", "name a list, or a feed")
    for name in config.list:
        path = Path(name)
        if not path.exists():
            yield _wrong(about, f"{path}: not there", "paths are from the configuration's folder")
        elif now - path.stat().st_mtime > OLD:
            age = in_words(now - path.stat().st_mtime)
            yield _note(about, f"{path}: has not changed for {age}", "a feed fetches what its body changes")
        else:
            yield _ok(about, f"{path}")
    for feed in status_alone(config.feed, state_folder(config.state), now)["feeds"]:
        wrong = [*feed["alarms"], *filter(None, [feed["reason"]])]
        for text in wrong:
            yield _wrong(about, f"feed {feed['name']}: {text}", f"urlward feeds refresh {feed['name']}")
        if not wrong:
            yield _ok(about, f"feed {feed['name']}: {feed['state']}")


def _kernel(config: Config) -> Iterator[Finding]:
    about = "kernel"
    if not config.gateway.interfaces:
        return
    from urlward.gateway.nft import Nft
    from urlward.gateway.rules import planned, rules
    from urlward.gateway.system import interface_faults, unmet

    made = planned(config, None)
    faults = [
        *unmet(made.plan.families),
        *interface_faults(
            config.gateway.interfaces, marks=config.gateway.keep_source, routes=config.gateway.steer
        ),
    ]
    for text in faults:
        yield _wrong(about, text)
    if os.geteuid() != 0:
        yield _note(about, "its rules can only be tried by root", "sudo urlward doctor")
        return
    Nft().check(rules(made.plan))
    yield _ok(about, "it takes the gateway's rules")


def _nat64(config: Config) -> Iterator[Finding]:
    """Prefixes by which the resolvers translate (RFC 7050), beside those that are steered."""
    gateway = config.gateway
    if not (gateway.interfaces and gateway.steer):
        return
    import dns.exception
    import dns.message
    import dns.query
    import dns.rdatatype

    from urlward.dns.resolver_addresses import SYSTEM, resolvers
    from urlward.engine.nat64 import nat64_prefix, prefixes_in
    from urlward.gateway.system import own_addresses

    asked, addresses = dns.message.make_query("ipv4only.arpa", "AAAA"), []
    for one in resolvers(gateway.dns.resolvers, own_addresses(), gateway.dns.port, SYSTEM):
        with suppress(dns.exception.DNSException, OSError):  # whether they answer is no matter of this
            answer = dns.query.udp(asked, one.host, timeout=gateway.dns.timeout, port=one.port)
            sets = [found for found in answer.answer if found.rdtype == dns.rdatatype.AAAA]
            addresses += [IPv6Address(data.address) for found in sets for data in found]
    for prefix in sorted(prefixes_in(addresses) - set(map(nat64_prefix, gateway.nat64))):
        advice = "name it there: what clients translate by it themselves, and listed IPv4 addresses, pass"
        yield _wrong("NAT64", f"resolvers answer with {prefix}, which gateway.nat64 does not name", advice)


def _fleet(config: Config) -> Iterator[Finding]:
    """Valkey, asked from here, and the answers that did not wait for all nodes."""
    if config.fleet is None or find_spec("valkey") is None:  # `run --check` says that it is missing
        return
    from urlward.commands.fleet import nodes_now
    from urlward.fleet.connection import AwayError

    about = "fleet"
    try:
        nodes = nodes_now(config)
    except AwayError as e:
        yield _wrong(about, f"Valkey is away: {e}", "see that it runs, and url, user, password, seal")
        return
    up = sum(node.state == "up" for node in nodes)
    yield _ok(about, f"Valkey is reached; {up} of {len(nodes)} nodes are up")
    for node in nodes:
        if node.twin:
            yield _wrong(about, f"two nodes are called {node.name}", "give each its own fleet.node")
        elif node.state != "up":
            yield _wrong(about, f"node {node.name} is {node.state}", "urlward fleet status")
    if (status := _told(config)) is None or not (fleet := status.get("fleet")):
        return
    answers, late = sum(fleet["answers"].values()), fleet["answers"]["late"]
    text = f"{late} of {answers} DNS answers did not wait for all nodes"
    if late:
        yield _note(
            about, text, "where that is many: a way to Valkey that is faster, or a higher fleet.settle"
        )
    else:
        yield _ok(about, text)


def _hook(config: Config) -> Iterator[Finding]:
    """The socket for hooks in resolvers."""
    about, path = "hook", config.gateway.hook.socket
    if path is None:
        return
    hook = (_told(config) or {}).get("hook")
    if hook is None:
        yield _note(about, f"{path}: nobody listens", "urlward run --steer does, and says so with [records]")
        return
    if not hook["connected"]:
        advice = "a hook connects with its first answer for a name that may be listed; urlward help resolvers"
        yield _note(about, f"{path}: no resolver is connected", advice)
    else:
        yield _ok(about, f"{path}: connections of resolvers: {hook['connected']}")
    if hook["late"]:
        advice = "where that is many: a machine with more time, or a higher gateway.hook.settle"
        yield _note(about, f"{hook['late']} replies came when the hook waited no more", advice)


def _told(config: Config) -> dict[str, Any] | None:
    """Status of the filter that runs; None where none does that records, or it does not answer."""
    from urlward.records.asking import ask
    from urlward.state.folder import state_folder

    try:
        return ask(state_folder(config.state), "status")
    except UrlwardError:
        return None


def _pictures(config: Config) -> Iterator[Finding]:
    about, files = "pictures", config.files
    if files is None or not (files.pictures != "off" or files.classifier):
        return
    from urlward.files.local import refusal

    if why := refusal(files):
        advice = "urlward help install" if "extra" in why else "exact digests are compared all the same"
        yield _wrong(about, f"are not looked at: {why}", advice)
    else:
        yield _ok(about, "are decoded in a sandbox, and compared")


def _descriptors() -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < FILES:
        advice = "ulimit -Hn, or LimitNOFILE= of the service"
        yield _wrong("files", f"a process may have {hard} open", advice)
    else:
        yield _ok("files", "a process may have enough open")
