"""The proxies that are measured, in the order of the report."""

from benchmarks.proxy.proxies.base import Proxy, Setting
from benchmarks.proxy.proxies.e2guardian import E2guardian
from benchmarks.proxy.proxies.mitm import Mitmdump, Urlward
from benchmarks.proxy.proxies.privoxy import Privoxy
from benchmarks.proxy.proxies.squid import Squid, SquidGuard, SquidTls
from benchmarks.proxy.proxies.straight import Straight

__all__ = ["PROXIES", "Proxy", "Setting"]

PROXIES: dict[str, type[Proxy]] = {
    proxy.name: proxy
    for proxy in (Urlward, Mitmdump, Squid, SquidGuard, SquidTls, Privoxy, E2guardian, Straight)
}
