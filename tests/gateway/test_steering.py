"""The addon in mitmproxy, and a kernel that takes notes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_servers
from mitmproxy.test import taddons

from conftest import free_port, rounds, until
from gateway.dns_support import LIST, PATIENT, Kernel, Upstream, records
from resolver.dnstap_support import Sender, tapped
from rows import each_row
from urlward.config import CanaryTable, DnsTable, GatewayTable, HookTable
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError
from urlward.gateway import steering
from urlward.gateway.rules import default_modes, steering_modes
from urlward.gateway.steering import Steering
from urlward.gateway.table import NftError, NoTableError
from urlward.plan import Address
from urlward.proxy.addon import Urlward
from urlward.proxy.front import listen_in_front
from urlward.proxy.listeners import open_sockets
from urlward.proxy.workers import WORKER, Worker
from urlward.records.metrics import Metrics

pytestmark = pytest.mark.usefixtures("compiles_here")


class Rig:
    """The addon, running."""

    def __init__(self, folder: Path, upstream: Upstream, tctx: taddons.context, addon: Steering) -> None:
        self.list = folder / "list.txt"
        self.upstream = upstream
        self.tctx = tctx
        self.addon = addon
        self.port = addon._gateway.dns.port
        self.kernel: Kernel = addon._steer_set  # type: ignore[assignment]
        self.urlward: Urlward = tctx.master.addons.get("urlward")

    async def ask(self, name: str, *, tcp: bool = False) -> dns.message.Message:
        how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await how(dns.message.make_query(name, "A"), "127.0.0.1", 60, self.port)

    async def relist(self, text: str) -> None:
        self.list.write_text(text)
        assert self.urlward.keeper is not None
        await self.urlward.keeper.reload()


@asynccontextmanager
async def running(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str = LIST,
    system: Path | None = None,
    metrics: Metrics | None = None,
    **values: Any,
) -> AsyncIterator[Rig]:
    monkeypatch.setattr(
        mode_servers.AsyncioServerInstance, "listen", mode_servers.AsyncioServerInstance.listen
    )
    monkeypatch.setattr(steering, "BEAT", 0.02)
    # Until the test is over, which ends it.
    monkeypatch.setattr(steering, "_LINGERS", 600.0)
    upstream = await Upstream(records("60 A 192.0.2.1")).start()
    named = (f"127.0.0.1:{upstream.port}",)
    if system is not None:
        say(system, upstream)
        monkeypatch.setattr(steering, "SYSTEM", system)
        monkeypatch.setattr(steering, "SYSTEM_LOOK", 0.02)
    dns_table = DnsTable(port=free_port(), resolvers=() if system else named, timeout=PATIENT)
    table = GatewayTable(dns=dns_table, canary=CanaryTable(addresses=()), **values)
    addon = Steering(table, Kernel())  # type: ignore[arg-type]
    (folder / "list.txt").write_text(text)
    server, urlward = Proxyserver(), Urlward()
    at = [Address("127.0.0.1", table.dns.port, kind) for kind in ("udp", "tcp")]
    listen_in_front(urlward, Worker([(address, open_sockets(address)) for address in at]))
    with taddons.context(server, NextLayer(), urlward, addon) as tctx:
        tctx.configure(urlward, urlward_list=[str(folder / "list.txt")])
        tctx.options.update(listen_host="127.0.0.1", mode=[f"dns@{table.dns.port}"])
        server.running()
        assert await server.setup_servers()
        urlward.running()
        with monkeypatch.context() as patched:
            if metrics is not None:
                recording = SimpleNamespace(hit_by_dns=print, logs=True, named=str)
                patched.setattr(urlward, "recording", recording)
                patched.setattr(urlward, "metrics", metrics)
            addon.running()
        rig = Rig(folder, upstream, tctx, addon)
        yield rig
        for instance in server.servers:
            if instance.is_running:
                await instance.stop()
        urlward.done()
        for dns_server in addon._servers:
            dns_server.end()
        await addon.done()
        assert rig.kernel.closed
        upstream.close()


def say(system: Path, *upstreams: Upstream) -> None:
    """Write the system's resolvers as a DHCP client does; a port goes beyond what resolv.conf(5) knows."""
    new = system.with_name("new")
    new.write_text("".join(f"nameserver 127.0.0.1:{one.port}\n" for one in upstreams))
    new.replace(system)


