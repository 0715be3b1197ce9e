"""systemd services: the files that ``urlward gateway install`` writes, those of a proxy alone, and those of a
publisher."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from urlward.config import SYSTEM, Config
from urlward.config.tables import split_address
from urlward.engine.errors import UrlwardError
from urlward.lists.build import write_atomically
from urlward.process import SERVICE as STATE
from urlward.proxy.preflight import names_in

UNIT = Path("/etc/systemd/system/urlward.service")
CLOSED = UNIT.with_name("urlward-closed.service")
"""Puts the rules into force before there is a network, where nothing may pass while no worker lives."""

USER = Path("/etc/sysusers.d/urlward.conf")

NAME, PUBLISHER = "urlward", "urlward-publish"
"""Users of the services, the second of which is called as its user is."""

_SOCKET = Path("/etc/systemd/system/sockets.target.wants/urlward.socket")
"""There where the socket of a proxy is enabled."""

_UNPRIVILEGED = 1024
_SHOWN_WITHIN = 5.0
"""Seconds that systemd has to say how a unit is."""


def files(config_path: Path | None, config: Config) -> dict[Path, str]:
    """Files of the service, by destination.

    Args:
        config_path: of the configuration that the service will use; `SYSTEM` where None.
        config: what it says.

    Raises:
        UrlwardError: a path that a unit cannot name.
    """
    path, command = _nameable((config_path or SYSTEM).absolute()), _nameable(_command())
    writable = [str(_nameable(one)) for one in _written(config)]
    gateway = config.gateway
    ports = (gateway.dns.port, gateway.intercept_port, *_listen_port(config))
    capabilities = ["CAP_NET_ADMIN"]
    if any(port < _UNPRIVILEGED for port in ports):
        capabilities.append("CAP_NET_BIND_SERVICE")
    is_closed = gateway.fail == "closed"
    made = {
        UNIT: _rendered(
            UNIT.name,
            command,
            path,
            gateway=True,
            confdir=config.confdir,
            writable=" ".join(writable),
            capabilities=" ".join(capabilities),
            closed=CLOSED.name if is_closed else "",
        ),
        USER: _rendered("sysusers.conf", command, path),
    }
    if is_closed:
        made[CLOSED] = _rendered(CLOSED.name, command, path)
    return made


def proxy_files(command: Path | None = None) -> dict[str, str]:
    """Files for systemd of a proxy that clients name, by names relative to a folder. Connections wait in its
    socket while the service restarts.

    Args:
        command: urlward as the unit starts it; this one where None.

    Raises:
        UrlwardError: a path that a unit cannot name.
    """
    from urlward.proxy.settings import DEFAULT_HOST, DEFAULT_PORT

    command = _nameable(command or _command())
    listen = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
    return {
        UNIT.name: _rendered(
            UNIT.name, command, SYSTEM, gateway=False, confdir="", writable="", capabilities="", closed=""
        ),
        "urlward.socket": _rendered("urlward.socket", command, SYSTEM, listen=listen),
        "sysusers.d/urlward.conf": _rendered("sysusers.conf", command, SYSTEM),
        "tmpfiles.d/urlward.conf": _rendered("tmpfiles.conf", command, SYSTEM),
    }


def publisher_files(command: Path | None = None) -> dict[str, str]:
    """Files for systemd of a publisher, as `proxy_files`.

    Raises:
        UrlwardError: a path that a unit cannot name.
    """
    command = _nameable(command or _command())
    values = {"user": PUBLISHER, "lists": "/srv/lists"}
    state, config = STATE.with_name(PUBLISHER), SYSTEM.with_name("publisher.toml")
    return {
        f"{PUBLISHER}.service": _rendered(f"{PUBLISHER}.service", command, config, state, **values),
        f"sysusers.d/{PUBLISHER}.conf": _rendered("sysusers-publish.conf", command, config, state, **values),
    }


def _nameable(path: Path) -> Path:
    if any(c.isspace() or c in "%\\\"'$;" for c in str(path)):
        raise UrlwardError(f"{path}: a service cannot use a path with such letters in it")
    return path


def _rendered(template: str, command: Path, config: Path, state: Path = STATE, **values: object) -> str:
    found = _environment().get_template(f"{template}.j2")
    return found.render(command=command, config=config, state=state, **values)


def install(made: Mapping[Path, str], prefix: Path) -> Iterator[Path]:
    """Write files below a folder, and name each.

    Raises:
        SourceError: not writable.
        UrlwardError: likewise.
    """
    for path, text in made.items():
        target = prefix / path.relative_to("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UrlwardError(f"{target.parent}: {e.strerror or e}") from e
        write_atomically(target, text.encode())
        yield target


def next_steps(config_path: Path | None, config: Config) -> list[str]:
    """Remaining steps for the operator, a line each."""
    path = (config_path or SYSTEM).absolute()
    steps = []
    for one in (_command(), Path(sys.executable).resolve()):
        if (why := _unseen(one)) is not None:
            steps.append(f"{one}: {why}; install urlward elsewhere, such as /opt")
            break
    steps += _faults(path, config)
    if not path.exists():
        steps.append(f"{path}: write it; lists and keys that it names must be readable for the user urlward")
    elif config_path is not None and not config.gateway.interfaces:
        steps.append(f"{path}: gateway.interfaces: say where clients come in")
    if _SOCKET.exists():
        steps.append("systemctl disable --now urlward.socket: a gateway listens by itself")
    # One that runs already, as the Debian package's does, would go on as it is under `enable --now`.
    start = "systemctl enable urlward && systemctl restart urlward"
    steps.append(f"then: systemd-sysusers && systemctl daemon-reload && {start}")
    return steps


def unready(config: Config) -> list[str]:
    """What the machine's service could not do with the machine's configuration, a line each, as far as root
    can tell, who may do all of it; nothing for others, of other configurations, and where no systemd would
    start it, as in a container, or as another user.
    """
    unit = _unit()
    if config.file != SYSTEM or os.geteuid() != 0 or _user()[0] < 0 or unit.get("User") != NAME:
        return []
    return [*_faults(SYSTEM, config), *_read_only(config, unit)]


_OWN_FOLDERS = {
    "StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log",
    "RuntimeDirectory": "/run", "ConfigurationDirectory": "/etc",
}  # fmt: skip
"""Settings with folders that systemd makes for a unit to write to, and where those are."""


@cache
def _unit() -> Mapping[str, str]:
    """Settings of the unit in force, perhaps an older one, with what its drop-ins have; empty where there is
    none, or no systemd that would start it."""
    wanted = ("LoadState", "User", "SupplementaryGroups", "ProtectSystem", "ReadWritePaths")
    command = ["systemctl", "show", UNIT.name, *(f"-p{one}" for one in (*wanted, *_HIDDEN, *_OWN_FOLDERS))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SHOWN_WITHIN)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return found if found.get("LoadState") == "loaded" else {}


def _read_only(config: Config, unit: Mapping[str, str]) -> Iterator[str]:
    """What of a configuration a unit keeps from being written."""
    if unit.get("ProtectSystem") != "strict":
        return
    writable = [path.lstrip("-+") for path in unit.get("ReadWritePaths", "").split()]
    for setting, folder in _OWN_FOLDERS.items():
        writable += [f"{folder}/{name.partition(':')[0]}" for name in unit.get(setting, "").split()]
    for one in _written(config):
        if not any(map(one.is_relative_to, writable)):
            yield (
                f"{one}: the unit lets nothing be written there: systemctl edit {NAME}, with "
                f"ReadWritePaths={one} under [Service], and restart it; of a gateway: urlward gateway install"
            )


def _faults(path: Path, config: Config) -> list[str]:
    """What of a configuration at a path the service's user may not read, or write."""
    written = _written(config)
    named = {path, *written, *(Path(name) for _, name in names_in(config.model_dump()))}
    seen = [one for one in sorted(named) if one.exists()]
    steps = [
        f"{one}: {why}; move it, to /etc/urlward or /var/lib/urlward"
        for one in seen
        if (why := _unseen(one)) is not None
    ]
    steps += [
        f"{one}: the user urlward may not read it: systemd-sysusers && chgrp urlward {one} && chmod g+r {one}"
        for one in seen
        if one.is_file() and not _may(one, _READ)
    ]
    for one in written:
        is_hook = str(one) == config.gateway.hook.folder
        if not one.exists():
            group = "-g unbound -m 2750" if is_hook else "-g urlward -m 0700"
            steps.append(
                f"{one}: the service writes there, and cannot make it: "
                f"systemd-sysusers && install -d -o urlward {group} {one}"
                + (" (for Unbound; or the group of your resolver)" if is_hook else "")
            )
        elif not _may(one, _WRITE) and one.stat().st_uid == 0 and any(one.iterdir()):
            steps.append(
                f"{one}: the user urlward may not write there: name a folder of its own, such as {STATE}"
            )
        elif not _may(one, _WRITE):
            steps.append(
                f"{one}: the user urlward may not write there: "
                f"systemd-sysusers && chown urlward{'' if is_hook else ':'} {one}"
            )
    return steps


