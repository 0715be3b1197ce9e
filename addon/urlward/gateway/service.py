"""systemd service: the files that ``urlward gateway install`` writes."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from urlward.config import SYSTEM, Config
from urlward.config.tables import split_address
from urlward.gateway.errors import GatewayError
from urlward.lists.build import write_atomically
from urlward.state.folder import SERVICE as STATE

UNIT = Path("/etc/systemd/system/urlward.service")
CLOSED = UNIT.with_name("urlward-closed.service")
"""Puts the rules into force before there is a network, where nothing may pass while no worker lives."""

USER = Path("/etc/sysusers.d/urlward.conf")

_UNPRIVILEGED = 1024


def files(config_path: Path | None, config: Config) -> dict[Path, str]:
    """Files of the service, by destination.

    Args:
        config_path: of the configuration that the service will use; `SYSTEM` where None.
        config: what it says.

    Raises:
        GatewayError: a path that a unit cannot name.
    """
    path = (config_path or SYSTEM).absolute()
    command = _command()
    for one in (path, command):
        if any(c.isspace() or c in "%\\\"'$;" for c in str(one)):
            raise GatewayError(f"{one}: a service cannot use a path with such letters in it")
    gateway = config.gateway
    ports = (gateway.dns.port, gateway.intercept_port, *_listen_port(config))
    capabilities = ["CAP_NET_ADMIN"]
    if any(port < _UNPRIVILEGED for port in ports):
        capabilities.append("CAP_NET_BIND_SERVICE")
    unit = _environment().get_template("urlward.service.j2")
    user = _environment().get_template("sysusers.conf.j2")
    is_closed = gateway.fail == "closed"
    made = {
        UNIT: unit.render(
            command=command,
            config=path,
            state=STATE,
            confdir=config.confdir,
            writable=" ".join(filter(None, (config.confdir, config.state))),
            capabilities=" ".join(capabilities),
            closed=CLOSED.name if is_closed else "",
        ),
        USER: user.render(state=STATE),
    }
    if is_closed:
        early = _environment().get_template("urlward-closed.service.j2")
        made[CLOSED] = early.render(command=command, config=path)
    return made


def install(made: Mapping[Path, str], prefix: Path) -> Iterator[Path]:
    """Write files below a folder, and name each.

    Raises:
        SourceError: not writable.
        GatewayError: likewise.
    """
    for path, text in made.items():
        target = prefix / path.relative_to("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise GatewayError(f"{target.parent}: {e.strerror or e}") from e
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
    named = {path, *map(Path, filter(None, (*config.list, config.key, *config.protected)))}
    steps += [
        f"{one}: {why}; move it, to /etc/urlward or /var/lib/urlward"
        for one in sorted(named)
        if one.exists() and (why := _unseen(one)) is not None
    ]
    if not path.exists():
        steps.append(f"{path}: write it; lists and keys that it names must be readable for the user urlward")
    elif config_path is not None and not config.gateway.interfaces:
        steps.append(f"{path}: gateway.interfaces: say where clients come in")
    steps.append("then: systemd-sysusers && systemctl daemon-reload && systemctl enable --now urlward")
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


def _unseen(path: Path) -> str | None:
    """Reason why the service cannot read a file, or None."""
    for folder in reversed(path.parents):
        for setting, hidden in _HIDDEN.items():
            if str(folder) in hidden:
                return f"the service sees nothing of {folder} ({setting})"
        try:
            mode = os.stat(folder).st_mode  # noqa: PTH116 - the target of a link counts
        except OSError:
            mode = 0
        if not mode & stat.S_IXOTH:
            return f"other users cannot read {folder}"
    return None


def _listen_port(config: Config) -> tuple[int, ...]:
    return () if config.listen is None else split_address(config.listen, lowest=0, any_host=True)[1:]


@cache
def _environment() -> Environment:
    loader = PackageLoader("urlward.gateway")
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - not HTML
