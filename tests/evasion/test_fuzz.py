"""Bounded runs of the fuzzer; the long one is a command (see `evasion.fuzz`)."""

import os

import pytest

from evasion.fuzz import fuzz, fuzzed_ways
from evasion.lab import Lab

SEED = int(os.environ.get("URLWARD_SEED", "20260101"))


@pytest.mark.parametrize("requests", [40, pytest.param(125, marks=pytest.mark.long)])
def test_what_the_bare_origin_serves_as_listed_never_passes(laboratory: Lab, requests: int) -> None:
    """So many requests a way, in 60 seconds at most."""
    tally = fuzz(laboratory, fuzzed_ways(laboratory), SEED, requests, 60.0)
    assert not tally.violations, f"seed {SEED}\n" + "\n".join(map(str, tally.violations))
    # Enough has been tried for this to mean something.
    assert tally.counts["listed at the origin"] >= 100, tally.counts
    assert tally.counts["innocent"] >= 20, tally.counts
