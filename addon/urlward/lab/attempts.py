"""Attempts: the requests of a step, sent by each client, four at a time, judged, and retried in time."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from urlward.lab import made
from urlward.lab.addresses import CLIENT6
from urlward.lab.clients import Got, is_stream, missing, send
from urlward.lab.outcome import JudgedAttempt, Observations, Result, judge
from urlward.lab.scenario import Measured, ScenarioRequest, ScenarioStep
from urlward.lab.witness import machine_of
from urlward.lab.world import World

_AT_ONCE = 4
_AGAIN = 0.05
_RCODES = {"NXDOMAIN": "nxdomain", "SERVFAIL": "failure", "REFUSED": "failure"}

type Tell = Callable[[JudgedAttempt], None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Request by one client."""

    step: str
    request: ScenarioRequest
    what: str
    client: str
    source: str

    @property
    def ordered(self) -> bool:
        """Whether the attempt has to be made in its turn."""
        return bool(self.request.keep) or self.request.expect in ("cut", "open")


class AttemptSender:
    """Sender and judge of requests.

    Args:
        world: the lab.
        tell: is told each outcome as it comes.
    """

    def __init__(self, world: World, tell: Tell) -> None:
        self._world = world
        self._tell = tell
        self._numbers = count(1)
        self._tags: list[tuple[str, int]] = []
        self.outcomes: list[JudgedAttempt] = []
        self.left_out: dict[str, str] = {}
        """Clients that this machine does not have, and why."""

    def of(self, number: int, step: ScenarioStep) -> list[Attempt]:
        """The attempts of a step.

        Args:
            number: of the step, from 0.
            step: the step.
        """
        loaded = self._world.loaded
        lines = loaded.lines[number]
        title = f"{number + 1}" + (f" {step.name}" if step.name else "")
        found = []
        for place, request in enumerate(step.requests):
            shown = self._shown(request, lines[place], place)
            found += [
                Attempt(title, request, shown, client, request.source or step.source)
                for client in self._clients(step, request)
            ]
        if step.draw and loaded.scenario.list.make:
            drawn = made.draw(loaded.scenario.list.make.entries, step.draw, loaded.scenario.list.make.seed)
            for expect, urls in (("block", drawn.listed), ("pass", drawn.unlisted)):
                for place, url in enumerate(urls):
                    request = ScenarioRequest.model_validate({"url": url, "expect": expect})
                    client = step.clients[place % len(step.clients)]
                    found.append(Attempt(title, request, f"drawn {place + 1}", client, step.source))
        return [attempt for attempt in found if self._can(attempt)]

    def run(
        self, attempts: Sequence[Attempt], within: float | None = None, begin: float | None = None
    ) -> None:
        """Make all attempts; each outcome is reported and kept.

        Args:
            attempts: those that have an order are done in it, behind the others.
            within: seconds from `begin` in which expectations have to come true.
            begin: of that time (`time.monotonic`); now where not given.
        """
        begin = time.monotonic() if begin is None else begin
        free = [a for a in attempts if not a.ordered]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for outcome in pool.map(lambda a: self._one(a, within, begin), free):
                self._keep(outcome)
        for attempt in attempts:
            if attempt.ordered:
                self._keep(self._one(attempt, within, begin))

    def repeat(self, attempts: Sequence[Attempt], until: float) -> None:
        """Repeat the attempts until that moment (`time.monotonic`)."""
        while time.monotonic() < until:
            self.run(attempts)

    def probe(self, number: int, step: ScenarioStep, at: Measured) -> None:
        """Check that a URL to be measured takes the path of its stage."""
        request = ScenarioRequest.model_validate({"url": at.url, "expect": "pass", "stage": at.stage})
        shown = self._shown(request, 0, 0) if self._world.loaded.scenario.show_urls else "measured"
        title = f"{number + 1}" + (f" {step.name}" if step.name else "")
        self._keep(self._one(Attempt(title, request, shown, "curl-1-4", "client"), None, time.monotonic()))

    def add(self, outcome: JudgedAttempt) -> None:
        """Keep an outcome that was found otherwise."""
        self._keep(("", outcome))

    def look_again(self) -> None:
        """Judge what was caught once more, now that the origin has written everything down."""
        for tag, place in self._tags:
            if tag:
                self.outcomes[place] = self._world.witness.look_again(tag, self.outcomes[place])

    def _keep(self, outcome: tuple[str, JudgedAttempt]) -> None:
        self._tags.append((outcome[0], len(self.outcomes)))
        self.outcomes.append(outcome[1])
        self._tell(outcome[1])

    def _one(self, attempt: Attempt, within: float | None, begin: float) -> tuple[str, JudgedAttempt]:
        while True:
            tag = f"urlward-lab/{next(self._numbers)}"
            seen, (result, reason) = self._judged(attempt, tag)
            now = time.monotonic() - begin
            if result.good or within is None or now > within:
                break
            time.sleep(_AGAIN)
        if result.good and within is not None and now > within:
            result, reason = Result.UNEXPECTED, f"true after {now:.1f} s, which is later than {within:g} s"
        request = attempt.request
        expected = request.expect or request.answer or ""
        outcome = JudgedAttempt(
            attempt.step, attempt.what, f"{attempt.client} on {attempt.source}", expected, result, reason,
            seen, now if within is not None else None, request.why,
        )  # fmt: skip
        return tag, outcome

    def _judged(self, attempt: Attempt, tag: str) -> tuple[Observations, tuple[Result, str]]:
        request, world = attempt.request, self._world
        if request.dns:
            return self._dns(attempt)
        family = 6 if attempt.client.endswith("6") else 4
        agent = world.agent(attempt.source) if attempt.client.startswith("python") else None
        if request.expect in ("cut", "open"):
            assert agent is not None
            return _stream(agent.ask("stream", keep=f"{request.keep}/{attempt.client}"), request.expect)
        source = world.address(attempt.source, family)
        got = send(attempt.client, request, tag, machine_of(attempt.source), agent, source)
        if is_stream(request):
            seen = Observations(got.status, served=int(not got.error), error=got.error, seconds=got.seconds)
        else:
            seen = self._look(request, tag, got)
        assert request.expect
        filter_table = world.loaded.scenario.filter
        return seen, judge(
            request.expect, request.stage, request.entry, seen, filter_table.monitor, request.asker
        )

    def _look(self, request: ScenarioRequest, tag: str, got: Got) -> Observations:
        secure = urlsplit(request.url or "").scheme == "https"
        table = self._world.loaded.scenario.filter
        return self._world.witness.look(tag, got, secure, table.status, monitor=table.monitor)

    def _dns(self, attempt: Attempt) -> tuple[Observations, tuple[Result, str]]:
        request = attempt.request
        server = request.server or self._world.resolver_of(int(attempt.client[-1]))
        start = time.monotonic()
        answer = self._world.agent(attempt.source).ask(
            "dns", name=request.dns, kind=request.type, server=server, tcp=request.tcp
        )
        kind = _answer_kind(answer)
        seen = Observations(
            stage="dns", error=answer.get("error", ""), seconds=time.monotonic() - start, detail=kind
        )
        if kind != request.answer:
            return seen, (Result.UNEXPECTED, f"answer: {kind} {answer.get('error', '')}".strip())
        if shown := set(request.without) & set(answer.get("parameters", ())):
            return seen, (Result.UNEXPECTED, f"the answer has {', '.join(sorted(shown))}")
        return seen, (Result.HELD, f"answer: {kind}")

    def _clients(self, step: ScenarioStep, request: ScenarioRequest) -> Iterator[str]:
        clients = request.clients or step.clients
        if request.dns or request.keep or request.cached or request.raw:
            # These are what the lab's own client is for.
            yield from [c for c in clients if c.startswith("python")] or ["python-4"]
        else:
            yield from clients

    def _can(self, attempt: Attempt) -> bool:
        """Whether this machine has the client that an attempt needs."""
        request, name = attempt.request, attempt.client
        why = missing(name, self._world.ipv6)
        of_ipv6 = attempt.source == CLIENT6.name or ":" in f"{request.server}{request.to or ''}"
        if not why and not self._world.ipv6 and (of_ipv6 or (request.dns and request.type == "AAAA")):
            name, why = "what is about IPv6", "this kernel has none"
        if why:
            self.left_out[name] = why
        return not why

    def _shown(self, request: ScenarioRequest, line: int, place: int) -> str:
        if self._world.loaded.scenario.show_urls:
            return request.url or f"{request.type} {request.dns}"
        return f"line {line}" if line else f"request {place + 1}"


def _answer_kind(answer: dict[str, Any]) -> str:
    if "rcode" not in answer:
        return "timeout" if answer.get("error") == "timeout" else "failure"
    if answer["rcode"] == "NOERROR":
        return "answer" if answer["records"] else "empty"
    return _RCODES.get(answer["rcode"], "failure")


def _stream(answer: dict[str, Any], expect: str) -> tuple[Observations, tuple[Result, str]]:
    if "error" in answer:
        return Observations(error=answer["error"]), (Result.UNEXPECTED, answer["error"])
    ended = answer["ended"]
    seen = replace(Observations(), error=ended, served=int(not ended))
    if expect == "open":
        good = not ended and answer["bytes"] > 0
        return seen, (Result.HELD, "still open") if good else (
            Result.WRONG,
            f"ended: {ended or 'no bytes'}",
        )
    return seen, (Result.CAUGHT, f"ended: {ended}") if ended else (Result.MISSED, "still open")
