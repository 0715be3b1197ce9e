"""Settings of ``urlward run``, and the addresses it listens on."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitmproxy.proxy import mode_specs

from urlward.config import Config, GatewayTable
from urlward.config.problem import Problem
from urlward.config.tables import split_address, variables
from urlward.engine.errors import UrlwardError
from urlward.options import OF_ADDON
from urlward.plan import Address, Service
from urlward.proxy.child import PATIENCE

DEFAULT_CONFDIR = "~/.mitmproxy"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_UNSHARED = ("local", "tun")


class RunError(UrlwardError):
    """The filter could not start.

    Attributes:
        problems: with mitmproxy's own options, where these are why.
    """

    def __init__(self, text: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(text)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of ``urlward run``.

    Attributes:
        lists: sources and artifacts; none where the configuration names feeds.
        modes: mitmproxy mode specifications.
        listen: host and port; an empty host stands for all addresses.
        options: values for ``urlward_…`` options.
        confdir: where mitmproxy keeps its certificate authority, or empty for its default.
        extra: ``OPTION=VALUE`` for mitmproxy's own options; first those of `config`, in its order.
        config: the configuration that these are from, for the places of what is wrong.
        steer: whether urlward answers DNS itself.
    """

    lists: tuple[Path, ...]
    modes: tuple[str, ...]
    listen: tuple[str, int]
    options: dict[str, str | int | list[str]]
    confdir: str
    extra: tuple[str, ...]
    config: Config = field(default_factory=Config)
    steer: bool = False

    @property
    def trust(self) -> list[str]:
        """Public keys and rotation statements of who may sign the lists."""
        found = self.options.get("urlward_trust", [])
        assert isinstance(found, list)
        return found

    def service(self, path: Path | None, workers: int = 1) -> Service | None:
        """The service process that is needed beside so many workers (`service_of`), by a file's path."""
        options = {each.name: self.options.get(each.option, each.initial) for each in OF_ADDON}
        return service_of(self.config, path, {**options, "trust": self.trust, "list": self.lists}, workers)

    @property
    def served(self) -> list[Address]:
        """Listening addresses of that process."""
        config = self.config
        if config.records is None:
            return []
        found = [] if config.objections is None else [config.objections.address]
        admin = self.options.get("urlward_admin") or (config.admin and config.admin.listen)
        found.append(split_address(str(admin), lowest=0) if admin else None)
        return [Address(*each, "tcp") for each in found if each is not None and each[1]]

    @property
    def inspector(self) -> Service | None:
        """The process that looks at pictures; None where nobody does."""
        files = self.config.files
        if files is None or not files.inspects:
            return None
        asked = {
            "processes": files.processes,
            "deadline": files.deadline,
            "queue": files.queue,
            "video": files.video,
            "classifier": files.classifier,
            "threshold": files.classifier_threshold,
            "strictly": files.sandbox,
            "without": sorted({*variables(self.config)}),
        }
        return Service(asked, PATIENCE * self.config.hung_after())

    @property
    def addresses(self) -> list[Address]:
        """Listening addresses of the modes whose sockets can be inherited."""
        found: dict[Address, None] = {}
        for mode in self.parsed().values():
            host, port = mode.listen_host(self.listen[0]), mode.listen_port(self.listen[1])
            if port is None or mode.type_name in _UNSHARED:
                continue
            if mode.transport_protocol in ("tcp", "both"):
                found[Address(host, port, "tcp")] = None
            if self.steer and isinstance(mode, mode_specs.DnsMode):
                found[Address(host, port, "udp")] = None
        if self.steer and (hook := hook_address(self.config.gateway)) is not None:
            found[hook] = None
        return list(found)

    @property
    def alone(self) -> list[str]:
        """Modes that one worker alone can serve: mitmproxy opens a UDP socket for them by itself."""
        return [
            mode.full_spec
            for mode in self.parsed().values()
            if mode.transport_protocol != "tcp" and not (self.steer and isinstance(mode, mode_specs.DnsMode))
        ]

    @property
    def unshared(self) -> list[str]:
        """Modes that work in one process only, since they listen nowhere: ``local``, ``tun``."""
        return [mode.full_spec for mode in self.parsed().values() if mode.type_name in _UNSHARED]

    def parsed(self) -> dict[int, mode_specs.ProxyMode]:
        """The modes by their numbers, without those that are none, which the start will refuse."""
        found = {}
        for n, spec in enumerate(self.modes):
            with suppress(ValueError):
                found[n] = mode_specs.ProxyMode.parse(spec)
        return found


def hook_address(gateway: GatewayTable) -> Address | None:
    """The address where a hook in a resolver connects, or its dnstap; None where there is none."""
    path = gateway.hook.socket
    return None if path is None else Address(str(path), 0, "unix")


def service_of(
    config: Config, path: Path | None, options: Mapping[str, Any], workers: int = 1
) -> Service | None:
    """The service process that a configuration needs beside the filter; None where it needs none.

    Args:
        config: the configuration.
        path: of its file.
        options: values of the addon's options, by their names in `urlward.options`.
        workers: processes of the filter, each of which is to report.
    """
    if path is None or not (config.feed or config.records is not None):
        return None
    asked = {name: options[name] for name in ("key", "admin", "trust", "max_errors", "format", "monitor")}
    asked["list"] = [str(Path(each).absolute()) for each in options["list"]]
    timeout = PATIENCE * config.hung_after()
    return Service({"config": str(path), "workers": workers, **asked}, timeout, config.text.decode("latin-1"))
