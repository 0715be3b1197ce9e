import random
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from time import monotonic

import pytest

from e2e.test_modes import may_make_namespaces
from urlward.config import GatewayTable
from urlward.gateway import control, system
from urlward.gateway.nft import Nft
from urlward.gateway.rules import RulesPlan
from urlward.gateway.steer_set import Element, evict, lengthen, renew
from urlward.gateway.table import NoTableError, SetFullError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

FOUR, SIX = ip_address("192.0.2.1"), ip_address("2001:db8::1")
ELEMENTS: list[Element] = [("steer4", FOUR), ("steer6", SIX), ("alive", 6)]


@pytest.fixture
def nft(nft: Nft) -> Nft:
    control.up(nft, RulesPlan(GatewayTable(interfaces=("lan0",), steer=True, max_addresses=3), 8080))
    return nft


def left(nft: Nft) -> list[float]:
    return [nft.left("steer4", FOUR.packed), nft.left("steer6", SIX.packed), nft.left("alive", b"\6")]


def test_renewed_time_begins_now(nft: Nft) -> None:
    for seconds in (100, 500, 20):
        renew(nft, ELEMENTS, seconds)
        assert all(seconds - 5 < one <= seconds for one in left(nft))


def test_lengthened_time_is_never_less(nft: Nft) -> None:
    for seconds, expected in ((100, 130), (20, 130), (125, 130), (200, 230)):
        stays = lengthen(nft, ELEMENTS, seconds, 30)
        assert all(expected - 5 < one <= expected for one in left(nft))
        assert all(expected - 5 < until - monotonic() <= expected for until in stays.values())
        assert set(stays) == set(ELEMENTS)


def test_all_or_nothing(nft: Nft) -> None:
    four: list[Element] = [("steer4", ip_address(f"192.0.2.{i}")) for i in range(4)]
    with pytest.raises(SetFullError):
        lengthen(nft, four, 100, 0)
    assert nft.left("steer4", FOUR.packed) == 0
    with pytest.raises(NoTableError):
        renew(nft, [("steer4", FOUR), ("nowhere", FOUR)], 100)
    assert nft.left("steer4", FOUR.packed) == 0


def test_eviction_says_whether_there_is_room(nft: Nft) -> None:
    renew(nft, [("steer4", ip_address(f"192.0.2.{i}")) for i in range(3)], 100)
    assert evict(nft, "steer4", 1, 50, 3) == (0, False)
    assert evict(nft, "steer4", 1, 200, 3) == (1, True)
    assert evict(nft, "steer4", 1, 200, 3) == (0, True)


def test_processes_that_lengthen_at_once(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_PATIENCE", 60.0)  # nobody is stuck here, however slow the machine is
    choose = random.Random(1)
    connections = [Nft() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(15):
            nft.run("flush set inet urlward steer4")
            wanted = [choose.randrange(100, 100_000) for _ in connections]
            jobs = [
                pool.submit(lengthen, connection, ELEMENTS[:1], seconds, 0)
                for connection, seconds in zip(connections, wanted, strict=True)
            ]
            for job in jobs:
                job.result()
            assert nft.left("steer4", FOUR.packed) > max(wanted) - 5
    for connection in connections:
        connection.close()
