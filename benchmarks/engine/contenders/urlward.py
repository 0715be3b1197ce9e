"""urlward itself, through its public interface."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.engine.contenders.base import Contender, Steps
from benchmarks.engine.material import Files, Request
from rich.console import Console
from rich.progress import Progress, TaskID

from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.errors import UrlError
from urlward.engine.loaded import LoadedList, loading
from urlward.engine.matcher import Matcher
from urlward.lists.build import compile_sources

_KEY = Key(bytes(range(KEY_SIZE)))


class Engine(Contender):
    """Compiles to an artifact, loads it in steps."""

    stores: ClassVar[bool] = True

    def __init__(self) -> None:
        self._artifact = b""
        self._list: LoadedList | None = None
        self._matcher: Matcher | None = None

    def build(self, files: Files) -> Steps:
        """Compile with a progress bar, as on a terminal."""
        with Path(os.devnull).open("w") as nowhere:
            console = Console(file=nowhere, force_terminal=True, width=100)
            with Progress(console=console, refresh_per_second=4) as progress:
                self._compile(files, progress)
        yield

    def _compile(self, files: Files, progress: Progress) -> None:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=1.0)
            progress.update(tasks[what], completed=share)

        self._artifact, _ = compile_sources([files.lines], _KEY, name="benchmark", now=1, progress=tell)

    def store(self) -> bytes:
        """The artifact."""
        return self._artifact

    def load(self, data: bytes) -> Steps:
        """As a reload does."""
        self._list = yield from loading(data, _KEY)
        self._matcher = Matcher([self._list])

    def release(self) -> Steps:
        """As a reload does with the list that it replaced."""
        self._matcher = None
        if self._list is not None:
            yield from self._list.release()
        self._list = None

    def run(self, requests: Sequence[Request]) -> int:
        """Host and target to verdict."""
        assert self._matcher is not None
        check = self._matcher.check
        blocked = 0
        for host, target in requests:
            try:
                if check(host, target).action == "block":
                    blocked += 1
            except UrlError:
                continue  # refused, which lists no page
        return blocked
