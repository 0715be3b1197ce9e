"""The proxies that are measured, in the order of the report."""

from benchmarks.proxy.proxies.base import Proxy, Setting
from benchmarks.proxy.proxies.haproxy import Haproxy
from benchmarks.proxy.proxies.mitm import KnownFiles, Mitmdump, TwoWorkers, Urlward
from benchmarks.proxy.proxies.squid import Squid, SquidGuard
from benchmarks.proxy.proxies.straight import Straight

__all__ = ["PROXIES", "Proxy", "Setting"]

PROXIES: dict[str, type[Proxy]] = {
    proxy.name: proxy
    for proxy in (Urlward, TwoWorkers, KnownFiles, Squid, SquidGuard, Mitmdump, Haproxy, Straight)
}
