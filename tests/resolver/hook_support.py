"""Real resolvers with urlward's hook in them, and this process as the urlward that they ask."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from conftest import free_port, until
from gateway.dns_support import PATIENT, Kernel, Upstream, keep
from urlward.config import DnsTable, GatewayTable
from urlward.dns import hook_filter
from urlward.dns.handling import Answers
from urlward.dns.hook import HookServer
from urlward.dns.hooks import FOLDER as HOOKS
from urlward.dns.judge import Faults, Judge
from urlward.dns.policy import DnsPolicy
from urlward.dns.resolved import Resolved
from urlward.dns.wire import PAYLOAD
from urlward.engine.steps import exhaust
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets


def loaded(path: Path) -> ModuleType:
    """A module that is no part of a package on Python's path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KINDS = loaded(Path(__file__).parents[2] / "benchmarks" / "resolver" / "servers.py").KINDS

LIST = """\
blocked.example id=D-1 category=phishing
http://paged.example/listed.html id=D-2
wild.*
"""


class Urlward:
    """The side of urlward: lists in force, a kernel that takes notes, and the hook's folder.

    Attributes:
        asked: names of the answers that were handed over.
        late: replies that came too late.
        counts: what has come of answers.
    """

    def __init__(self, folder: Path, text: str, settle: float, fail: str, **dns_values: Any) -> None:
        self.folder = folder / "hook"
        self.folder.mkdir()
        self.settle, self.fail = settle, fail
        gateway = GatewayTable(dns=DnsTable(**dns_values))
        self.kernel, self.faults = Kernel(), Faults()
        self.keeper = keep(folder, text)
        self.judge = Judge(lambda: self.keeper.matcher, self.faults)
        self.policy = DnsPolicy(gateway, self.kernel, self.judge, lambda: self.keeper.matcher)
        self.resolved = Resolved(gateway.dns.remember)
        self.answers = _Noting(self.judge, self.policy, self.resolved, self.faults)
        self.asked = self.answers.asked
        self.late = 0
        self.server: HookServer | None = None
        self.counts: Counter[str] = Counter()
        self.write()

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1

    def write(self) -> None:
        """Write the filter of the lists in force."""
        own = self.policy.own_names
        closed = self.fail == "closed"
        data = exhaust(hook_filter.content(self.keeper.matcher, own, self.settle, closed=closed))
        hook_filter.write(self.folder, data)

    async def start(self) -> None:
        def late() -> None:
            self.late += 1

        self.server = HookServer(self.answers, self.faults, self.settle, late, self.count)
        for one in open_sockets(Address(str(self.folder / "socket"), 0, "unix")):
            await self.server.serve(one)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.end()
            self.server = None


class _Noting(Answers):
    """Notes what it is asked."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: list[str] = []

    def reason(self, question: Any) -> Any:
        self.asked.append(question.host)
        return super().reason(question)


class Zone:
    """Records of an authority, by name: lines such as ``60 A 192.0.2.1``."""

    def __init__(self, records: dict[str, Iterable[str]]) -> None:
        self.records = {name: list(lines) for name, lines in records.items()}
        self.silent = self.fails = False
        self.cut: list[dns.rrset.RRset] = []

    def __call__(self, query: dns.message.Message) -> bytes | None:
        if self.silent:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if self.fails:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        name, kind = query.question[0].name, query.question[0].rdtype
        seen = set()
        while name not in seen:
            seen.add(name)
            rrsets: dict[int, dns.rrset.RRset] = {}
            for line in self.records.get(name.to_text(omit_final_dot=True).lower(), ()):
                ttl, type_, data = line.split(" ", 2)
                rrset = dns.rrset.from_text(name, int(ttl), "IN", type_, data)
                if rrset.rdtype in (kind, dns.rdatatype.CNAME):
                    if rrset.rdtype in rrsets:
                        rrsets[rrset.rdtype].add(rrset[0])
                    else:
                        rrsets[rrset.rdtype] = rrset
            response.answer += rrsets.values()
            alias = rrsets.get(dns.rdatatype.CNAME)
            if alias is None or kind == dns.rdatatype.CNAME:
                break
            name = alias[0].target
        wire = response.to_wire(max_size=65535)
        if len(wire) > PAYLOAD and query.question[0] not in self.cut:
            # Over UDP, and whole when it is asked for again.
            self.cut.append(query.question[0])
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()
        return wire


class Resolver:
    """A resolver that runs."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port, self.process, self.log = port, process, log

    async def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, source: str | None = None, **values: Any
    ) -> dns.message.Message:
        """The answer to a question, of which `values` say more, as of `dns.message.make_query`."""
        how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        query = dns.message.make_query(name, kind, **values)
        return await how(query, "127.0.0.1", timeout=PATIENT, port=self.port, source=source)


@asynccontextmanager
async def resolving(
    kind: str, folder: Path, known: Path, upstream: Upstream, **values: Any
) -> AsyncIterator[Resolver]:
    """Run a resolver with a hook that knows its folder, in front of an authority; `values` as in `KINDS`."""
    while True:
        port = free_port()
        command = KINDS[kind](folder, port, upstream.port, **values)
        if shutil.which(command[0]) is None:
            pytest.skip(f"needs {command[0]}")
        log = folder / f"{kind}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], "URLWARD_HOOK": str(known), "URLWARD_HOOKS": str(HOOKS)},
            )  # fmt: skip
        try:
            await until(lambda p=process, at=port: p.poll() is not None or _answers(at), "the resolver")  # type: ignore[misc]
            if process.poll() is None:
                yield Resolver(port, process, log)
                return
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Another program that sends from any port may have had this one first.
        assert "address already in use" in log.read_text().lower(), log.read_text()


def _answers(port: int) -> bool:
    """Whether a socket is bound there, and connections are taken, which may come later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.bind(("127.0.0.1", port))
        return False
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
