"""Errors that urlward raises on purpose.

One base, so that the command line can turn any of them into one clear line; each child carries the
data that its caller needs and nothing that could name an entry.
"""

NO_THREAD = "can't start new thread"
"""What Python says, by a `RuntimeError`, where the system has no thread (pids.max, RLIMIT_NPROC, memory)."""


class UrlwardError(Exception):
    """Base of all errors that are somebody's input, not a bug."""


def is_bug(error: BaseException) -> bool:
    """Whether an error is a bug, and neither somebody's input nor the system's want of something."""
    error = _first(error)
    no_thread = isinstance(error, RuntimeError) and str(error) == NO_THREAD
    return not (no_thread or isinstance(error, UrlwardError | OSError | MemoryError))


def fault_text(error: BaseException) -> str:
    """Text of an error for a log line or an answer; that of a bug could name an entry, and is left out."""
    error = _first(error)
    name = type(error).__name__
    if is_bug(error):
        return f"a bug: {name}"
    if isinstance(error, MemoryError):
        return name
    return (error.strerror or name) if isinstance(error, OSError) else str(error)


def fault_report(error: BaseException) -> str:
    """As `fault_text`, with the place of a bug, for whoever is asked to report it."""
    text = fault_text(error)
    return f"{text} at {place_of(error)}; please report it" if is_bug(error) else text


def place_of(error: BaseException) -> str:
    """File and line in which an error was raised, such as ``matcher.py:12``; nothing of what it was about."""
    if (where := _first(error).__traceback__) is None:
        return "?"
    while where.tb_next is not None:
        where = where.tb_next
    return f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}"


def _first(error: BaseException) -> BaseException:
    """The error, or the first of a task group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class UrlError(UrlwardError):
    """A URL, host or port that no canonical form exists for."""


class EntryError(UrlwardError):
    """A list line that is not an entry.

    Attributes:
        column: 1-based position of the fault in the line.
        reason: what is wrong, without the entry's text.
        hint: what to write instead, or an empty string.
    """

    def __init__(self, column: int, reason: str, hint: str = "") -> None:
        super().__init__(f"column {column}: {reason}" + (f" ({hint})" if hint else ""))
        self.column = column
        self.reason = reason
        self.hint = hint


class KeyFileError(UrlwardError):
    """A key that is missing, unreadable or of the wrong size."""


class ArtifactError(UrlwardError):
    """An artifact, or a part of one, that is damaged or unfit.

    Attributes:
        reason: in a word or two, for metrics: ``damaged``, ``truncated``, ``newer-version``, ``key``,
            ``unsigned``, ``signature``, or one of those of `urlward.lists.trust`.
    """

    def __init__(self, message: str, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason


class RotationError(UrlwardError):
    """A statement that is no valid rotation of a signing key, or contradicts another."""