def _command() -> Path:
    """Command line of this urlward."""
    beside = Path(sys.executable).with_name("urlward")
    found = beside if beside.exists() else Path(shutil.which("urlward") or beside)
    return found.absolute()


_HIDDEN = {
    "ProtectHome": ("/home", "/root", "/run/user"),
    "PrivateTmp": ("/tmp", "/var/tmp"),  # noqa: S108 - compared, nothing is put there
}
"""Folders that the unit's settings hide from it (systemd.exec(5))."""


def _written(config: Config) -> tuple[Path, ...]:
    """Folders outside its own that the service writes to, in the order of their keys."""
    found = [config.confdir, config.state]
    if config.records is not None:
        stores = (*config.records.store, config.records.assignments)
        found += [str(Path(store.path).parent) for store in stores if store is not None and store.path]
    found.append(config.gateway.hook.folder)
    token = Path(config.admin.token_file) if config.admin is not None else Path()
    if token.is_absolute() and not token.exists():
        found.append(str(token.parent))  # it is made there
    folders = [Path(one) for one in dict.fromkeys(found) if one]
    return tuple(one for one in folders if not one.is_relative_to(STATE))


def _unseen(path: Path) -> str | None:
    """Reason why the service cannot get to a file, or None."""
    for folder in reversed(path.parents):
        for setting, hidden in _HIDDEN.items():
            if str(folder) in hidden and _unit().get(setting) not in ("no", "read-only"):
                return f"the service sees nothing of {folder} ({setting})"
        if not _may(folder, _ENTER):
            return f"the user urlward may not enter {folder}"
    return None


