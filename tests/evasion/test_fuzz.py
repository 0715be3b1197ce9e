"""A bounded run of the fuzzer; the long one is a command (see `evasion.fuzz`)."""

import pytest

from evasion.fuzz import fuzz, fuzzed_ways
from evasion.lab import Lab

SEEDS = (20260101, 20260102)
SECONDS = 10.0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_bare_origin_serves_as_listed_never_passes(laboratory: Lab, seed: int) -> None:
    tally = fuzz(laboratory, fuzzed_ways(laboratory), seed, 400, SECONDS)
    assert not tally.violations, "\n".join(map(str, tally.violations))
    # Enough has been tried for this to mean something.
    assert tally.counts["listed at the origin"] >= 100, tally.counts
    assert tally.counts["innocent"] >= 20, tally.counts
