"""What the lab's fleet looks at, without a network."""

from typing import Any

import pytest

from urlward.config import CanaryTable
from urlward.lab import fleet
from urlward.lab.fleet import Fleet

LISTED = """\
table inet urlward {
	set steer4 {
		type ipv4_addr
		flags timeout
		elements = { %s }
	}
}
"""


def test_what_a_node_steers_is_without_the_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has it for itself, from when its canary first runs: one that has just begun does not lack it."""
    four = CanaryTable().addresses[0]
    elements = f"203.0.113.7 timeout 20m expires 19m3s, {four} timeout 10s expires 9s700ms"

    def run(command: Any, **_: Any) -> str:
        return LISTED % elements

    monkeypatch.setattr(fleet, "run", run)
    assert Fleet._steered(object.__new__(Fleet), 1) == {"203.0.113.7"}
