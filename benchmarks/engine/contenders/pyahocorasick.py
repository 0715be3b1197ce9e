"""pyahocorasick over plaintext: the same C library as urlward's, used as its manual shows."""

from collections.abc import Sequence

import ahocorasick
from benchmarks.engine.contenders.base import Contender, Steps
from benchmarks.engine.contenders.literals import Needs, confirmed, read_literals
from benchmarks.engine.material import Files, Request
from benchmarks.engine.translate import haystack

_STEP = 4096


class Engine(Contender):
    """One automaton of whole literals."""

    def __init__(self) -> None:
        self._automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        self._needs: Needs = {}

    def build(self, files: Files) -> Steps:
        """Add words in steps, then finish in one call."""
        literals, self._needs = read_literals(files)
        yield
        add = self._automaton.add_word
        for index, literal in enumerate(literals):
            add(literal, index)
            if not index % _STEP:
                yield
        yield
        self._automaton.make_automaton()
        yield

    def run(self, requests: Sequence[Request]) -> int:
        """No canonicalisation at all."""
        find, needs = self._automaton.iter, self._needs.get
        blocked = 0
        for host, target in requests:
            path, _, query = target.partition("?")
            for _, index in find(haystack(host, path)):
                if confirmed(needs(index), query):
                    blocked += 1
                    break
        return blocked
