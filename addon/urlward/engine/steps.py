"""Work cut into steps, so that whoever drives it can do something else between two of them.

A list is loaded on an event loop that carries traffic. The work is a generator that yields where it
may be interrupted and returns its result; `Steps` makes it a loop that ends with that result.
"""

from collections.abc import Generator, Iterator


class Steps[T]:
    """Iterable over the steps of a generator, usable once.

    Attributes:
        result: what the generator returned; there once the iteration has ended.
    """

    __slots__ = ("_steps", "result")

    result: T

    def __init__(self, steps: Generator[None, None, T]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[None]:
        self.result = yield from self._steps


def exhaust[T](steps: Generator[None, None, T]) -> T:
    """Run all steps at once and give what they return."""
    run = Steps(steps)
    for _ in run:
        pass
    return run.result
