"""urlward, and the proxy that it is an addon of without it."""

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, override

from benchmarks.proxy.plan import Case
from benchmarks.proxy.proxies.base import Proxy, Without

from urlward.lists.build import write_atomically

_BIN = Path(sys.executable).parent


class _Mitm(Proxy):
    @override
    @property
    def authority(self) -> Path:
        return self.folder / "mitmproxy-ca-cert.pem"

    def _trust(self) -> list[str]:
        return ["--set", f"ssl_verify_upstream_trusted_ca={self.origin_authority}"]


class Urlward(_Mitm):
    """The subject."""

    name = "urlward"
    title = "urlward"
    blocked = frozenset({451})
    note = "one artifact, flags as they come"

    @override
    @classmethod
    def version(cls) -> str:
        return version("urlward")

    @override
    def prepare(self) -> None:
        self.change(0)

    @override
    def command(self) -> list[str]:
        return [
            str(_BIN / "urlward"), "run", "--mode", "transparent@127.0.0.1:8080", "--list", str(self._list),
            "--key", str(self.material.key), "--confdir", str(self.folder), *self._trust(),
        ]  # fmt: skip

    @override
    def change(self, version: int) -> None:
        write_atomically(self._list, self.material.artifacts[version].read_bytes())

    def tell(self, pid: int) -> None:
        """It watches its files."""

    @property
    def _list(self) -> Path:
        return self.folder / "feed.ward"


class Mitmdump(_Mitm):
    """Stock mitmproxy: no list, nothing to do but to pass everything on."""

    name = "mitmdump"
    title = "mitmdump, no addon"
    without: ClassVar[Without] = {Case.BLOCK: "it has no list", Case.RELOAD: "it has no list"}
    note = "no list; TLS relayed by its own `ignore_hosts`"

    @override
    @classmethod
    def version(cls) -> str:
        return version("mitmproxy")

    @override
    def prepare(self) -> None:
        pass

    @override
    def command(self) -> list[str]:
        relayed = re.escape("relayed.test")
        return [
            str(_BIN / "mitmdump"), "-q", "--mode", "transparent@127.0.0.1:8080",
            "--set", f"confdir={self.folder}", "--ignore-hosts", rf"\.{relayed}(:\d+)?$", *self._trust(),
        ]  # fmt: skip
