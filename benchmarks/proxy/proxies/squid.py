"""Squid, and Squid with squidGuard as its rewriter."""

import os
import shutil
import subprocess
from itertools import count
from pathlib import Path
from pwd import getpwnam
from typing import ClassVar, override

from benchmarks.proxy.material import INSPECTED
from benchmarks.proxy.origin import certify
from benchmarks.proxy.plan import PROXY_CORE, Case
from benchmarks.proxy.proxies.base import Proxy, Without, first_version
from benchmarks.proxy.site import EXPLICIT

from urlward.engine.entry import Kind

_starts = count()
_CERTIFICATES = "/usr/lib/squid/security_file_certgen"

_CONFIGURATION = """\
visible_hostname proxy.test
pid_filename none
access_log none
cache_log {folder}/cache.log
cache deny all
coredump_dir {folder}
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
dns_nameservers 127.0.0.1
tls_outgoing_options cafile={origin_authority}
http_port 127.0.0.1:8080 intercept
{more}
http_access allow all
"""
_GUARD = """\
http_port 127.0.0.1:8081
url_rewrite_program /usr/bin/squidGuard -c {folder}/squidGuard.conf
url_rewrite_children 4 startup=4 idle=4 concurrency=0"""
_LISTED = """\
http_port {explicit} {bump}
https_port 127.0.0.1:8443 intercept {bump}
sslcrtd_program {certificates} -s {folder}/certificates -M 16MB
sslcrtd_children 4 startup=1 idle=1
acl hello at_step SslBump1
acl inspected ssl::server_name "{folder}/inspected"
ssl_bump peek hello
ssl_bump bump inspected
ssl_bump splice all
acl listed dstdomain -n "{folder}/listed"
http_access deny listed"""
_BUMP = (
    "ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=16MB "
    "tls-cert={folder}/bump.pem tls-key={folder}/bump.key"
)


class Squid(Proxy):
    """The baseline; its list is the hosts of the entries, the kind of list that it is good at.

    It bumps hosts of listed pages and splices all others, as urlward does.
    """

    name = "squid"
    title = "Squid"
    programs: ClassVar[tuple[str, ...]] = ("squid", _CERTIFICATES)
    package = "squid-openssl"
    ports = (8080, 8443)
    without: ClassVar[Without] = {
        Case.HTTP2: "it speaks none",
        Case.RESUMED_INTERCEPTED: "it resumes none of its own sessions",
    }
    note = (
        "`dstdomain` list of the entries' hosts (it has no lists of pages but regular expressions); bumps "
        "hosts of listed pages by `ssl::server_name`, splices the rest"
    )
    more = _LISTED

    @override
    @classmethod
    def version(cls) -> str:
        return first_version("squid", "-v")

    @override
    @property
    def authority(self) -> Path | None:
        return self.folder / "bump.pem"

    @override
    def prepare(self) -> None:
        shutil.rmtree(self.folder / "certificates", ignore_errors=True)
        certify(self.folder, ["unused.test"], authority="bump", leaf="unused")
        make = [_CERTIFICATES, "-c", "-s", str(self.folder / "certificates"), "-M", "16MB"]
        subprocess.run(make, check=True, capture_output=True)
        more = self.more.format(
            folder=self.folder, certificates=_CERTIFICATES, explicit=":".join(map(str, EXPLICIT)),
            bump=_BUMP.format(folder=self.folder),
        )  # fmt: skip
        (self.folder / "squid.conf").write_text(
            _CONFIGURATION.format(folder=self.folder, origin_authority=self.origin_authority, more=more)
        )
        self.change(0)
        give(self.folder, "proxy")

    @override
    def command(self) -> list[str]:
        # Its shared memory goes by this name, and outlives one that had to be killed.
        name = f"{self.name}{next(_starts)}"
        return ["squid", "-N", "-n", name, "-f", str(self.folder / "squid.conf")]

    @override
    def change(self, version: int) -> None:
        write(self.folder / "listed", self._hosts(version))
        write(self.folder / "inspected", sorted({e.host for e in self.material.peers[version] if e.path}))

    def _hosts(self, version: int) -> list[str]:
        entries = self.material.peers[version]
        # Inspected hosts have listed pages, and are themselves not to be blocked.
        hosts = {e.host for e in entries if e.host not in INSPECTED}
        below = {e.host for e in entries if e.kind is Kind.DOMAIN}
        kept = sorted(host for host in hosts if not any(up in below for up in _above(host)))
        return [f".{host}" if host in below else host for host in kept]


class SquidGuard(Squid):
    """Squid asks a squidGuard helper about each request."""

    name = "squidguard"
    title = "Squid with squidGuard"
    programs: ClassVar[tuple[str, ...]] = ("squid", _CERTIFICATES, "squidGuard")
    package = "squid-openssl, squidguard"
    ports = (8080, 8080)
    without: ClassVar[Without] = dict.fromkeys(set(Case) - {Case.KEEP}, "see Squid")
    note = "Berkeley databases of domains and of URLs, four helpers"
    more = _GUARD

    @override
    @classmethod
    def version(cls) -> str:
        return f"{Squid.version()}, {first_version('squidGuard', '-v')}"

    @override
    def prepare(self) -> None:
        (self.folder / "db" / "listed").mkdir(parents=True, exist_ok=True)
        (self.folder / "log").mkdir(exist_ok=True)
        (self.folder / "squidGuard.conf").write_text(
            f"dbhome {self.folder}/db\nlogdir {self.folder}/log\n"
            "dest listed {\n domainlist listed/domains\n urllist listed/urls\n}\n"
            "acl {\n default {\n  pass !listed all\n  redirect 302:http://page.test/blocked\n }\n}\n"
        )
        super().prepare()

    @override
    def change(self, version: int) -> None:
        folder = self.folder / "db" / "listed"
        for path in folder.glob("*.db"):
            path.unlink()
        entries = self.material.peers[version]
        write(folder / "domains", sorted({e.host for e in entries if e.kind in (Kind.DOMAIN, Kind.HOST)}))
        write(folder / "urls", sorted({f"{e.host}{e.path.rstrip('/')}" for e in entries if e.path}))
        command = ["taskset", "-c", str(PROXY_CORE), "squidGuard", "-c", str(self.folder / "squidGuard.conf")]
        subprocess.run([*command, "-C", "all"], check=True, capture_output=True)
        give(self.folder / "db", "proxy")
        give(self.folder / "log", "proxy")


def write(path: Path, lines: list[str]) -> None:
    """A list, one item a line, put in its place whole."""
    temporary = path.with_suffix(".new")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    temporary.replace(path)


def give(folder: Path, user: str) -> None:
    """Make a folder and all in it a user's own."""
    entry = getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _above(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[n:]) for n in range(1, len(labels))]
