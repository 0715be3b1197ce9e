"""Running lab: the network, the services around the filter, the filter, and the clients."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.lab.filter import LabFilter
from urlward.lab.fleet import Fleet
from urlward.lab.isolation import BUNDLE, CHROMIUM_FOLDER, CHROMIUM_POLICIES, WORK, environment
from urlward.lab.outcome import Witness, machine_of
from urlward.lab.scenario import Loaded
from urlward.lab.services import (
    AgentLink,
    LabResolver,
    LabService,
    make_certificates,
    start_origins,
    wait_until,
    write_bundle,
    write_chromium_policy,
)
from urlward.lab.topology import (
    CLIENT,
    DOMAIN,
    EXEMPT,
    GATEWAY,
    ORIGIN,
    OTHER_RESOLVER,
    RESOLVER,
    Site,
    add_origins,
    sites,
    via,
)

type Say = Callable[[str], None]


class World:
    """Services of a lab for one scenario; use as a context.

    Args:
        loaded: the scenario.
        ipv6: whether the kernel has it.
        say: is told what is being done.
        folder: for all files.
        last: whether all that runs ends with this process, so that nothing needs to be ended well.
    """

    def __init__(self, loaded: Loaded, ipv6: bool, say: Say, folder: Path = WORK, *, last: bool) -> None:
        self.loaded = loaded
        self.ipv6 = ipv6
        self.folder = folder / "run"
        self.logs = self.folder / "logs"
        self.sites = sites(loaded.scenario)
        self._say = say
        self._last = last
        self._stack = ExitStack()
        self._agents: dict[str, AgentLink] = {}
        self.fleet: Fleet | None = None

    def __enter__(self) -> "World":
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except Exception:
            if not self._last:
                self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._last and kind is not KeyboardInterrupt:
            self._stack.close()

    def agent(self, source: str) -> AgentLink:
        """The agent on a machine; started if it does not run yet."""
        machine = machine_of(source)
        if machine not in self._agents:
            link = AgentLink(machine, self.logs / f"agent-{machine}.log", environment())
            self._stack.callback(link.close)
            self._agents[machine] = link
        return self._agents[machine]

    def address(self, source: str, family: int) -> str:
        """Source address that a client must use; empty where any of its machine's will do."""
        if source.startswith("via"):
            return via(int(source.removeprefix("via"))).both[family == 6]
        return EXEMPT[family == 6] if source == "exempt" else ""

    def resolver_of(self, family: int) -> str:
        """The network's resolver."""
        return RESOLVER.host6 if family == 6 else RESOLVER.host4

    def restore(self) -> None:
        """Restore the initial state."""
        self.filter.free_disk()
        self.filter.write_list()
        self.resolver.start()
        if not self.filter.running:
            self.start_filter()

    def start_filter(self) -> None:
        """Start the filter, and wait until names are answered through it."""
        self.filter.start()
        self._wait_for_dns()

    @property
    def filters(self) -> list[LabFilter]:
        """The filters: one, or those of a fleet."""
        return list(self.fleet.nodes.values()) if self.fleet else [self.filter]

    def _start(self) -> None:
        # All machines' clients take a while to start; they do so while the rest does.
        for machine in (CLIENT.name, GATEWAY):
            self.agent(machine)
        self._say("certificates")
        every = [Site(name, None, site.host) for name, site in self.sites.items()]
        names = {n for site in every for n in (site.name, f"*.{site.name}")} | {f"*.{DOMAIN}"}
        addresses = [a for site in self.sites.values() if site.place for a in site.place.both]
        add_origins(a for a in addresses if self.ipv6 or ":" not in a)
        certificates = make_certificates(self.folder, sorted(names), addresses)
        write_bundle(BUNDLE, [certificates.authority])
        if self.loaded.scenario.fleet:
            self._say("the fleet")
            self.fleet = Fleet(self.folder, self.logs, self.loaded, certificates.authority, self.ipv6)
            self._stack.callback(self.fleet.close)
            self.filter, start = self.fleet.nodes[1], self.fleet.start
        else:
            self._say("the filter")
            self.filter = LabFilter(self.folder, self.loaded, certificates.authority, self.ipv6)
            self._stack.callback(self._stop_filter)
            start = self.filter.start
        pool = ThreadPoolExecutor(1)
        try:
            starting = pool.submit(start)
            self._origins = self._start_origins(certificates)
            self._start_resolvers()
            starting.result()
        finally:
            # Who is interrupted does not wait for the filter.
            pool.shutdown(wait=False)
        authorities = [certificates.authority, *(one.authority for one in self.filters)]
        write_bundle(BUNDLE, authorities)
        if CHROMIUM_FOLDER.is_dir():
            write_chromium_policy(CHROMIUM_POLICIES, authorities)
        self._wait_for_dns()
        self.begun_with = self.filter.holds()
        keeps_source = self.loaded.scenario.gateway.keep_source
        logs = [one.log for one in self.filters]
        self.witness = Witness(self.logs / "origin.log", *logs, keeps_source=keeps_source)

    def _start_origins(self, certificates: object) -> LabService:
        folder = self.folder / ORIGIN.name
        folder.mkdir(exist_ok=True)
        service = start_origins(folder, self.logs, certificates, self.ipv6)  # type: ignore[arg-type]
        self._stack.callback(service.stop)
        return service

    def _start_resolvers(self) -> None:
        def start(*addresses: str) -> LabResolver:
            every = list(self.sites.values())
            resolver = LabResolver(self.folder, self.logs, every, self.ipv6, self.agent(GATEWAY), addresses)
            self._stack.callback(resolver.stop)
            return resolver

        self.resolver = start(RESOLVER.host4, RESOLVER.host6)
        start(*OTHER_RESOLVER)

    def _stop_filter(self) -> None:
        self.filter.stop()
        self.filter.remove_rules()

    def _wait_for_dns(self) -> None:
        def answers() -> bool:
            if not self.filter.running:
                raise UrlwardError("lab: urlward has ended; see --keep for its log")
            question = {"name": "probe.invalid", "kind": "A", "server": RESOLVER.host4}
            return "rcode" in self.agent(CLIENT.name).ask("dns", **question)  # type: ignore[arg-type]

        wait_until(answers, "names to be answered")
