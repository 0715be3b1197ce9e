import pytest

from rows import each_row
from urlward.lists.formats.format import FormatError, FormatOptions


@each_row(
    ("columns", "delimiter", "reason"),
    [
        ({"link": "a"}, ",", "'link' is not one of url, host"),
        ({"url": ""}, ",", "url= names no column"),
        ({}, "", "delimiter"),
        ({}, ";;", "delimiter"),
        ({}, '"', "delimiter"),
        ({}, "\n", "delimiter"),
        ({}, "ü", "delimiter"),
    ],
)
def test_options_that_make_no_sense(columns: dict[str, str], delimiter: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        FormatOptions(columns, delimiter)
