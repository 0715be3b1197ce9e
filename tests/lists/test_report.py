import pytest

from rows import each_row
from urlward.lists.formats import Skipped
from urlward.lists.source import (
    KEPT_ERRORS,
    BadLine,
    ErrorBudget,
    Report,
    SourceError,
    check_budget,
    check_entries,
    note,
)


class TestBudget:
    @each_row(
        ("text", "bad", "lines", "exceeded"),
        [
            ("0", 0, 10, False),
            ("0", 1, 10_000, True),
            ("25", 25, 30, False),
            ("25", 26, 1_000_000, True),
            ("1%", 1, 100, False),
            ("1%", 1, 99, True),
            ("1%", 0, 0, False),
            ("29%", 29, 100, False),
            ("29%", 30, 100, True),
            ("2.5%", 25, 1000, False),
            ("2.5%", 26, 1000, True),
            ("100%", 10, 10, False),
            ("0%", 1, 10, True),
        ],
    )
    def test_exceeded(self, text: str, bad: int, lines: int, exceeded: bool) -> None:
        budget = ErrorBudget.parse(text)
        assert budget.exceeded(bad, lines) is exceeded
        assert ErrorBudget.parse(str(budget)) == budget

    def test_one_percent_where_nothing_is_said(self) -> None:
        assert ErrorBudget() == ErrorBudget.parse("1%")
        assert str(ErrorBudget()) == "1%"

    @each_row(
        "text",
        [
            "",
            "%",
            "x",
            "-1",
            "-1%",
            "101%",
            "1.5",
            "nan%",
            "inf%",
            "1 %%",
            "1e3",
            "1_0",
            "+5",
            "1_0%",
            "+5%",
            " 5%",
            "\u0665%",
        ],
    )
    def test_neither_count_nor_share(self, text: str) -> None:
        with pytest.raises(ValueError, match="a count such as 25"):
            ErrorBudget.parse(text)

    def test_refusal_counts_and_names_the_first(self) -> None:
        first = BadLine("list.txt", 7, 3, "not a host")
        report = Report(lines=100, entries=98, bad=2, bad_lines=[first, BadLine("list.txt", 9, 1, "x")])
        check_budget(report, ErrorBudget.parse("2%"), "list.txt")
        with pytest.raises(SourceError) as raised:
            check_budget(report, ErrorBudget.parse("1%"), "list.txt")
        assert str(raised.value) == (
            "list.txt: 2 of 100 lines could not be read, allowed are 1%; first: list.txt:7:3: not a host"
        )
        assert raised.value.bad_lines == tuple(report.bad_lines)


class TestReport:
    def test_bad_lines_and_others_are_counted_apart_and_the_first_kept(self) -> None:
        report = Report()
        for number in range(KEPT_ERRORS + 50):
            note(report, "list.txt", Skipped(number, 1, "bad"))
            note(report, "list.txt", Skipped(number, 2, "other", unsupported=True))
        assert (report.lines, report.bad, report.unsupported) == (150, 150, 150)
        assert (len(report.bad_lines), len(report.unsupported_lines)) == (KEPT_ERRORS, KEPT_ERRORS)
        assert str(report.bad_lines[0]) == "list.txt:0:1: bad"
        assert str(report.unsupported_lines[0]) == "list.txt:0:2: other"

    def test_a_source_is_judged_by_what_it_adds(self) -> None:
        report = Report(entries=5, bad=1, bad_lines=[BadLine("a", 1, 1, "x")])
        before = report.so_far()
        with pytest.raises(SourceError) as raised:
            check_entries("b", report, before)
        assert str(raised.value) == "b: no entry in it"
        note(report, "b", Skipped(2, 3, "y"))
        note(report, "b", Skipped(4, 5, "z", unsupported=True))
        with pytest.raises(SourceError) as raised:
            check_entries("b", report, before)
        assert str(raised.value) == (
            "b: no entry in it, 1 lines could not be read, 1 lines are of a kind that cannot be taken; "
            "first: b:2:3: y; of another tool? see urlward help formats"
        )
        assert raised.value.bad_lines == (BadLine("b", 2, 3, "y"),)
        report.entries += 1
        check_entries("b", report, before)
