"""The rules in the kernel: put there, taken away, looked at."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from urlward.gateway.errors import GatewayError, NoTableError
from urlward.gateway.nft import Nft
from urlward.gateway.rules import Plan, outdated, rules, setup_of
from urlward.gateway.table import ALIVE, CUT, FAMILY_AND_NAME, LISTED, STEERED, Setup

_COUNTED = {"steered": STEERED, "listed": LISTED, "cut": CUT}


@dataclass(frozen=True, slots=True)
class Status:
    """What is in the kernel.

    Attributes:
        setup: what the rules are for; None where there are none.
        alive: whether a worker lives.
        counts: elements of sets, for IPv4 and IPv6.
    """

    setup: Setup | None
    alive: bool
    counts: dict[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "up": self.setup is not None,
            "alive": self.alive,
            "setup": None if self.setup is None else asdict(self.setup),
            **{name: {"ipv4": four, "ipv6": six} for name, (four, six) in self.counts.items()},
        }


def up(nft: Nft, plan: Plan, *, replace: bool = False) -> bool:
    """Put rules into force, in place of those that are there.

    Args:
        nft: the kernel.
        plan: what they are made from.
        replace: whether those of a filter that lives and listens elsewhere may be replaced.

    Returns:
        Whether there were rules before.

    Raises:
        GatewayError: such a filter lives, or the plan does not make sense.
        NftError: the kernel refuses; nothing has changed.
    """
    existing = _listing(nft)
    before = Setup.of(existing)
    if before is not None and not replace and _conflict(before, setup_of(plan)) and _alive(nft):
        raise GatewayError(
            f"the rules are for a filter on port {before.listen}, which lives: end it first, or say --replace"
        )
    for name in outdated(plan, existing):
        existing += nft.json(f"list set {FAMILY_AND_NAME} {name}")
    script = rules(plan, existing)
    try:
        nft.check(script)
        nft.run(script)
    except NoTableError as e:
        # All that the script names it makes itself, so what is missing is a part of nf_tables.
        raise GatewayError(
            "this kernel lacks something of nf_tables that the rules need: "
            "the modules nft_ct, nft_nat, nft_redir, nft_masq, nft_reject_inet, nft_fib_inet"
        ) from e
    return before is not None


def down(nft: Nft) -> None:
    """Take all of it away, if it is there.

    Raises:
        NftError: the kernel refuses.
    """
    nft.run(f"add table {FAMILY_AND_NAME}; delete table {FAMILY_AND_NAME}")


def status(nft: Nft) -> Status:
    """Look.

    Raises:
        NftError: the kernel refuses.
    """
    setup = Setup.of(_listing(nft))
    counts = {kind: (_count(nft, names[0]), _count(nft, names[1])) for kind, names in _COUNTED.items()}
    return Status(setup, _alive(nft), counts)


def _conflict(one: Setup, other: Setup) -> bool:
    return (one.listen, one.dns, one.intercept) != (other.listen, other.dns, other.intercept)


def _listing(nft: Nft) -> list[dict[str, Any]]:
    """The table without the elements of its sets; empty where it is not there."""
    try:
        return nft.json(f"list table {FAMILY_AND_NAME}", terse=True)
    except NoTableError:
        return []


def _count(nft: Nft, name: str) -> int:
    return len(_elements(nft, name))


def _alive(nft: Nft) -> bool:
    return bool(_elements(nft, ALIVE))


def _elements(nft: Nft, name: str) -> Sequence[object]:
    try:
        elements: list[object] = nft.json(f"list set {FAMILY_AND_NAME} {name}")[0]["set"].get("elem", [])
    except NoTableError:
        return []
    return elements