_READ, _WRITE, _ENTER = stat.S_IROTH, stat.S_IWOTH | stat.S_IXOTH, stat.S_IXOTH


def _may(path: Path, wanted: int) -> bool:
    """Whether the service's user may do something, as a mode's bits for others say it; or, for all that is
    looked at, an access list."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the target of a link counts
    except OSError:
        return False
    with suppress(OSError):  # some file systems have none, such as a virtual machine's shared ones
        if "system.posix_acl_access" in os.listxattr(path):
            return True
    user, groups = _user()
    if found.st_uid == user:
        return found.st_mode >> 6 & wanted == wanted
    return (found.st_mode >> 3 if found.st_gid in groups else found.st_mode) & wanted == wanted


def _user() -> tuple[int, frozenset[int]]:
    """The service's user and its groups; nobody where it is yet to be made."""
    try:
        found = pwd.getpwnam(NAME)
    except KeyError:
        return -1, frozenset()
    groups = {*os.getgrouplist(NAME, found.pw_gid)}
    for name in _unit().get("SupplementaryGroups", "").split():
        with suppress(KeyError):
            groups.add(int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid)
    return found.pw_uid, frozenset(groups)


def _listen_port(config: Config) -> tuple[int, ...]:
    return () if config.listen is None else split_address(config.listen, lowest=0, any_host=True)[1:]


@cache
def _environment() -> Environment:
    loader = PackageLoader("urlward.gateway")
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - not HTML
