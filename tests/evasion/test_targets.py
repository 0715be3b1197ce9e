"""A bounded run of the fuzzer of targets; the long one is a command (see `evasion.targets`)."""

import os
import random
import time
from collections.abc import Iterator

import pytest

from conftest import free_port
from e2e.support import running
from evasion.runs import servers_folder
from evasion.servers import LIST, ORIGINS, answer_of, missing, running_origins
from evasion.targets import Tally, fuzz, is_sent

pytestmark = pytest.mark.long

SEED = os.environ.get("URLWARD_SEED", "20260101")
"""In CI another at each run; what is set runs again what a run has found."""
TARGETS = 1500
SECONDS = 240.0
"""At most; so many targets take a tenth of that, where the machine has nothing else to do."""
SAMPLE = 25


@pytest.fixture(scope="session")
def origins() -> Iterator[dict[str, int]]:
    """Every server that is installed, started once."""
    with servers_folder("targets") as folder, running_origins(folder) as ports:
        yield ports


@pytest.fixture(scope="session")
def tally(origins: dict[str, int]) -> Tally:
    """What the run has found."""
    return fuzz(origins, SEED, TARGETS, time.monotonic() + SECONDS)


@pytest.mark.parametrize("origin", ORIGINS)
def test_what_an_origin_serves_as_listed_never_passes(tally: Tally, origin: str) -> None:
    if origin in missing():
        pytest.skip(f"needs {missing()[origin]}")
    leaks = [target for target, by in tally.leaks.items() if origin in by]
    assert not leaks, f"URLWARD_SEED={SEED}: {origin} serves a listed page for {leaks}"
    # Enough has been tried for this to mean something.
    assert len(tally.listed[origin]) >= TARGETS // 30, tally.counts


def test_ordinary_targets_of_unlisted_pages_pass(tally: Tally) -> None:
    assert not tally.excess, f"URLWARD_SEED={SEED}: {tally.excess}"
    assert tally.counts["ordinary, unlisted, passed"] >= TARGETS // 100, tally.counts


def test_the_filter_passes_nothing_of_a_sample(
    origins: dict[str, int], tally: Tally, tmp_path_factory: pytest.TempPathFactory
) -> None:
    entries = {name: free_port() for name in origins}
    modes = [f"reverse:http://127.0.0.1:{port}@127.0.0.1:{entries[name]}" for name, port in origins.items()]
    rng = random.Random(SEED)
    with running(tmp_path_factory.mktemp("filter"), text=LIST, modes=modes, check=False):
        for name, port in entries.items():
            assert answer_of(port, b"/innocent.html") == "innocent", name
            listed = sorted(set(filter(is_sent, tally.listed[name])))
            for target in rng.sample(listed, min(SAMPLE, len(listed))):
                found = answer_of(port, target.encode("latin-1"))
                assert found != "listed", f"URLWARD_SEED={SEED}: {name} {target}"
