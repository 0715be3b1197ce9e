"""No proxy: what load and origin can do by themselves, sharing a core."""

from typing import ClassVar, override

from benchmarks.proxy import origin
from benchmarks.proxy.plan import INTERCEPTING, TUNNELLED, Case
from benchmarks.proxy.proxies.base import Proxy, Without

_NOTHING = "no proxy"


class Straight(Proxy):
    """Nothing in between."""

    name = "none"
    title = "no proxy"
    programs = ("nginx",)
    ports = origin.STRAIGHT
    without: ClassVar[Without] = dict.fromkeys(
        TUNNELLED
        | {Case.EXPLICIT, Case.BLOCK, Case.RELOAD}
        | (INTERCEPTING - {Case.HTTP2, Case.DOWNLOAD_INTERCEPTED}),
        _NOTHING,
    )

    @override
    @classmethod
    def version(cls) -> str:
        return f"nginx {origin.version()}"

    @override
    def prepare(self) -> None:
        pass

    @override
    def command(self) -> list[str]:
        return ["sleep", "infinity"]
