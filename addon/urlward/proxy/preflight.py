"""Preflight: finds configuration that would keep a filter from working, before it starts.

Whatever is looked at here is read; nothing is listened on, written or fetched. What the lists hold is not
looked at: the process that starts workers lives as long as they, and must not have read a list.
"""

import os
import re
import socket
import sqlite3
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from mitmproxy.proxy import mode_specs

from urlward.config import Config, FeedTable, Problem
from urlward.config.problem import key_of
from urlward.config.records import ASSIGNMENTS, StoreTable, no_days_of_assignments
from urlward.config.tables import join_address, split_address
from urlward.engine.errors import UrlwardError
from urlward.feeds.source import origin
from urlward.feeds.tls import context
from urlward.lists.build import find_key
from urlward.lists.formats import FormatOptions, format_named
from urlward.lists.source import NO_FOLDER, ErrorBudget
from urlward.lists.trust import read_trust
from urlward.options import FLAGS, OF_ADDON
from urlward.proxy.addon import block_pages
from urlward.proxy.authority import CA_FILE, authority_problem, passphrase_of
from urlward.proxy.connection import is_local
from urlward.proxy.passwords import read_users
from urlward.proxy.settings import DEFAULT_CONFDIR, Settings
from urlward.regular import open_regular, read_regular
from urlward.state.folder import NAMES, state_folder
from urlward.state.keys import read_key

PICTURES = ("threatexchange", "pdqhash", "numpy", "PIL", "av")
"""Packages of the extra for pictures."""

_TCP = frozenset(("tcp",))
ASKING = mode_specs.RegularMode | mode_specs.UpstreamMode | mode_specs.Socks5Mode
"""Modes in which a client names its destination, and can be asked for a password."""

_BESIDE = re.compile(r"|-wal|-shm|-journal|\.[0-9]+").fullmatch
"""Suffixes of the names of a store's files."""

_OF_STATE = {(), *((name,) for name in NAMES)}
_AUTHORITY = "mitmproxy-"

_KERNELS = ("/proc", "/sys")
"""Where root may write by what access(2) says, and nobody can make a file."""

_SET_BY = {
    "mode": "mode",
    "listen_host": "listen",
    "listen_port": "listen",
    "confdir": "confdir",
    "http2": "http2",
}
_SET_BY |= {each.option: each.name for each in OF_ADDON if each.flag}
_SET_BY |= {name: name for name in FLAGS}
"""Options that urlward sets from what flags of its own say, which it looks at, and what is no option of
mitmproxy's but such a flag; and those flags."""


class Listener(NamedTuple):
    """Configured listening address.

    Attributes:
        key: that says so, or flag.
        in_file: whether it is a key of the configuration file.
        host: an address or name; empty for all addresses.
        port: 0 for any.
        protocols: ``tcp``, ``udp``.
    """

    key: str
    in_file: bool
    host: str
    port: int
    protocols: frozenset[str]

    def __str__(self) -> str:
        return join_address(self.host, self.port)