async def test_the_system_s_resolvers_are_those_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another lease brings others, and those before answer nobody any more."""
    system = tmp_path / "resolv.conf"
    other = await Upstream(records("60 A 192.0.2.2")).start()
    async with running(tmp_path, monkeypatch, system=system) as rig:
        assert (await rig.ask("plain.example")).answer[0][0].address == "192.0.2.1"
        rig.upstream.answer = lambda _: None
        waiting = asyncio.ensure_future(rig.ask("asked-before.example"))
        await until(lambda: "asked-before.example" in rig.upstream.asked, "the question")
        say(system)  # no lease: those before stay
        say(system, other)
        await until(lambda: f"DNS resolvers: 127.0.0.1:{other.port}, as " in caplog.text, "the others")
        for tcp in (False, True):
            assert (await rig.ask("plain.example", tcp=tcp)).answer[0][0].address == "192.0.2.2"
        assert rig.upstream.asked.count("plain.example") == 1
        rig.upstream.answer = records("60 A 192.0.2.1")
        rig.upstream.answer_held()
        assert (await waiting).answer[0][0].address == "192.0.2.1", "what was asked before is still answered"
    other.close()


def test_modes() -> None:
    assert steering_modes(GatewayTable()) == ("transparent", "dns@5353")
    table = GatewayTable(steered="intercept", intercept_port=8091, dns=DnsTable(port=53))
    assert steering_modes(table) == ("transparent", "transparent@8091", "dns@53")
    assert default_modes(table, steer=True) == steering_modes(table)
    assert default_modes(table, steer=False) == ("regular",)
    table = GatewayTable(interfaces=("lan0",))
    assert default_modes(table, steer=False) == ("transparent",), "the rules lead there"


async def test_dns_is_answered_and_steers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        addresses = {a[:2] for s in rig.tctx.master.addons.get("proxyserver").servers for a in s.listen_addrs}
        assert addresses == {("127.0.0.1", rig.port)}
        assert (await rig.ask("plain.example")).answer[0].ttl == 60
        assert not rig.kernel.steered
        assert (await rig.ask("blocked.example")).answer
        assert rig.kernel.addresses == {"192.0.2.1"}


async def test_a_full_set_is_said_until_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path, monkeypatch) as rig:
        metrics = Metrics(0.0)
        monkeypatch.setattr(rig.urlward, "metrics", metrics)
        told = lambda: metrics.snapshot()["troubles"]  # noqa: E731
        rig.kernel.on_full(0)
        assert "further names with an entry get no answer" in told()["steer-set"]
        monkeypatch.setattr(steering, "FULL_FOR", 0.05)
        for _ in range(3):
            rig.kernel.on_full(7)
        assert "told longest ago make room" in told()["steer-set"]
        await until(lambda: not told(), "the end of it")
        assert sum("steered addresses" in line for line in caplog.messages) == 3, "each once"
        monkeypatch.undo()


async def test_resolvers_that_do_not_answer_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    really = steering.make_service
    monkeypatch.setattr(steering, "make_service", lambda *given: (made.append(given[-1]), really(*given))[1])
    async with running(tmp_path, monkeypatch) as rig:
        metrics = Metrics(0.0)
        monkeypatch.setattr(rig.urlward, "metrics", metrics)
        (trouble,) = made
        trouble("no DNS resolver answers")
        assert metrics.snapshot()["troubles"] == {"resolvers": "no DNS resolver answers"}
        trouble("")
        assert metrics.snapshot()["troubles"] == {}
        monkeypatch.undo()


async def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await until(lambda: rig.kernel.beats > 2, "beats")
        keeper, rig.urlward.keeper = rig.urlward.keeper, None
        await rounds(steering.BEAT, 2)
        before = rig.kernel.beats
        await rounds(steering.BEAT, 3)
        assert rig.kernel.beats == before, "without a list"
        rig.urlward.keeper = keeper
        await until(lambda: rig.kernel.beats > before, "beats")
        assert rig.kernel.serves()
        for instance in rig.tctx.master.addons.get("proxyserver").servers:
            await instance.stop()
        await asyncio.sleep(0.05)
        before = rig.kernel.beats
        assert (await rig.ask("plain.example")).answer, "until the kernel has learned of it"
        await asyncio.sleep(0.1)
        assert rig.kernel.beats == before, "a filter that ends shows none"
        assert not rig.kernel.serves()


async def test_names_listed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        assert (await rig.ask("new.example")).answer[0].ttl == 60
        assert not rig.kernel.steered
        await rig.relist(LIST + "http://new.example/x.html\n")
        await until(lambda: rig.kernel.cuts == [["192.0.2.1"]], "the change")
        assert rig.kernel.addresses == {"192.0.2.1"}


@each_row(("worker", "lists"), [("", True), ("0", True), ("1", False)])
async def test_one_worker_lists_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str, lists: bool
) -> None:
    if worker:
        monkeypatch.setenv(WORKER, worker)
    async with running(tmp_path, monkeypatch, "192.0.2.128/28\n") as rig:
        assert (await rig.ask("new.example")).answer
        if lists:
            await until(lambda: rig.kernel.networks == ["192.0.2.128/28"], "networks")
        await rig.relist("192.0.2.128/28\n192.0.2.77\nnew.example\n")
        if lists:
            await until(lambda: rig.kernel.networks == ["192.0.2.128/28", "192.0.2.77/32"], "networks")
            rig.kernel.fault = NftError("the kernel refused")
            refused = rig.kernel.refused
            await rig.relist("192.0.2.128/28\n")
            await until(lambda: rig.kernel.refused > refused + 1, "a try that fails, and another")
            rig.kernel.fault = None
            await until(lambda: rig.kernel.networks == ["192.0.2.128/28"], "another try")
        else:
            # Names are every worker's task: what lists have changed has been seen.
            await until(lambda: rig.kernel.cuts == [["192.0.2.1"]], "the name listed anew")
            assert rig.kernel.listings == []


@pytest.mark.parametrize("worker", ["0", "1"])
async def test_no_worker_lives_before_networks_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    tried = 0

    async def refused(*_: object, **__: object) -> bool:
        nonlocal tried
        tried += 1
        raise NftError("the kernel refused")

    monkeypatch.setenv(WORKER, worker)
    with monkeypatch.context() as m:
        m.setattr(Kernel, "list_networks", refused)
        m.setattr(Kernel, "has_listed", refused)
        async with running(tmp_path, monkeypatch, "192.0.2.128/28\n", fail="closed") as rig:
            await until(lambda: tried > 1, "a try that fails, and another")
            assert rig.kernel.beats == 0
            m.undo()
            if worker == "1":
                await asyncio.sleep(0.1)
                assert rig.kernel.beats == 0
                rig.kernel.networks = ["192.0.2.128/28"]
            await until(lambda: rig.kernel.beats, "a sign of life")


async def test_rules_that_go_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, monkeypatch, LIST + "192.0.2.99\n") as rig:
        await rig.ask("blocked.example")
        await until(lambda: rig.kernel.networks, "networks")
        rig.kernel.fault = NoTableError("nftables: no such table")
        await until(lambda: "run `urlward gateway up`" in caplog.text, "the line")
        assert (await rig.ask("paged.example")).rcode() == dns.rcode.SERVFAIL, (
            "what is not steered is not told"
        )
        rig.kernel.steered.clear()
        rig.kernel.networks = []
        rig.kernel.fault = None
        await until(lambda: "192.0.2.1" in rig.kernel.addresses, "what was steered")
        await until(lambda: rig.kernel.networks, "what was listed")
        assert "the rules are back" in caplog.text


async def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        policy = rig.addon._policy
        assert (policy.monitor, policy.on_error, policy.blocks_on_error) == (False, "block", True)
        rig.tctx.options.update(urlward_monitor=True)
        assert (policy.monitor, rig.addon._listing.monitor, policy.blocks_on_error) == (True, True, False)
        assert rig.addon._steer_set.monitor, "of what other nodes cut"
        rig.tctx.options.update(urlward_monitor=False, urlward_on_error="pass")
        assert (policy.monitor, policy.on_error, policy.blocks_on_error) == (False, "pass", False)


async def test_a_loop_goes_on_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rig.kernel.fault = RuntimeError("blocked.example")
        await until(lambda: "is not told that this filter lives" in caplog.text, "the line")
        before = rig.kernel.beats
        rig.kernel.fault = None
        await until(lambda: rig.kernel.beats > before, "beats")
        assert "blocked.example" not in caplog.text


@asynccontextmanager
async def lingering(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    """The wait for the end while a query is under way, which is answered behind the block and ends it."""
    hold = rig.upstream.answer
    rig.upstream.answer = lambda _: None
    asked = asyncio.create_task(rig.ask("plain.example"))
    await until(lambda: rig.upstream.asked == ["plain.example"], "the query")
    rig.addon._servers[0].close()
    lingers = asyncio.create_task(rig.addon._linger())
    yield lingers
    rig.upstream.answer = hold
    rig.upstream.answer_held()
    assert (await asked).answer[0][0].address == "192.0.2.1"
    async with asyncio.timeout(PATIENT):
        await lingers


async def test_the_end_is_when_the_kernel_leads_no_query_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is under way is answered; a restart need not wait until a sign of life has lost its force."""
    monkeypatch.setattr(steering, "_LOOK", 0.01)
    async with running(tmp_path, monkeypatch) as rig, lingering(rig) as lingers:
        for rig.kernel.leads in True, False:
            before = rig.kernel.looks
            await until(lambda n=before: rig.kernel.looks > n + 3, "looks")  # type: ignore[misc]
            assert not lingers.done()


