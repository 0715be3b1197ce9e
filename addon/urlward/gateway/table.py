"""nftables table ``inet urlward``: names, the setup that its rules state, and the errors of the gateway."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

from urlward.config import Config
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError

TABLE = "urlward"
FAMILY_AND_NAME = f"inet {TABLE}"

MARK = 0x0100_0000
"""Mark of packets that are delivered here whatever their destination, and of their connections: one bit, so
that others can have the rest of a mark."""

SETUP = "setup"
"""A chain that nothing jumps to; the comment of its one rule is a `Setup`."""

ENTRY, CLIENTS = "prerouting", "from_clients"
"""The chain that connections of clients come to first, and the one that it leads them to."""

LISTED_DIGEST = "listed_digest"
"""A chain that nothing jumps to; the comment of its one rule is a digest of what `LISTED` holds."""

STEERED = ("steer4", "steer6")
LISTED = ("listed4", "listed6")
CUT = ("cut4", "cut6")
ALIVE = "alive"
"""Holds TCP and UDP, by number, while a worker lives."""

ALIVE_FOR = 2
"""Seconds that the kernel takes a worker to live after its last sign of life."""

SIGN = 21365
"""Mark and port of a datagram that is a sign of life: only who may change rules, or send raw packets, can
mark one."""

NAT64_SEEN = "nat64"
"""Holds TCP and UDP, by number, once a client has reached for IPv4 by NAT64: the kernel puts them there."""

CANARY = "canary"
"""Holds numbers of workers, with what their canary has come to as the comment: ``ok``, or what fails."""

CUT_LISTED = "cut_listed"
"""Holds TCP and UDP, by number, where open connections to what is listed itself are to end."""

CUTTING = "cutting"
"""Holds TCP and UDP, by number, where any open connections are to end: other packets need no look at what
is cut."""

CONTESTED = "contested"
"""Holds TCP, by number, where rules that were removed again and again have been put back lately."""

CUT_FOR = 300
"""Seconds that packets of such connections are looked out for; see `SteerSet.cut`."""

BOTH_PROTOCOLS = (6, 17)
"""TCP and UDP by number: names would depend on the machine's /etc/protocols."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Setup that installed rules were made for.

    Attributes:
        listen: port of the transparent proxy.
        dns: port where DNS is answered, 0 where names are not steered.
        intercept: port of connections that are to be intercepted, 0 where there is none.
        fail: ``open`` or ``closed``.
        source: ``kept`` where origins see the client's address, else ``own``.
        config: digest of all that the rules were made from, their text in this release too.
    """

    listen: int
    dns: int
    intercept: int
    fail: str
    source: str
    config: str

    @property
    def redirects(self) -> bool:
        """Whether some of what clients send is translated to come to the filter."""
        return self.source != "kept" or bool(self.dns)

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            ValueError: something else.
        """
        values = dict(part.partition("=")[::2] for part in text.split())
        try:
            return cls(
                listen=int(values["listen"]),
                dns=int(values["dns"]),
                intercept=int(values["intercept"]),
                fail=values["fail"],
                source=values.get("source", "own"),
                config=values["config"],
            )
        except KeyError as e:
            raise ValueError(f"{e.args[0]} is missing") from e

    @classmethod
    def of(cls, listing: list[dict[str, Any]]) -> Self | None:
        """The setup in a listing of the table or of its chain `SETUP`, if any."""
        for one in listing:
            rule = one.get("rule", {})
            if rule.get("chain") == SETUP:
                try:
                    return cls.parse(rule.get("comment", ""))
                except ValueError:
                    return None
        return None


def interfaces_of(listing: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Clients' interfaces, by the rules in a listing that lead from `ENTRY` to `CLIENTS`."""
    found: dict[str, None] = {}
    for one in listing:
        rule = one.get("rule", {})
        if rule.get("chain") == ENTRY and CLIENTS in targets_of(rule):
            for part in rule["expr"]:
                match = part.get("match", {})
                if match.get("left") == {"meta": {"key": "iifname"}}:
                    found[match["right"]] = None
    return tuple(found)


def targets_of(rule: Mapping[str, Any]) -> list[str]:
    """The chains that a rule in a listing leads to."""
    return [part[how]["target"] for part in rule.get("expr", ()) for how in ("jump", "goto") if how in part]


@contextmanager
def located(config: Config) -> Iterator[None]:
    """Add to an error where its key stands in the file.

    Raises:
        ConfigError: in place of a `SettingError`.
    """
    try:
        yield
    except SettingError as e:
        raise config.refused(e.problem) from e


class NftError(UrlwardError):
    """The kernel, or libnftables, refused a command, or is not to be had: it is missing, or not permitted."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """Error from the kernel's own error code, without libnftables."""
        return cls(f"nftables: {(error.strerror or str(error)).lower()}")


class NoTableError(NftError):
    """A table, chain, set or element that a command names does not exist."""


class SetFullError(NftError):
    """A set holds as many elements as it may."""
