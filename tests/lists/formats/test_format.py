import pytest

from urlward.lists.formats.format import FormatError, FormatOptions


@pytest.mark.parametrize(
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
