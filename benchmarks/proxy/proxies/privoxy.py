"""Privoxy, whose patterns are tried one after the other."""

import re
from typing import ClassVar, override

from benchmarks.proxy.plan import Case
from benchmarks.proxy.proxies.base import Proxy, Without, first_version
from benchmarks.proxy.proxies.squid import write

from urlward.engine.entry import Entry, Kind

_NO_TLS = "it takes TLS only from clients that know of it (CONNECT)"

_CONFIGURATION = """\
confdir {folder}
logdir {folder}
templdir /etc/privoxy/templates
actionsfile lists.action
listen-address 127.0.0.1:8080
accept-intercepted-requests 1
keep-alive-timeout 300
default-server-timeout 300
socket-timeout 300
max-client-connections 1000
tolerate-pipelining 1
"""


class Privoxy(Proxy):
    """Knows pages as regular expressions of paths."""

    name = "privoxy"
    title = "Privoxy"
    programs = ("privoxy",)
    package = "privoxy"
    without: ClassVar[Without] = {
        Case.INTERCEPTED: _NO_TLS,
        Case.RELAYED: _NO_TLS,
        Case.DOWNLOAD_INTERCEPTED: _NO_TLS,
    }
    note = "an action file of host and path patterns"

    @override
    @classmethod
    def version(cls) -> str:
        return first_version("privoxy", "--version")

    @override
    def prepare(self) -> None:
        (self.folder / "config").write_text(_CONFIGURATION.format(folder=self.folder))
        self.change(0)

    @override
    def command(self) -> list[str]:
        return ["privoxy", "--no-daemon", str(self.folder / "config")]

    @override
    def change(self, version: int) -> None:
        patterns = [_pattern(entry) for entry in self.material.peers[version]]
        write(self.folder / "lists.action", ["{ +block{listed} }", *dict.fromkeys(patterns)])

    def tell(self, pid: int) -> None:
        """It looks at its files with each request."""


def _pattern(entry: Entry) -> str:
    if entry.kind is Kind.DOMAIN:
        return f".{entry.host}/"
    if entry.kind is Kind.HOST:
        return f"{entry.host}/"
    path = re.escape(entry.path.removeprefix("/")).replace(r"\-", "-")
    return f"{entry.host}/{path}" + ("" if entry.kind is Kind.PREFIX else r"(\?|$)")
