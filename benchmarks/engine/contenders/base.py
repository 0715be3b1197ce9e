"""What an engine must do to be compared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from benchmarks.engine.material import Files, Request

type Steps = Iterator[None]
"""Work that is done step by step; each step is a call that its own thread cannot interrupt."""

type Run = Callable[[Sequence[Request]], int]
"""Checks requests, gives the number of those blocked; the loop is the engine's own, so that no
wrapper's call is counted."""


class Contender(ABC):
    """An engine under comparison."""

    stores: ClassVar[bool] = False
    """Whether a built list can be kept and loaded."""

    @abstractmethod
    def build(self, files: Files) -> Steps:
        """From text to a list ready to check, or to store where `stores`."""

    def store(self) -> bytes:
        """The built list, for `load`."""
        raise NotImplementedError

    def load(self, data: bytes) -> Steps:
        """From the stored form to a list ready to check."""
        raise NotImplementedError

    def release(self) -> Steps:
        """Free the list."""
        yield

    @abstractmethod
    def run(self, requests: Sequence[Request]) -> int:
        """Check requests, give the number of those blocked."""

    @property
    def variants(self) -> Mapping[str, Run]:
        """Other ways to check, that are timed besides."""
        return MappingProxyType({})
