"""What the guard tells of what clients ask for and are shown."""

from typing import Any

import pytest
from mitmproxy.connection import Client

from proxy.driver import NOW, failed, make_context, make_matcher
from proxy.test_guard import LINES, for_host
from proxy.test_names import to
from urlward.config import PageTable
from urlward.engine.verdict import Verdict
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.guard import Guard
from urlward.proxy.names import NO_NAMES, Names


class Probing:
    def __init__(self, *, slowing: bool = True, broken: bool = False) -> None:
        self.slowing = slowing
        self.broken = broken
        self.told: list[str] = []

    def asked(self, client: Client) -> None:
        self._tell("asked")

    def drew(self, client: Client, verdict: Verdict) -> None:
        self._tell(f"drew {verdict.entry}")

    def _tell(self, what: str) -> None:
        if self.broken:
            raise RuntimeError
        self.told.append(what)


def guard(probing: Probing, **changes: Any) -> Guard:
    matcher = make_matcher(*LINES)
    return Guard(
        lambda: matcher,
        BlockPage(PageTable()),
        clock=lambda: NOW,
        probing=probing,
        **changes,  # type: ignore[arg-type]
    )


def test_a_request_that_is_blocked() -> None:
    probing = Probing()
    guard(probing).answer(for_host("blocked.example"), make_context())
    assert probing.told == ["asked", "drew E-1"]


def test_one_that_passes_is_slowed_as_well() -> None:
    probing = Probing()
    guard(probing).answer(for_host("plain.example"), make_context())
    assert probing.told == ["asked"]


def test_nothing_is_asked_while_nobody_is_slowed() -> None:
    probing = Probing(slowing=False)
    guard(probing).answer(for_host("plain.example"), make_context())
    guard(probing).answer(for_host("blocked.example"), make_context())
    assert probing.told == ["drew E-1"]


def test_a_tls_connection_that_is_refused() -> None:
    probing = Probing()
    guard(probing, tls_block="alert").tls(to("203.0.113.1", 443), b"blocked.example")
    assert probing.told == ["asked", "drew E-1"]


def test_what_is_relayed_unread_and_refused() -> None:
    probing = Probing()
    context = to("192.0.2.66")
    names = Names(("192.0.2.66",), (80,), "192.0.2.66", "")
    assert guard(probing).relayed(names, context.client) is None
    assert probing.told == ["asked", "drew E-3"]


def test_who_only_monitors_shows_nothing_that_could_be_drawn() -> None:
    probing = Probing()
    guard(probing, monitor=True).answer(for_host("blocked.example"), make_context())
    assert probing.told == ["asked"]


def test_what_is_cut_since_the_list_has_changed_was_not_drawn() -> None:
    probing = Probing()
    names = Names(("blocked.example",), (80,), "", "/")
    assert guard(probing).review(names, make_context().client) == "cut"
    assert probing.told == []


@pytest.mark.parametrize("on_error", ["block", "pass"])
def test_a_fault_in_it_changes_no_decision(on_error: str) -> None:
    g = guard(Probing(broken=True), on_error=on_error)
    answer = g.answer(for_host("blocked.example"), make_context())
    assert isinstance(answer, BlockResponse)
    assert answer.status == 451
    passed = g.answer(for_host("plain.example"), make_context())
    assert isinstance(passed, Names)
    assert passed is not NO_NAMES
    assert failed(g) == 3
