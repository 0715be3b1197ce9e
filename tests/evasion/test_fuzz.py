"""Bounded runs of the fuzzer; the long one is a command (see `evasion.fuzz`)."""

import os

from evasion.fuzz import fuzz, fuzzed_ways
from evasion.lab import Lab

SEED = int(os.environ.get("URLWARD_SEED", "20260101"))
REQUESTS = 60 if "URLWARD_SEED" in os.environ else 40
"""A way, in CI and everyday."""


def test_what_the_bare_origin_serves_as_listed_never_passes(laboratory: Lab) -> None:
    """In 60 seconds at most."""
    tally = fuzz(laboratory, fuzzed_ways(laboratory), SEED, REQUESTS, 60.0)
    assert not tally.violations, f"seed {SEED}\n" + "\n".join(map(str, tally.violations))
    # Enough has been tried for this to mean something.
    assert tally.counts["listed at the origin"] >= 100, tally.counts
    assert tally.counts["innocent"] >= 20, tally.counts
