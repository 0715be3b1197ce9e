"""The systemd service: what ``urlward gateway install`` writes."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from urlward.config import SYSTEM, Config
from urlward.gateway.errors import GatewayError
from urlward.lists.build import write_atomically
from urlward.lists.state import SERVICE as STATE

UNIT = Path("/etc/systemd/system/urlward.service")
USER = Path("/etc/sysusers.d/urlward.conf")

_UNPRIVILEGED = 1024


def files(config_path: Path | None, config: Config) -> dict[Path, str]:
    """The service's files, by where they belong.

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
    return {
        UNIT: unit.render(
            command=command,
            config=path,
            state=STATE,
            confdir=config.confdir,
            writable=" ".join(filter(None, (config.confdir, config.state))),
            capabilities=" ".join(capabilities),
        ),
        USER: user.render(state=STATE),
    }


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
    """What is left to do, a line each."""
    path = (config_path or SYSTEM).absolute()
    steps = []
    for one in (_command(), Path(sys.executable).resolve()):
        closed = _closed(one)
        if closed is not None:
            steps.append(f"{one}: other users cannot read {closed}; install urlward elsewhere, such as /opt")
            break
    if not path.exists():
        steps.append(f"{path}: write it; lists and keys that it names must be readable for the user urlward")
    elif config_path is not None and not config.gateway.interfaces:
        steps.append(f"{path}: gateway.interfaces: say where clients come in")
    steps.append("then: systemd-sysusers && systemctl daemon-reload && systemctl enable --now urlward")
    return steps


def _command() -> Path:
    """This urlward, as a program."""
    beside = Path(sys.executable).with_name("urlward")
    found = beside if beside.exists() else Path(shutil.which("urlward") or beside)
    return found.absolute()


def _closed(path: Path) -> Path | None:
    """The first folder on the way to a file that is its owner's alone, or a home: those the unit hides."""
    for folder in reversed(path.parents):
        try:
            mode = os.stat(folder).st_mode  # noqa: PTH116 - the target of a link counts
        except OSError:
            return folder
        if not mode & stat.S_IXOTH or folder in (Path("/root"), Path("/home")):
            return folder
    return None


def _listen_port(config: Config) -> tuple[int, ...]:
    port = (config.listen or "").rpartition(":")[2]
    return (int(port),) if port.isdecimal() else ()


@cache
def _environment() -> Environment:
    loader = PackageLoader("urlward.gateway")
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - not HTML
