"""ahocorasick-rs over plaintext, with its own choice of automaton."""

from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick
from benchmarks.engine.contenders.base import Contender, Steps
from benchmarks.engine.contenders.literals import Needs, confirmed, read_literals
from benchmarks.engine.material import Files, Request
from benchmarks.engine.translate import haystack


class Engine(Contender):
    """One automaton of whole literals, whose texts are not kept."""

    def __init__(self) -> None:
        self._automaton: AhoCorasick | None = None
        self._needs: Needs = {}

    def build(self, files: Files) -> Steps:
        """One call."""
        literals, self._needs = read_literals(files)
        yield
        self._automaton = AhoCorasick(literals, store_patterns=False)
        yield

    def run(self, requests: Sequence[Request]) -> int:
        """Overlapping matches, since a literal to be confirmed may hide another."""
        assert self._automaton is not None
        find, needs = self._automaton.find_matches_as_indexes, self._needs.get
        blocked = 0
        for host, target in requests:
            path, _, query = target.partition("?")
            for index, _, _ in find(haystack(host, path), True):
                if confirmed(needs(index), query):
                    blocked += 1
                    break
        return blocked