class Preflight:
    """Checker of a configuration before the start.

    Args:
        config: the configuration.
        settings: what `urlward run` makes of it and of its flags.
        flags: names of the flags that were given, such as ``listen``.
        admin: HOST:PORT of the dashboard as a flag, or empty.
    """

    def __init__(self, config: Config, settings: Settings, flags: Collection[str], admin: str = "") -> None:
        self._config = config
        self._settings = settings
        self._flags = flags
        self._admin = admin

    def problems(self) -> Iterator[Problem]:
        """All problems found, in no order."""
        yield from self._options()
        yield from self._modes()
        yield from self._proxy()
        yield from self._listeners()
        yield from self._lists()
        yield from self._feeds()
        yield from self._records()
        yield from self._fleet()
        yield from self._files()
        yield from self._dashboard()
        yield from self._pages()
        yield from self._authority()
        yield from self._state()

    def _problem(self, key: str, text: object) -> Problem:
        """Problem with the value of a flag, or of the key of the same name."""
        where, in_file = self._place(key)
        return Problem(where, str(text), in_file)

    def _place(self, key: str) -> tuple[str, bool]:
        """The flag that says what a key does, or that key; and whether it is the key."""
        name = key.partition(".")[0]
        return (f"--{name}", False) if name in self._flags else (key, True)

    def _options(self) -> Iterator[Problem]:
        """Options that go past what urlward looks at, or that it sets after them."""
        of_file = len(self._config.mitmproxy)
        for n, option in enumerate(self._settings.extra):
            (name, _, value), in_file = option.partition("="), n < of_file
            for text in self._of_option(name, value, in_file=in_file):
                where, said = (f"mitmproxy.{name}", text) if in_file else ("--set", f"{name}: {text}")
                yield Problem(where, said, in_file)

    def _of_option(self, name: str, value: str, *, in_file: bool) -> Iterator[str]:
        key = _SET_BY.get(name)
        if key is not None:
            own = f"the key {key}" if in_file and key in Config.model_fields else f"--{key.replace('_', '-')}"
            yield f"urlward sets this option: use {own}"
        elif name == "connect_addr":
            try:
                ip_address(value)
            except ValueError:
                yield f"{value!r} is not an IP address"
        elif name == "proxyauth":
            if self._config.proxy.users is not None:
                yield "the key proxy.users says who may use the proxy: take one of them"
            for spec in self._unasked():
                yield f"nobody is asked for a password in the mode {spec}: use the key proxy.users"
        elif value and (text := _tls_problem(name, value)):
            yield text

    def _unasked(self) -> list[str]:
        """The modes in which no client is asked for a password."""
        return [mode.full_spec for mode in self._settings.parsed().values() if not isinstance(mode, ASKING)]

    def _proxy(self) -> Iterator[Problem]:
        if self._config.proxy.users is not None:
            users = Path(self._config.proxy.users)
            if (unasked := self._unasked()) and len(unasked) == len(self._settings.modes):
                yield Problem("proxy.users", f"nobody is asked for a password in the mode {unasked[0]}")
            yield from self._usable("proxy.users", lambda: read_users(users))

    def _modes(self) -> Iterator[Problem]:
        for n, spec in enumerate(self._settings.modes):
            try:
                mode_specs.ProxyMode.parse(spec)
            except ValueError as e:
                yield self._problem(f"mode.{n}", f"{spec!r}: {e}")

    def _listeners(self) -> Iterator[Problem]:
        seen: list[Listener] = []
        for one in self.addresses():
            if one.host and (reason := _unknown(one.host)):
                yield Problem(one.key, f"{one}: cannot listen there: {reason}", one.in_file)
            other = next((other for other in seen if _meet(one, other)), None)
            if other is not None:
                text = f"{one} is where {other.key} ({other}) listens: choose another port"
                yield Problem(one.key, text, one.in_file)
            seen.append(one)
        hook = self._config.gateway.hook.folder
        if hook is not None and not Path(hook).is_dir():
            text = f"{hook}: no such folder; make it, for the resolver's group (urlward help resolvers)"
            yield Problem("gateway.hook.folder", text)

    def notes(self) -> Iterator[Problem]:
        """Addresses to listen on and feeds' paths that are not there now: they may come, or be another
        machine's, but one may be misspelt as well."""
        for one in self.addresses():
            if one.host and _is_absent(one.host):
                yield Problem(one.key, f"{one}: this machine has no such address now", one.in_file)
        for n, feed in enumerate(self._config.feed):
            if feed.path is not None and (problem := _readable(feed.path)) is not None:
                yield Problem(
                    f"feed.{n}.path", f"{problem}; until it can be read nothing new is taken from it"
                )

    def idle(self) -> Iterator[Problem]:
        """Keys that change nothing as the rest is: a setting that is silently ignored is no setting."""
        config, steers, files = self._config, self._settings.steer, self._config.files
        asking = len(self._unasked()) < len(self._settings.modes)
        tunnel = any(isinstance(mode, mode_specs.WireGuardMode) for mode in self._settings.parsed().values())
        learns = files is not None and not {files.action, files.pictures} <= {"alert", "off"}
        rules = "gateway.interfaces (where clients come in): there are no rules"
        named = "a mode in which clients name their destinations, such as regular"
        elsewhere = "objections.listen: another machine takes them"
        intercepts, pages = config.gateway.steered == "intercept", config.gateway.dns.listed_hosts == "page"
        inspects, classifies = files and files.inspects, files and files.classifier
        takes, tries = (
            config.objections and config.objections.listen,
            config.publish and config.publish.canary,
        )
        # What is needed, the table, and its keys that say nothing without.
        for needed, words, place, keys in (
            (self._settings.lists, "list; of feeds there is feed.trust", "", "trust"),
            (
                config.gateway.interfaces,
                rules,
                "gateway",
                "clients exempt never ports fail on_stop mss canary",
            ),
            (steers, "gateway.steer", "gateway", "steered max_addresses max_change dns hook"),
            (intercepts, 'steered = "intercept"', "gateway", "intercept_port"),
            (pages or not steers, 'listed_hosts = "page"', "gateway.dns", "page_addresses"),
            (asking, named, "proxy", "ports connect_ports pac"),
            (asking or tunnel, named, "proxy", "allow_local"),
            (config.probing.slow, "slow = true", "probing", "rate"),
            (takes, elsewhere, "objections", "proxies per_hour per_hour_all"),
            (tries, "a [[publish.canary]]", "publish", "observe max_rise"),
            (steers, "gateway.steer", "fleet", "settle"),
            (learns, 'action or pictures = "cut" or "learn"', "files", "learn_days learn_folders"),
            (
                inspects,
                "pictures or classifier",
                "files",
                "max_picture video processes sandbox deadline queue",
            ),
            (classifies, "classifier", "files", "classifier_threshold"),
        ):
            table = attrgetter(place)(config) if place else config
            for key in keys.split() if table is not None and not needed else ():
                if getattr(table, key) != type(table).model_fields[key].default:
                    yield Problem(f"{place}.{key}".lstrip("."), f"it changes nothing without {words}")
        for name in config.pages.keys() - {group.page for group in config.group}:
            yield Problem(key_of(["pages", name]), "no group names it, so it changes nothing")
        for n, feed in enumerate(config.feed):
            if feed.stale_limit < feed.interval:
                yield Problem(f"feed.{n}.stale_after", "less than interval: an alarm before each refresh")

    def addresses(self) -> Iterator[Listener]:
        """Addresses to listen on, of the filter and of what is beside it."""
        host, port = self._settings.listen
        for n, mode in self._settings.parsed().items():
            number = mode.listen_port(port)
            if number is not None:
                place = self._place(self._said_by(n, mode))
                protocol = mode.transport_protocol
                protocols = ("tcp", "udp") if protocol == "both" else (protocol,)
                yield Listener(*place, mode.listen_host(host), number, frozenset(protocols))
        config = self._config
        if self._admin:
            address = split_address(self._admin, lowest=0, any_host=True)
            yield Listener("--admin", False, *address, _TCP)
        elif config.admin is not None:
            yield Listener("admin.listen", True, *split_address(config.admin.listen, lowest=0), _TCP)
        if config.objections is not None and config.objections.address is not None:
            yield Listener("objections.listen", True, *config.objections.address, _TCP)

    def _said_by(self, n: int, mode: mode_specs.ProxyMode) -> str:
        """The key that configures where the n-th mode listens."""
        if not self._config.mode and "mode" not in self._flags:
            # The modes of a filter that steers come from the gateway's ports; see `steering_modes`.
            if isinstance(mode, mode_specs.DnsMode):
                return "gateway.dns.port"
            return "gateway.intercept_port" if mode.custom_listen_port else "listen"
        return f"mode.{n}" if mode.custom_listen_port or len(self._settings.modes) > 1 else "listen"

    def _lists(self) -> Iterator[Problem]:
        options, lists = self._settings.options, self._settings.lists
        if key := options.get("urlward_key"):
            yield from self._usable("key", lambda: read_key(Path(str(key))))
        yield from self._usable("trust", lambda: read_trust(self._settings.trust))
        for n, path in enumerate(lists):
            if (problem := _unlisted(str(path))) is not None:
                yield self._problem(f"list.{n}", problem)
            elif not key and path.is_file():
                yield from self._usable(f"list.{n}", partial(find_key, None, [path]))
        for n, name in enumerate(self._config.protected):
            if (problem := _unlisted(name)) is not None:
                yield Problem(f"protected.{n}", problem)

    def _feeds(self) -> Iterator[Problem]:
        for n, feed in enumerate(self._config.feed):
            yield from (Problem(f"feed.{n}.{key}", text) for key, text in _feed_problems(feed))
        if self._config.feed and (publish := self._config.publish) is not None:
            yield from self._usable("publish.key", lambda: read_key(Path(publish.key)))

    def _records(self) -> Iterator[Problem]:
        records = self._config.records
        if records is None:
            return
        stores = [(f"records.store.{n}", store) for n, store in enumerate(records.store)]
        if records.assignments is not None:
            stores.append(("records.assignments", records.assignments))
        for place, store in stores:
            yield from (Problem(f"{place}.{key}", text) for key, text in _store_problems(store))
        files = [(place, store.path) for place, store in stores if store.path is not None]
        if files:
            yield from self._store_files(files)
        # The configuration's own table needs them already.
        unlimited = records.assignments is None and records.days.assignments is None
        if unlimited and _has_assignments(state_folder(self._config.state) / ASSIGNMENTS):
            yield no_days_of_assignments()

    def _fleet(self) -> Iterator[Problem]:
        fleet = self._config.fleet
        if fleet is None:
            return
        if find_spec("valkey") is None:
            yield Problem("fleet", "the extra `fleet` is missing: urlward help install")
        for name in ("password_file", "sentinel_password_file"):
            file = getattr(fleet, name)
            if file is not None and (problem := _readable(file)) is not None:
                yield Problem(f"fleet.{name}", problem)
        if fleet.ca is not None and (text := _authorities_problem(fleet.ca)):
            yield Problem("fleet.ca", text)
        if text := _wrong(lambda: context(None, fleet.certificate, fleet.key)):
            yield Problem("fleet.certificate", text)
        if fleet.seal is not None:
            seal = Path(fleet.seal)
            yield from self._usable("fleet.seal", lambda: read_key(seal))

    def _files(self) -> Iterator[Problem]:
        files = self._config.files
        if files is None or not files.inspects:
            return
        if not all(map(find_spec, PICTURES)):
            key = "files.pictures" if files.pictures != "off" else "files.classifier"
            yield Problem(key, "the extra `files` is missing: urlward help install")
        elif files.classifier and find_spec(files.classifier.partition(":")[0].partition(".")[0]) is None:
            yield Problem("files.classifier", "there is no such package")

    def _dashboard(self) -> Iterator[Problem]:
        """Check the operator's own token; that of the state folder is made anew where it is damaged."""
        if self._config.admin is None:
            return
        from urlward.state.token import token_of

        state = state_folder(self._config.state)
        path = state / self._config.admin.token_file
        if path.parent != state and path.exists() and (text := _wrong(lambda: token_of(path))):
            yield Problem("admin.token_file", text)

    def _store_files(self, files: Sequence[tuple[str, str]]) -> Iterator[Problem]:
        """Check for stores whose files belong to something else: a start would write to them or move them."""
        config = self._config
        state = Path(os.path.realpath(state_folder(config.state)))
        confdir = Path(os.path.realpath(os.path.expanduser(self._settings.confdir or DEFAULT_CONFDIR)))  # noqa: PTH111
        others = dict(names_in(config.model_dump()))
        others |= {f"list.{n}": str(path) for n, path in enumerate(self._settings.lists)}
        if key := self._settings.options.get("urlward_key"):
            others["key"] = str(key)
        if config.file is not None:
            others["the configuration"] = str(config.file)
        for place, name in files:
            path = Path(os.path.realpath(name))
            here = f"{place}.path"
            other = next((key for key, o in others.items() if key != here and _is_of(Path(o), path)), None)
            if other is not None:
                yield Problem(here, f"{name}: is {other}, or would be: name a file of its own")
            elif path.is_relative_to(state) and path.relative_to(state).parts[:1] in _OF_STATE:
                yield Problem(here, f"{name}: is for something else in the state folder: choose another name")
            elif path.parent == confdir and path.name.startswith(_AUTHORITY):
                yield Problem(here, f"{name}: is the authority's: choose another name")
            elif path.is_dir():
                yield Problem(here, f"{name}: a folder: name a file in it")
            elif path.exists() and not path.is_file():
                yield Problem(here, f"{name}: not a regular file")

    def _pages(self) -> Iterator[Problem]:
        _, problems = block_pages(self._config, int(str(self._settings.options["urlward_status"])))
        yield from problems

    def _authority(self) -> Iterator[Problem]:
        """Check the authority if there is one; where there is none, the start makes one."""
        folder = Path(os.path.expanduser(self._settings.confdir or DEFAULT_CONFDIR))  # noqa: PTH111 - never raises
        path = folder / CA_FILE
        if str(folder).startswith("~"):  # or a folder of that name would be made where this runs
            yield self._problem("confdir", f"{folder}: no home folder to keep the authority in: name another")
            return
        try:
            problem = authority_problem(read_regular(path), passphrase_of(self._settings.extra))
        except FileNotFoundError:
            if (text := _makeable(folder)) is not None:
                yield self._problem("confdir", text)
        except OSError as e:
            yield self._problem("confdir", f"{path}: {e.strerror or e}")
        else:
            if problem:
                yield self._problem("confdir", f"{path}: {problem}")

    def _state(self) -> Iterator[Problem]:
        config = self._config
        if not config.keeps_state:
            return
        folder = state_folder(config.state)
        # What is damaged in it is set aside at the start, and ends none.
        if (problem := _makeable(folder)) is not None and not _is_read_only(folder):
            yield Problem("state", problem)

    def _usable(self, key: str, read: Callable[[], object]) -> Iterator[Problem]:
        if text := _wrong(read):
            yield self._problem(key, text)


