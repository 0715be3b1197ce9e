"""Changed lists, and a kernel that takes notes."""

import logging
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.dns_support import LIST, Kernel, keep
from urlward.dns.judge import Faults, Judge
from urlward.dns.resolved import MARGIN, Resolved
from urlward.gateway.steering import Listing
from urlward.gateway.table import NftError

if TYPE_CHECKING:
    from urlward.feeds.keeper import Keeper

pytestmark = pytest.mark.usefixtures("compiles_here")


class Rig:
    def __init__(self, folder: Path, max_change: int = 1000) -> None:
        self.keeper: Keeper = keep(folder, "other.example\n")
        self.kernel = Kernel()
        self.now = 0.0
        self.resolved = Resolved(1000, lambda: self.now)
        judge = Judge(lambda: self.keeper.matcher, Faults())
        self.listing = Listing(self.kernel, self.resolved, judge, max_change, Faults())

    def see(self, host: str, *addresses: str) -> None:
        packed = [ip_address(address).packed for address in addresses]
        four = b"".join(p for p in packed if len(p) == 4)
        six = b"".join(p for p in packed if len(p) == 16)
        found = Judge(lambda: self.keeper.matcher, Faults()).find((host,))
        self.resolved.remember((host,), four, six, 100, found)

    async def change(self, text: str = LIST) -> None:
        self.keeper.files[0].path.write_text(text)
        await self.keeper.reload()
        await self.listing.names()


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO, "urlward.gateway")
    return Rig(tmp_path)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "urlward.gateway"]


async def test_names_resolved_before(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.see("www.blocked.example", "192.0.2.1", "2001:db8::1")
    rig.see("paged.example", "192.0.2.2")
    rig.see("plain.example", "192.0.2.3")
    rig.now = 40.0
    await rig.change()
    assert rig.kernel.addresses == {"192.0.2.1", "2001:db8::1", "192.0.2.2"}
    assert {seconds for _, seconds in rig.kernel.steered} == {60 + MARGIN}
    assert {a for cut in rig.kernel.cuts for a in cut} == rig.kernel.addresses
    assert said(caplog) == [
        "2 names resolved before are listed now: 3 addresses steered, connections to 3 cut"
    ]
    rig.kernel.steered.clear()
    await rig.change(LIST + "new.example\n")
    assert not rig.kernel.steered, "once"


async def test_monitoring_cuts_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.listing.monitor = True
    rig.see("blocked.example", "192.0.2.1")
    await rig.change()
    assert rig.kernel.addresses == {"192.0.2.1"}
    assert not rig.kernel.cuts
    assert "1 would be cut off" in said(caplog)[0]


async def test_no_more_than_so_many_addresses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "urlward.gateway")
    rig = Rig(tmp_path, max_change=500)
    for number in range(400):
        rig.now = float(number)
        rig.see(
            f"n{number}.blocked.example",
            f"192.0.{number // 100}.{number % 100}",
            f"198.51.100.{number % 250}",
        )
    await rig.change()
    assert len(rig.kernel.addresses) <= 500
    assert "192.0.3.99" in rig.kernel.addresses, "those used last come first"
    first, second = said(caplog)
    assert "listed now" in first
    assert "left until they are asked for again: gateway.max_change is 500" in second
    assert "blocked.example" not in caplog.text
    rig.kernel.steered.clear()
    await rig.change(LIST + "new.example\n")
    assert rig.kernel.steered, "those that were left come with the next change"


async def test_a_shared_address_counts_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        rig.see(f"n{number}.blocked.example", "192.0.2.1")
    await rig.change()
    assert sum(len(a) for a in rig.kernel.cuts) == 1
    assert "20 names resolved before are listed now: 1 addresses" in said(caplog)[0]


async def test_a_fault_is_said_and_the_next_change_acts(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.see("blocked.example", "192.0.2.1")
    rig.kernel.fault = NftError("the kernel refused")
    await rig.change()
    assert said(caplog) == ["the kernel refused: names listed now, and resolved before, are not all steered"]
    rig.kernel.fault = None
    await rig.listing.names()
    assert rig.kernel.addresses == {"192.0.2.1"}


async def test_networks(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert await rig.listing.networks(rig.keeper)
    assert rig.kernel.networks == []
    for _ in range(2):
        await rig.change("192.0.2.0/24\n2001:db8::7\n")
        assert await rig.listing.networks(rig.keeper)
    assert rig.kernel.networks == ["192.0.2.0/24", "2001:db8::7/128"]
    assert rig.kernel.listings == [True, True], "once each time they change"
    rig.listing.lost()
    rig.listing.monitor = True
    assert await rig.listing.networks(rig.keeper)
    assert rig.kernel.listings == [True, True, False]
    rig.kernel.fault = NftError("the kernel refused")
    rig.listing.lost()
    assert not await rig.listing.networks(rig.keeper)
    assert "the kernel refused: listed networks are not steered" in said(caplog)


async def test_rules_that_come_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.see("blocked.example", "192.0.2.1")
    rig.see("plain.example", "192.0.2.3")
    await rig.change()
    rig.kernel.steered.clear()
    rig.kernel.cuts.clear()
    await rig.listing.again()
    assert rig.kernel.addresses == {"192.0.2.1"}
    assert not rig.kernel.cuts
    rig.kernel.fault = RuntimeError()
    await rig.listing.again()
    assert "not all steered" in said(caplog)[-1]


async def test_what_is_asked_meanwhile(rig: Rig) -> None:
    """Levels that were found by an answer after the change are no reason not to cut."""
    rig.see("blocked.example", "192.0.2.1")
    rig.keeper.files[0].path.write_text(LIST)
    await rig.keeper.reload()
    rig.see("blocked.example", "192.0.2.1")
    await rig.listing.names()
    assert rig.kernel.cuts == [["192.0.2.1"]]
    rig.see("www.blocked.example", "192.0.2.5")
    await rig.listing.names()
    assert len(rig.kernel.cuts) == 1, "resolved after the change: nothing is older"
