import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from urlward.csv_rows import MOST_LINES, csv_rows

PLAIN = [[f"{n}", "x"] for n in range(3 * MOST_LINES)]


def test_rows_over_lines_count_by_their_last() -> None:
    assert [*csv_rows(["a,b\n", '1,"two\n', 'lines"\n', "2,x\n"])] == [
        (1, ["a", "b"]),
        (3, ["1", "two\nlines"]),
        (4, ["2", "x"]),
    ]


def test_a_quote_that_nobody_closes_spoils_its_line_alone() -> None:
    lines = [",".join(row) for row in PLAIN]
    for at in (0, 5, len(lines) - 1):
        spoilt = [*lines[:at], f'{at},"x', *lines[at + 1 :]]
        rows = [row for _, row in csv_rows(spoilt)]
        assert rows == [*PLAIN[:at], None, *PLAIN[at + 1 :]]


def test_two_quotes_of_which_the_second_closes_nothing() -> None:
    lines = ["0,x", '1,"x', "2,x", '3,"x', "4,x"]
    assert [row for _, row in csv_rows(lines)] == [["0", "x"], None, ["2", "x"], None, ["4", "x"]]


def test_a_row_may_be_kept_to_one_line() -> None:
    assert [*csv_rows(['1,"two', 'lines"', "2,x"], most_lines=1)] == [
        (1, None),
        (2, ['lines"']),
        (3, ["2", "x"]),
    ]


@given(rows=st.lists(st.lists(st.text(st.sampled_from('a,"\n')), min_size=1, max_size=3), max_size=5))
def test_what_is_csv_is_read_as_the_standard_library_does(rows: list[list[str]]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    lines = written.getvalue().splitlines(keepends=True)
    assert [row for _, row in csv_rows(lines, most_lines=len(lines) + 1)] == [*csv.reader(lines, strict=True)]


@given(lines=st.lists(st.text(st.sampled_from('a,"\r'))), most=st.integers(1, 4))
def test_each_line_is_of_one_row(lines: list[str], most: int) -> None:
    numbers = [number for number, _ in csv_rows(lines, most_lines=most)]
    assert numbers == sorted(set(numbers))
    assert (numbers[-1] if numbers else 0) == len(lines)
    gaps = [after - before for before, after in zip([0, *numbers], numbers, strict=False)]
    assert all(1 <= gap <= most for gap in gaps)
