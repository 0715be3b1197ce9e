"""urlward, and the proxy that it is an addon of without it."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, override

from benchmarks.proxy.material import BIN
from benchmarks.proxy.plan import DOWNLOADS, GOAL_ENTRIES, LOAD_CORE, PROXY_CORE, Case
from benchmarks.proxy.proxies.base import Proxy, Without
from benchmarks.proxy.site import EXPLICIT

from urlward.lists.build import write_atomically


class _Mitm(Proxy):
    modes: ClassVar[tuple[str, ...]] = ("transparent@127.0.0.1:8080", "regular@{}:{}".format(*EXPLICIT))

    @override
    @property
    def authority(self) -> Path:
        return self.folder / "mitmproxy-ca-cert.pem"

    def _flags(self) -> list[str]:
        modes = [word for mode in self.modes for word in ("--mode", mode)]
        return [*modes, "--set", f"ssl_verify_upstream_trusted_ca={self.origin_authority}"]


class Urlward(_Mitm):
    """The subject."""

    name = "urlward"
    title: ClassVar[str] = "urlward"
    blocked = frozenset({451})
    note: ClassVar[str] = "one artifact, flags as they come"
    workers = 1

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
            str(BIN / "urlward"), "run", "--list", str(self._list), "--key", str(self.material.key),
            "--confdir", str(self.folder), "--workers", str(self.workers), *self._flags(),
        ]  # fmt: skip

    @override
    def change(self, version: int) -> None:
        write_atomically(self._list, self.material.artifacts[version].read_bytes())

    def tell(self, pid: int) -> None:
        """It watches its files."""

    @property
    def _list(self) -> Path:
        return self.folder / "feed.ward"


class TwoWorkers(Urlward):
    """The subject on both cores, one of which has load and origin as well."""

    name = "urlward-2"
    title = "urlward, 2 workers"
    cores = f"{PROXY_CORE},{LOAD_CORE}"
    workers = 2
    note = "`--workers 2`, on both cores"
    without: ClassVar[Without] = dict.fromkeys(
        set(Case)
        - {
            Case.KEEP, Case.CLOSE, Case.EXPLICIT, Case.INTERCEPTED, Case.NEW_INTERCEPTED,
            Case.RESUMED_INTERCEPTED, Case.NEW_RELAYED, Case.HTTP2,
        },
        "see urlward",
    )  # fmt: skip


class KnownFiles(Urlward):
    """The subject with digests on a list, so that what is downloaded is hashed."""

    name = "urlward-files"
    title = "urlward, known files"
    note = f"with `[files]` and a second list, of {GOAL_ENTRIES:,} SHA-256 digests"
    without: ClassVar[Without] = dict.fromkeys(set(Case) - DOWNLOADS, "see urlward")

    @override
    def prepare(self) -> None:
        super().prepare()
        self._config.write_text("[files]\n")
        source = self._digests.with_suffix(".txt")
        source.write_text(
            "".join(f"sha256:{number:064x} id=F-{number}\n" for number in range(self.material.entries))
        )
        compiled = [str(source), "-o", str(self._digests), "--key", str(self.material.key)]
        command = [str(BIN / "urlward"), "compile", *compiled, "--name", "files"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    @override
    def command(self) -> list[str]:
        return [*super().command(), "--list", str(self._digests), "--config", str(self._config)]

    @property
    def _config(self) -> Path:
        return self.folder / "urlward.toml"

    @property
    def _digests(self) -> Path:
        return self.folder / "files.ward"


class Mitmdump(_Mitm):
    """Stock mitmproxy: no list, nothing to do but to pass everything on."""

    name = "mitmdump"
    title = "mitmdump, no addon"
    without: ClassVar[Without] = {
        Case.BLOCK: "it has no list",
        Case.RELOAD: "it has no list",
        Case.RESUMED_INTERCEPTED: "it resumes no sessions",
    }
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
            str(BIN / "mitmdump"), "-q", "--set", f"confdir={self.folder}",
            "--ignore-hosts", rf"\.{relayed}(:\d+)?$", *self._flags(),
        ]  # fmt: skip
