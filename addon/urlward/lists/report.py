"""Parse report and error budget."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from urlward.engine.errors import UrlwardError
from urlward.lists.formats import Skipped

KEPT_ERRORS = 100
"""Bad lines that are kept for the report; the rest are only counted."""


NO_FOLDER = "not a regular file: only compile, import and feeds take a folder"
"""Why a folder is no list."""


class SourceError(UrlwardError):
    """A source that is refused whole.

    Attributes:
        bad_lines: the first of the lines that were too many, where that is why.
    """

    def __init__(self, message: str, bad_lines: "Sequence[BadLine]" = ()) -> None:
        super().__init__(message)
        self.bad_lines = tuple(bad_lines)


@dataclass(frozen=True, slots=True)
class BadLine:
    """Line that could not be read; never its text.

    Attributes:
        file: path of the source.
        line: 1-based number.
        column: 1-based position of the fault.
        reason: what is wrong, and what to write instead.
    """

    file: str
    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.reason}"


@dataclass(slots=True)
class Report:
    """Report of reading one or more sources.

    Attributes:
        lines: lines that are neither blank nor comment.
        entries: entries taken.
        bad: number of lines that could not be read.
        bad_lines: the first of them.
        unsupported: number of lines whose meaning the grammar cannot say; not among `lines`.
        unsupported_lines: the first of them.
        left_out: for each file of which nothing was taken on purpose, why; among `unsupported`.
        partly: number of lines of which the entries say less than the line; they are among `lines`.
        recognised: sources that nobody said a format of, to the one that they were recognised to be of, where
            that is not the grammar.
        likely: the format that the last source with bad lines may be of; empty for none.
        ends_with_newline: whether the last source's last line is whole.
    """

    lines: int = 0
    entries: int = 0
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    unsupported: int = 0
    unsupported_lines: list[BadLine] = field(default_factory=list)
    left_out: list[BadLine] = field(default_factory=list)
    partly: int = 0
    recognised: dict[str, str] = field(default_factory=dict)
    likely: str = ""
    ends_with_newline: bool = True

    def so_far(self) -> "Report":
        """Copy the report, to find out what one more source adds."""
        return replace(self, bad_lines=self.bad_lines[:], unsupported_lines=self.unsupported_lines[:])


@dataclass(frozen=True, slots=True)
class Budget:
    """Error budget of a source: a count of bad lines, or a share of its lines."""

    count: int | None = None
    share: float | None = 0.01

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Parse a budget such as ``25`` or ``2.5%``.

        Raises:
            ValueError: neither.
        """
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 <= share <= 1:
                    raise ValueError
                return cls(None, share)
            count = int(text)
            if count < 0:
                raise ValueError
        except ValueError:
            raise ValueError("a count such as 25, or a share such as 1%") from None
        return cls(count, None)

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{100 * (self.share or 0):g}%"

    def exceeded(self, bad: int, lines: int) -> bool:
        """Whether there are too many bad lines."""
        # Rounded, because 29 % of 100 lines is a little less than 29 in binary fractions.
        return bad > (self.count if self.count is not None else round((self.share or 0) * lines, 6))


def read_budget(text: str, where: str) -> Budget:
    """Read a budget from a setting.

    Args:
        text: as for `Budget.parse`.
        where: the flag or key.

    Raises:
        SourceError: not one.
    """
    try:
        return Budget.parse(text)
    except ValueError as e:
        raise SourceError(f"{where}: {text!r} is not {e}") from e


def check_entries(path: object, report: Report, before: Report) -> None:
    """Refuse a source that gave no entry.

    Args:
        path: of the source.
        report: with what it gave.
        before: without.

    Raises:
        SourceError: none.
    """
    if report.entries > before.entries:
        return
    bad, unsupported = report.bad - before.bad, report.unsupported - before.unsupported
    bad_lines = report.bad_lines[len(before.bad_lines) :]
    first = [*bad_lines, *report.unsupported_lines[len(before.unsupported_lines) :]]
    raise SourceError(
        f"{path}: no entry in it"
        + (f", {bad} lines could not be read" if bad else "")
        + (f", {unsupported} lines are of a kind that cannot be taken" if unsupported else "")
        + (f"; first: {first[0]}" if first else "")
        + _looks_like(report),
        bad_lines,
    )


def left_out(report: Report) -> str:
    """Describe the valid lines that were not taken, for people; empty for none."""
    parts = [f"{report.unsupported} of a kind that cannot be taken"] if report.unsupported else []
    if report.partly:
        parts.append(f"{report.partly} taken in part")
    return ", ".join(parts)


def check_budget(report: Report, budget: Budget, what: str) -> None:
    """Refuse sources with too many bad lines.

    Raises:
        SourceError: too many.
    """
    if budget.exceeded(report.bad, report.lines):
        raise SourceError(
            f"{what}: {report.bad} of {report.lines} lines could not be read, allowed are {budget}; "
            f"first: {report.bad_lines[0]}" + _looks_like(report),
            report.bad_lines,
        )


def _looks_like(report: Report) -> str:
    return f"; it looks like format {report.likely}" if report.likely else ""


def note(report: Report, name: str, skipped: Skipped) -> None:
    """Add a line that was not taken."""
    line = BadLine(name, skipped.line, skipped.column, skipped.reason)
    if skipped.unsupported:
        report.unsupported += 1
        if skipped.whole_file:
            report.left_out.append(line)
        if len(report.unsupported_lines) < KEPT_ERRORS:
            report.unsupported_lines.append(line)
    else:
        report.lines += 1
        add_bad(report, line)


def add_bad(report: Report, bad: BadLine) -> None:
    """Add a line that could not be read."""
    report.bad += 1
    if len(report.bad_lines) < KEPT_ERRORS:
        report.bad_lines.append(bad)
