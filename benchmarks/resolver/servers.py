"""Resolvers on the loopback, with urlward's hook in them or without: their files and command lines.

Each forwards to one authority. A hook takes its folder from `URLWARD_HOOK`, and scripts from `URLWARD_HOOKS`.
With `tap`, a receiver's socket, they tell of answers by dnstap: of those to clients, or that they get.
"""

from pathlib import Path

from urlward.dns.hooks import FOLDER as HOOKS

LEAST_SOURCE = 32_768
"""Least port that they ask from: below, where the kernel gives none either, servers of tests have theirs."""


def unbound(
    folder: Path,
    port: int,
    upstream: int,
    *,
    hook: bool = True,
    tap: Path | None = None,
    more: str = "",
    modules: str = "python iterator",
) -> list[str]:
    """Command line of Unbound."""
    tells = f"""\
dnstap:
    dnstap-enable: yes
    dnstap-socket-path: "{tap}"
    dnstap-log-client-response-messages: yes
"""
    python = f'python:\n    python-script: "{HOOKS / "unbound.py"}"\n' if hook else ""
    config = folder / "unbound.conf"
    config.write_text(f"""\
server:
    interface: 127.0.0.1@{port}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    do-not-query-localhost: no
    outgoing-port-avoid: 1024-{LEAST_SOURCE - 1}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    module-config: "{modules if hook else "iterator"}"
{more}
{python}
{tells if tap else ""}
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream}
""")
    return ["/usr/sbin/unbound", "-d", "-c", str(config)]


def powerdns(
    folder: Path, port: int, upstream: int, *, hook: bool = True, tap: Path | None = None, more: str = ""
) -> list[str]:
    """Command line of PowerDNS Recursor."""
    tells = f"""\
  dnstap_framestream_servers:
    - servers: ["{tap}"]
      logQueries: false
      logResponses: true
      queueNotifyThreshold: 1
      reopenInterval: 1
"""
    script = f"  lua_dns_script: {HOOKS / 'powerdns.lua'}" if hook else ""
    config = folder / "recursor.yml"
    config.write_text(f"""\
incoming:
  listen: ["127.0.0.1:{port}"]
recursor:
  daemon: false
  threads: 1
  socket_dir: {folder}
{script}
{more}
  forward_zones_recurse:
    - zone: .
      forwarders: ["127.0.0.1:{upstream}"]
outgoing:
  dont_query: []
  network_timeout: 20000
  udp_source_port_min: {LEAST_SOURCE}
dnssec:
  validation: "off"
logging:
  loglevel: 6
{tells if tap else ""}
""")
    return ["/usr/sbin/pdns_recursor", f"--config-dir={folder}"]


def knot(
    folder: Path, port: int, upstream: int, *, hook: bool = True, tap: Path | None = None, more: str = ""
) -> list[str]:
    """Command line of Knot Resolver."""
    tells = f"modules = {{ dnstap = {{ socket_path = '{tap}', client = {{ log_responses = true }} }} }}"
    module = f"package.path = '{HOOKS}/?.lua;' .. package.path\nmodules.load('urlward')" if hook else ""
    config = folder / "kresd.conf"
    config.write_text(f"""\
net.listen('127.0.0.1', {port}, {{ kind = 'dns' }})
cache.size = 10 * MB
trust_anchors.remove('.')
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
policy.add(policy.all(policy.FORWARD('127.0.0.1@{upstream}')))
{more}
{module}
{tells if tap else ""}
""")
    return ["/usr/sbin/kresd", "-n", "-q", "-c", str(config), str(folder)]


KINDS = {"unbound": unbound, "powerdns": powerdns, "knot": knot}
