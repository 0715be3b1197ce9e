"""Settings of ``urlward run``, and the addresses it listens on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mitmproxy.proxy import mode_specs

from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.proxy.listeners import Address

DEFAULT_CONFDIR = "~/.mitmproxy"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_UNSHARED = ("local", "tun")


class RunError(UrlwardError):
    """The filter could not start."""


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

    @property
    def addresses(self) -> list[Address]:
        """Listening addresses of the modes whose sockets can be inherited."""
        found: dict[Address, None] = {}
        for mode in self._modes():
            host, port = mode.listen_host(self.listen[0]), mode.listen_port(self.listen[1])
            if port is None or mode.type_name in _UNSHARED:
                continue
            if mode.transport_protocol in ("tcp", "both"):
                found[Address(host, port, "tcp")] = None
            if self.steer and isinstance(mode, mode_specs.DnsMode):
                found[Address(host, port, "udp")] = None
        return list(found)

    @property
    def alone(self) -> list[str]:
        """Modes that one worker alone can serve: mitmproxy opens a UDP socket for them by itself."""
        return [
            mode.full_spec
            for mode in self._modes()
            if mode.transport_protocol != "tcp" and not (self.steer and isinstance(mode, mode_specs.DnsMode))
        ]

    @property
    def unshared(self) -> list[str]:
        """Modes that work in one process only, since they listen nowhere: ``local``, ``tun``."""
        return [mode.full_spec for mode in self._modes() if mode.type_name in _UNSHARED]

    def _modes(self) -> Iterator[mode_specs.ProxyMode]:
        for spec in self.modes:
            try:
                yield mode_specs.ProxyMode.parse(spec)
            except ValueError:
                continue  # the start will refuse it
