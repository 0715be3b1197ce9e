"""Progress of a run on the terminal: a bar on a terminal, and a line for each unexpected outcome."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from urlward.lab.outcome import Outcome, Result


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

    def outcome(self, outcome: Outcome) -> None:
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

    def end(self, good: bool, outcomes: Sequence[Outcome], seconds: float, page: Path) -> None:
        """Show the final result."""
        counts = Counter(outcome.result for outcome in outcomes)
        told = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
        verdict = "[green]as expected[/]" if good else "[red]not as expected[/]"
        self._console.print(
            f"lab {escape(self._name)}: {verdict}: {told or 'measured'}; {seconds:.1f} s", soft_wrap=True
        )
        self._console.print(f"report: {page}", markup=False, soft_wrap=True)
