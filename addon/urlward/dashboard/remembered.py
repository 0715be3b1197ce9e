"""Short-lived cache of one answer, so that many viewers of a live page cost no more than one."""

import threading
from collections.abc import Callable


class Remembered[T]:
    """Cache of one answer. Thread-safe; one thread finds out, the others wait for it.

    Args:
        seconds: how long an answer is good.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[object, float, T] | None = None

    def get(self, of: object, now: float, find: Callable[[], T]) -> T:
        """Return the answer, found anew where it is too old.

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
