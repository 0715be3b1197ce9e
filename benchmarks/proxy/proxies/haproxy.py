"""HAProxy: no forward proxy by trade, but the nearest there is to what one core can pass on."""

import subprocess
from typing import ClassVar, override

from benchmarks.proxy.plan import INTERCEPTING, TUNNELLED, Case
from benchmarks.proxy.proxies.base import Proxy, Without, first_version
from benchmarks.proxy.proxies.squid import write
from benchmarks.proxy.site import EXPLICIT, ORIGIN

from urlward.engine.entry import Kind

# A server at 0.0.0.0 is wherever the connection was going to. It resolves names by a DNS server or a
# map; the map stands for the hosts file that the others read.
_CONFIGURATION = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
  option splice-auto
frontend plain
  bind 127.0.0.1:8080 backlog 4096
  bind {explicit} backlog 4096
  http-request deny deny_status 403 if {{ hdr(host),lower -m str -f {folder}/hosts }}
  http-request deny deny_status 403 if {{ base,lower -m str -f {folder}/pages }}
  http-request set-dst hdr(host),lower,map_str_ip({folder}/addresses) if {{ dst_port {port} }}
  http-request set-dst-port int(80) if {{ dst_port {port} }}
  http-request set-uri %[pathq] if {{ dst_port {port} }}
  default_backend web
backend web
  server any 0.0.0.0:0
frontend hello
  mode tcp
  bind 127.0.0.1:8443 backlog 4096
  tcp-request inspect-delay 10s
  tcp-request content reject if {{ req.ssl_sni,lower -m str -f {folder}/hosts }}
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  tcp-request content reject
  default_backend through
backend through
  mode tcp
  server any 0.0.0.0:0
"""


class Haproxy(Proxy):
    """Knows hosts and pages by exact name, from files in its own trees."""

    name = "haproxy"
    title = "HAProxy"
    programs = ("haproxy",)
    package = "haproxy"
    ports = (8080, 8443)
    without: ClassVar[Without] = {
        **dict.fromkeys(sorted(INTERCEPTING), "it has no certificates for other people's hosts"),
        **dict.fromkeys(sorted(TUNNELLED), "it gives no tunnels"),
        Case.RELOAD: "a changed list is a new process",
    }
    note = "hosts and pages as `acl` files, exact names only; explicit proxy by `set-dst` with a map of hosts"

    @override
    @classmethod
    def version(cls) -> str:
        return first_version("haproxy", "-v")

    @override
    def prepare(self) -> None:
        (self.folder / "haproxy.cfg").write_text(
            _CONFIGURATION.format(folder=self.folder, explicit=":".join(map(str, EXPLICIT)), port=EXPLICIT[1])
        )
        write(self.folder / "addresses", [f"{host} {ORIGIN}" for host in self.material.hosts])
        self.change(0)
        command = ["haproxy", "-c", "-f", str(self.folder / "haproxy.cfg")]
        subprocess.run(command, check=True, capture_output=True)

    @override
    def command(self) -> list[str]:
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]

    @override
    def change(self, version: int) -> None:
        entries = self.material.peers[version]
        write(self.folder / "hosts", sorted({e.host for e in entries if e.kind in (Kind.DOMAIN, Kind.HOST)}))
        write(self.folder / "pages", sorted({f"{e.host}{e.path}".lower() for e in entries if e.path}))