async def test_the_end_where_other_workers_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a reload: no more is taken from then on, and what is under way is answered."""
    monkeypatch.setattr(steering, "_LOOK", 0.01)
    async with running(tmp_path, monkeypatch) as rig, lingering(rig) as lingers:
        await until(lambda: rig.kernel.looks, "a look")
        rig.addon._servers[0].end()  # as its time is over
        assert not (await asyncio.wait([lingers], timeout=0.1))[0]


async def test_the_end_waits_for_answers_that_are_steered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "_LOOK", 0.01)
    async with running(tmp_path, monkeypatch) as rig:
        rig.kernel.gate, rig.kernel.leads, before = asyncio.Event(), False, rig.kernel.waiting
        asked = asyncio.create_task(rig.ask("blocked.example"))
        await until(lambda: rig.kernel.waiting > before and rig.upstream.asked, "the kernel")
        await until(lambda: not rig.addon._forwarders[0][0].under_way, "the resolver's answer")
        rig.addon._servers[0].close()
        lingers = asyncio.create_task(rig.addon._linger())
        await until(lambda: rig.kernel.looks > 3, "looks")
        assert not lingers.done()
        rig.kernel.gate.set()
        assert (await asked).answer[0][0].address == "192.0.2.1"
        async with asyncio.timeout(PATIENT):
            await lingers


async def test_names_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "SWEEP", 0.05)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("plain.example")
        resolved = rig.addon._resolved
        assert len(resolved) == 1
        now = time.monotonic()
        monkeypatch.setattr(resolved, "_clock", lambda: now + 10_000)
        await until(lambda: len(resolved) == 0, "the sweep")


class Checked(Kernel):
    """Keeps what it is asked about its rules."""

    def check(self, listen_port: int, dns_port: int) -> None:
        self.checked = (listen_port, dns_port)
        if self.fault is not None:
            raise self.fault


def test_rules_are_looked_at_before_the_start() -> None:
    kernel = Checked()
    table = GatewayTable(dns=DnsTable(resolvers=("192.0.2.53",)))
    addon = Steering(table, kernel)  # type: ignore[arg-type]
    addon.check(("transparent", "dns@5353"), 8080)
    assert kernel.checked == (8080, 5353)
    addon.check(("transparent@127.0.0.1:9090", "dns@5353"), 8080)
    assert kernel.checked == (9090, 5353)
    kernel.fault = UrlwardError("no rules")
    with pytest.raises(UrlwardError, match="no rules"):
        addon.check(("transparent", "dns@5353"), 8080)


@each_row(
    "modes",
    [("regular",), ("transparent",), ("regular", "dns@5353"), ("transparent", "dns@5300"), ("no such",)],
)
def test_modes_that_the_rules_do_not_lead_to(modes: tuple[str, ...]) -> None:
    addon = Steering(GatewayTable(dns=DnsTable(resolvers=("192.0.2.53",))), Checked())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="mode: steering needs transparent, dns@5353;"):
        addon.check(modes, 8080)


def test_a_resolver_that_is_this_filter() -> None:
    table = GatewayTable(dns=DnsTable(resolvers=("127.0.0.1:5353",)))
    with pytest.raises(SettingError, match="is this filter itself"):
        Steering(table, Kernel())  # type: ignore[arg-type]


async def test_a_resolver_tells_by_dnstap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "RECHECK", 0.02)
    folder = tmp_path / "hook"
    folder.mkdir()
    hook, metrics = HookTable(folder=str(folder), dnstap=True), Metrics(0.0)
    async with running(tmp_path, monkeypatch, metrics=metrics, hook=hook) as rig:
        monkeypatch.setattr(rig.urlward, "metrics", metrics)
        assert metrics.snapshot()["resolvers"] == 0
        sender = await Sender.to(folder / "dnstap")
        answer = records("60 A 203.0.113.7")(dns.message.make_query("blocked.example", "A"))
        assert isinstance(answer, bytes)
        sender.tell(tapped(answer))
        await until(lambda: rig.kernel.followed, "the address")
        said = metrics.snapshot()
        assert (said["resolvers"], said["hooked"]["steered"]) == (1, 1)
        assert [one.name for one in folder.iterdir()] == ["dnstap"], "no filter that nobody needs"
        monkeypatch.undo()
    assert await sender.ended() == b"", "closed with the filter"


async def test_only_the_first_worker_takes_dnstap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What resolvers tell has to meet."""
    monkeypatch.setattr(steering, "is_first", lambda: False)
    hook, metrics = HookTable(folder=str(tmp_path), dnstap=True), Metrics(0.0)
    async with running(tmp_path, monkeypatch, metrics=metrics, hook=hook):
        assert not (tmp_path / "dnstap").exists()
        assert metrics.snapshot()["resolvers"] is None


