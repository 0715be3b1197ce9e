"""hyperscan with its literal compiler, which takes many more patterns than the regular one."""

from collections.abc import Sequence
from typing import Any

import hyperscan
from benchmarks.engine.contenders.base import Contender, Steps
from benchmarks.engine.contenders.literals import Needs, confirmed, read_literals
from benchmarks.engine.material import Files, Request
from benchmarks.engine.translate import haystack


class Engine(Contender):
    """A block-mode database of literals, each reported once."""

    def __init__(self) -> None:
        self._database: Any = None
        self._needs: Needs = {}

    def build(self, files: Files) -> Steps:
        """One call."""
        literals, self._needs = read_literals(files)
        yield
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[literal.encode() for literal in literals],
            ids=list(range(len(literals))),
            elements=len(literals),
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(literals),
            literal=True,
        )
        yield

    def run(self, requests: Sequence[Request]) -> int:
        """The callback ends the scan at the first confirmed match."""
        scan, needs = self._database.scan, self._needs.get
        blocked = 0
        query = ""
        found = False

        def on_match(index: int, _start: int, _end: int, _flags: int, _context: object) -> bool:
            nonlocal found
            found = confirmed(needs(index), query)
            return found

        for host, target in requests:
            path, _, query = target.partition("?")
            found = False
            # With suppress() it would cost more than the scan does at small sizes.
            try:  # noqa: SIM105
                scan(haystack(host, path).encode(), match_event_handler=on_match)
            except hyperscan.ScanTerminated:
                pass
            if found:
                blocked += 1
        return blocked