def _tls_problem(name: str, value: str) -> str:
    """Why no TLS comes about by an option of mitmproxy's, which would be found out by each connection alone;
    empty where it does."""
    made, path = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), os.path.expanduser(value)  # noqa: PTH111 - never raises
    try:
        match name:
            case "ciphers_client" | "ciphers_server":
                made.set_ciphers(value)
            case "ssl_verify_upstream_trusted_ca":
                made.load_verify_locations(path)
            case "client_certs" if os.path.isfile(path):  # noqa: PTH113 - nor does this
                made.load_cert_chain(path, password="")
    except (OSError, ValueError) as e:
        why = getattr(e, "reason", None) or getattr(e, "strerror", None) or str(e.args[0])
        return f"{value}: {why.replace('_', ' ').lower().rstrip('.')}"
    return ""


def _wrong(read: Callable[[], object]) -> str:
    """Why something cannot be read, or nothing."""
    try:
        read()
    except UrlwardError as e:
        return str(e)
    return ""


def _has_assignments(path: Path) -> bool:
    """Whether a database has any; of one that cannot be read it is not known."""
    if not path.is_file():
        return False
    tables = ("assignments", "assignments_current")
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened,
    ):
        return any(opened.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608
    return False


def names_in(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """All that may be a file's name in a configuration, where those are whole paths by now, by its key."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from names_in(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, tuple | list):
        for n, each in enumerate(value):
            yield from names_in(each, f"{place}.{n}")
    elif isinstance(value, str) and value.startswith("/"):
        yield place, value


def _is_of(other: Path, store: Path) -> bool:
    """Whether a file is a store's, or one that belongs to it: ``.1``, ``-wal`` and the like."""
    real = Path(os.path.realpath(other))
    if real.parent == store.parent and _BESIDE(real.name.removeprefix(store.name)):
        return real.name.startswith(store.name)
    try:
        return real.samefile(store)  # a hard link
    except OSError:
        return False


def _feed_problems(feed: FeedTable) -> Iterator[tuple[str, str]]:
    """Problems that would keep a feed from being fetched, whatever its server says: key and text."""
    options = feed.columns, feed.delimiter, feed.category
    if text := _wrong(lambda: format_named(feed.format, FormatOptions(*options, take=feed.take))):
        key, _, text = text.partition(": ")
        yield {"column": "columns"}.get(key, key), text
    if feed.max_errors is not None:
        try:
            ErrorBudget.parse(feed.max_errors)
        except ValueError as e:
            yield "max_errors", f"{feed.max_errors!r} is not {e}"
    if feed.key is not None and (text := _wrong(lambda: read_key(Path(str(feed.key))))):
        yield "key", text
    if text := _wrong(lambda: read_trust(feed.trust)):
        yield "trust", text
    if feed.url is None:
        return
    if feed.ca is not None and (text := _authorities_problem(feed.ca)):
        yield "ca", text
    unread = False
    for key in ("client_cert", "client_key"):
        named = getattr(feed, key)
        if named is not None and (problem := _readable(named)) is not None:
            unread = True
            yield key, problem
    shown = feed.client_cert is not None and not unread
    if shown and (text := _wrong(lambda: context(None, feed.client_cert, feed.client_key))):
        yield "client_cert", text
    if text := _wrong(lambda: origin(feed)):
        kind, _, text = text.partition(": ")
        yield f"{kind}_file" if getattr(feed, f"{kind}_file") else f"{kind}_env", text


def _store_problems(store: StoreTable) -> Iterator[tuple[str, str]]:
    """Problems that would keep records from being written: key and text."""
    if store.kind == "postgresql":
        from urlward.records.sql import open_postgresql  # brings SQLAlchemy

        key = "url_file" if store.url_file is not None else "url_env"
        if text := _wrong(lambda: open_postgresql(store).dispose()):
            yield key, text.removeprefix(f"{key}: ")
    if store.ca is not None and (text := _authorities_problem(store.ca)):
        yield "ca", text


def _authorities_problem(path: str) -> str:
    """Problem with a file of trusted certificate authorities, or nothing."""
    return _readable(path) or _wrong(lambda: context(path))


def _readable(path: str) -> str | None:
    """Why a file cannot be read, or None."""
    try:
        open_regular(Path(path)).close()
    except IsADirectoryError:
        pass
    except OSError as e:
        return f"{path}: {e.strerror or e}"
    except ValueError as e:
        return f"{path!r}: {e}"
    return None


def _unlisted(path: str) -> str | None:
    """Why a list cannot be read, or None."""
    return _readable(path) or (f"{path}: {NO_FOLDER}" if Path(path).is_dir() else None)


def _makeable(folder: Path) -> str | None:
    """Why files cannot be written in a folder, which the start makes where it is missing, or None."""
    try:
        for nearest in (folder, *folder.absolute().parents):
            try:
                nearest.stat()
            except (FileNotFoundError, NotADirectoryError):
                if nearest.is_symlink():
                    return f"{nearest}: a link to what is not there"
                continue
            if not nearest.is_dir():
                return f"{nearest}: not a folder"
            if any(Path(os.path.realpath(nearest)).is_relative_to(one) for one in _KERNELS):
                return f"{nearest}: the kernel's, which takes no files"
            return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest}: cannot be written to"
    except OSError as e:
        return f"{folder}: {e.strerror or e}"
    return None


def _is_read_only(folder: Path) -> bool:
    """Whether the file system has become so: filtering goes on then, and says that it keeps nothing."""
    with suppress(OSError):
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return False


def _unknown(host: str) -> str:
    """Reason why a host resolves to no address, or nothing."""
    if host.startswith("["):
        return "a mode has IPv6 without brackets, such as regular@::1:8080"
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as e:
        return (getattr(e, "strerror", None) or "no name of a host").lower()
    return ""


def _is_absent(host: str) -> bool:
    """Whether none of a host's addresses is one of this machine."""
    with suppress(OSError):
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        return not any(is_local(str(address[0]), *map(int, address[2:])) for *_, address in found)
    return False


def _meet(one: Listener, other: Listener) -> bool:
    """Whether two listeners conflict."""
    if not one.port or one.port != other.port or not one.protocols & other.protocols:
        return False
    ours, theirs = _hosts(one.host), _hosts(other.host)
    return any(a == b or (a[1] == b[1] and "*" in (a[0], b[0])) for a in ours for b in theirs)


def _hosts(host: str) -> set[tuple[str, int]]:
    """The addresses that a host stands for, with their IP version; ``*`` for all of one."""
    if host in ("", "localhost"):
        return {("*", 4), ("*", 6)} if not host else {("127.0.0.1", 4), ("::1", 6)}
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return {(host.lower(), 0)}
    return {("*" if address.is_unspecified else str(address), address.version)}
