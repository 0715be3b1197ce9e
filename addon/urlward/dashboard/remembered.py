"""An answer that is kept for a moment, so that people who look at a live page do not add up."""

import threading
from collections.abc import Callable


class Remembered[T]:
    """One answer. May be asked from several threads; one of them finds out, the others wait for it.

    Args:
        seconds: how long an answer is good.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[object, float, T] | None = None

    def get(self, of: object, now: float, find: Callable[[], T]) -> T:
        """The answer.

        Args:
            of: what it depends on; when that is another, so is the answer.
            now: seconds.
            find: finds it out; what it raises is raised, and not remembered.
        """
        with self._lock:
            if self._known is not None and self._known[0] == of and 0 <= now - self._known[1] < self._seconds:
                return self._known[2]
            found = find()
            self._known = of, now, found
            return found
