"""What a run measures."""

from dataclasses import dataclass

GOAL_SIZE = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes, counts and limits of a run.

    Attributes:
        sizes: entries of each list, ascending.
        reference: the size at which adblock-rust is the yardstick for the goal.
        rounds: each engine's turns; no request comes in two of them.
        miss: unlisted requests a round, on hosts seen before.
        hosts: hosts that all of them are on.
        near: unlisted requests a round on hosts that have a page, prefix or parameter entry.
        hit: listed requests a round, once on a first visit of their host and once on a later one.
        first: unlisted requests a round, each on a host never seen before.
        respelled: listed requests in evasive spellings, checked once for correctness.
        reloads: how often a list is loaded again beside the one in use, for the stalls.
        time_limit: seconds that building may take.
        memory_limit: bytes of address space for one engine.
    """

    sizes: tuple[int, ...]
    reference: int
    rounds: int
    miss: int
    hosts: int
    near: int
    hit: int
    first: int
    respelled: int
    reloads: int
    time_limit: float
    memory_limit: int


FULL = Plan(
    sizes=(1_000, 10_000, 40_000, 100_000, GOAL_SIZE),
    reference=40_000,
    rounds=10,
    miss=10_000,
    hosts=20_000,
    near=2_500,
    hit=2_500,
    first=2_000,
    respelled=2_000,
    reloads=5,
    time_limit=120.0,
    memory_limit=12 << 30,
)

QUICK = Plan(
    sizes=(1_000, 4_000),
    reference=4_000,
    rounds=3,
    miss=2_000,
    hosts=1_000,
    near=300,
    hit=300,
    first=300,
    respelled=300,
    reloads=2,
    time_limit=20.0,
    memory_limit=12 << 30,
)