async def test_a_hook_in_a_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It finds a filter of the lists in force, and answers that it hands over are steered."""
    monkeypatch.setattr(steering, "RECHECK", 0.02)
    folder = tmp_path / "hook"
    folder.mkdir()
    hook, metrics = HookTable(folder=str(folder)), Metrics(0.0)
    async with running(tmp_path, monkeypatch, metrics=metrics, hook=hook) as rig:
        monkeypatch.setattr(rig.urlward, "metrics", metrics)
        await until((folder / "filter").exists, "the filter")
        reader, writer = await asyncio.open_unix_connection(folder / "socket")
        query = dns.message.make_query("blocked.example", "A")
        answer = records("60 A 203.0.113.7")(query)
        assert isinstance(answer, bytes)
        writer.write((len(answer) + 1).to_bytes(2) + b"\0" + answer)
        size = int.from_bytes(await reader.readexactly(2))
        assert (await reader.readexactly(size))[:1] == b"S"
        assert rig.kernel.addresses == {"203.0.113.7"}
        assert (metrics.snapshot()["resolvers"], metrics.snapshot()["hooked"]["steered"]) == (1, 1)
        monkeypatch.setattr(rig.urlward, "recording", None)

        before = (folder / "filter").read_bytes()
        await rig.relist("other.example\n")
        await until(lambda: (folder / "filter").read_bytes() != before, "another filter")
        # A folder that is gone is told of, and the rest goes on.
        (folder / "filter").unlink()
        (folder / "filter").mkdir()
        await rig.relist("another.example\n")
        await until(lambda: "the hook in the resolver knows nothing of the lists" in caplog.text, "the line")
        assert (await rig.ask("plain.example")).answer
    assert await reader.read() == b"", "closed with the filter"
    writer.close()
