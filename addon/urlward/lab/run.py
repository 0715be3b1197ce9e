"""Run of a scenario: its steps in order, the requests of each sent by each client, four at a time, judged and
retried in time; and its progress on the terminal.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from urlward.lab import topology
from urlward.lab.actions import act
from urlward.lab.clients import Got, is_stream, missing, send
from urlward.lab.measure import Figures, measure
from urlward.lab.outcome import JudgedAttempt, Observations, Result, judge, machine_of
from urlward.lab.scenario import Loaded, Measured, ScenarioRequest, ScenarioStep
from urlward.lab.topology import CLIENT6
from urlward.lab.world import World

_AT_ONCE = 4
_AGAIN = 0.05
_MORE_WITHIN = 8.0
"""Seconds in which more of a download must come, where it is to go on."""
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
            drawn = topology.draw(
                loaded.scenario.list.make.entries, step.draw, loaded.scenario.list.make.seed
            )
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
            seconds = _MORE_WITHIN if request.expect == "open" else 0.0
            told = agent.ask("stream", keep=f"{request.keep}/{attempt.client}", seconds=seconds)
            return _stream(told, request.expect)
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
        good = not ended and answer["more"] > 0
        return seen, (
            (Result.HELD, "still open")
            if good
            else (Result.WRONG, f"ended: {ended}" if ended else "nothing comes any more")
        )
    return seen, (Result.CAUGHT, f"ended: {ended}") if ended else (Result.MISSED, "still open")


class Progress:
    """Progress display on standard error; use as a context."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = Console(stderr=True, highlight=False)
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar = Bar(
            TextColumn(f"lab {escape(name)}"), BarColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), console=self._console, transient=True, disable=not self._terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, steps: int) -> None:
        """Set the number of steps."""
        self._bar.update(self._task, total=steps)

    def say(self, what: str) -> None:
        """Show the current activity."""
        self._bar.update(self._task, description=f"starting: {escape(what)}")

    def step(self, number: int, name: str) -> None:
        """A step begins."""
        self._bar.update(self._task, completed=number, description=escape(f"{number + 1} {name}"))
        if not self._terminal:
            self._console.print(f"  {number + 1} {name}", markup=False)

    def outcome(self, outcome: JudgedAttempt) -> None:
        """An attempt has been judged."""
        if outcome.result.good:
            return
        self._console.print(
            f"  {outcome.result.value}: step {outcome.step}: {outcome.what} ({outcome.client}): "
            f"{outcome.reason}",
            markup=False,
            soft_wrap=True,
        )

    def end(self, good: bool, outcomes: Sequence[JudgedAttempt], seconds: float, page: Path) -> None:
        """Show the final result."""
        counts = Counter(outcome.result for outcome in outcomes)
        told = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
        verdict = "[green]as expected[/]" if good else "[red]not as expected[/]"
        self._console.print(
            f"lab {escape(self._name)}: {verdict}: {told or 'measured'}; {seconds:.1f} s", soft_wrap=True
        )
        self._console.print(f"report: {page}", markup=False, soft_wrap=True)


_BROKEN = ("Traceback", "Unhandled", "crashed")


@dataclass(slots=True)
class Ran:
    """Results of a run.

    Attributes:
        loaded: the scenario.
        begun: when.
        seconds: it took.
        outcomes: of all attempts and checks.
        figures: that were measured.
        left_out: clients that this machine does not have, and why.
        ipv6: whether the kernel has it.
    """

    loaded: Loaded
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    outcomes: list[JudgedAttempt] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    left_out: dict[str, str] = field(default_factory=dict)
    ipv6: bool = True

    @property
    def good(self) -> bool:
        """Whether all expectations hold."""
        return bool(self.outcomes or self.figures.latencies) and all(o.result.good for o in self.outcomes)


def run_scenario(
    loaded: Loaded, ipv6: bool, progress: Progress, folder: Path, seconds: float | None = None, *, last: bool
) -> Ran:
    """Run a scenario: start everything, do all steps, and end everything.

    Args:
        loaded: the scenario.
        ipv6: whether the kernel has it.
        progress: is told how it goes.
        folder: for all files.
        seconds: of each measurement and repetition, in place of the scenario's own.
        last: whether all that runs ends with this process anyway.

    Raises:
        UrlwardError: the lab itself has failed, which says nothing of the filter.
    """
    ran = Ran(loaded, ipv6=ipv6)
    begin = time.monotonic()
    progress.begin(len(loaded.scenario.steps))
    with World(loaded, ipv6, progress.say, folder, last=last) as world:
        attempts = AttemptSender(world, progress.outcome)
        for number, step in enumerate(loaded.scenario.steps):
            progress.step(number, step.name or step.action or "requests")
            _do(world, attempts, ran, number, step, seconds)
        attempts.look_again()
        ran.outcomes += attempts.outcomes
        ran.outcomes += _log(world)
        ran.left_out = attempts.left_out
        ran.seconds = time.monotonic() - begin
    return ran


def _do(
    world: World, attempts: AttemptSender, ran: Ran, number: int, step: ScenarioStep, seconds: float | None
) -> None:
    if step.action and (checked := act(world, number, step)):
        attempts.add(checked)
    begin = time.monotonic()
    if step.wait:
        time.sleep(step.wait)
    asked = attempts.of(number, step)
    if asked and step.seconds:
        _repeat(world, attempts, asked, step, seconds or step.seconds)
    elif asked:
        attempts.run(asked, step.within, begin)
    if step.measure:
        measure(world, step.measure, seconds, ran.figures, partial(attempts.probe, number, step))


def _repeat(
    world: World, attempts: AttemptSender, asked: list[Attempt], step: ScenarioStep, seconds: float
) -> None:
    end = time.monotonic() + seconds
    every = step.reload_every
    turn = 0
    while time.monotonic() < end:
        until = min(end, time.monotonic() + every) if every else end
        if every:
            turn += 1
            world.filter.write_list(f"turn{turn}.invalid id=TURN-{turn}\n")
        attempts.repeat(asked, until)
    if every:
        world.filter.write_list("")


def _log(world: World) -> list[JudgedAttempt]:
    """Check the filter's log, or those of all filters, for what it must not contain."""
    text = "".join(one.log.text() for one in world.filters)
    named = sum(secret in text for secret in world.filter.secrets())
    broken = sum(word in text for word in _BROKEN)
    checks = (
        (
            "names nothing listed",
            named,
            f"{named} of the list's hosts and pages stand in it",
            "it names none",
        ),
        ("no fault of its own", broken, "an error that nobody has caught stands in it", "it tells of none"),
    )
    return [
        JudgedAttempt(
            "the filter's log", "log", "the lab", expected,
            Result.UNEXPECTED if bad else Result.HELD, wrong if bad else right,
        )
        for expected, bad, wrong, right in checks
    ]  # fmt: skip
