"""Run of a scenario: its steps in order, its progress on the terminal, and the report of the outcomes."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from urlward.lab.actions import act
from urlward.lab.attempts import Attempt, AttemptSender
from urlward.lab.measure import Figures, measure
from urlward.lab.outcome import JudgedAttempt, Result
from urlward.lab.scenario import Loaded, ScenarioStep
from urlward.lab.world import World


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
        self._good = 0

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
            self._good += 1
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
        LabError: the lab itself has failed, which says nothing of the filter.
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
    """Check the filter's log for what it must not contain."""
    text = world.filter.log.text()
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
