import pytest

from rows import each_row
from urlward.units import counted, in_words, seconds, size


@each_row(
    ("text", "value"),
    [
        ("90s", 90),
        ("15m", 900),
        ("6h", 21_600),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1h30m", 5_400),
        ("0.5s", 0.5),
    ],
)
def test_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@each_row("text", ["", "6", "6 h", "h", "6H", "-6h", "6h later", "1e9s", "٣s"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="write a time such as 90s"):
        seconds(text)


@each_row(
    ("text", "value"),
    [("1000B", 1000), ("512MB", 512 << 20), ("64kB", 65_536), ("1 GiB", 1 << 30), ("2g", 2 << 30), ("7B", 7)],
)
def test_size(text: str, value: int) -> None:
    assert size(text) == value


@each_row("text", ["", "512", "MB", "-1", "1.5MB", "1TB", "1 M B"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write a size such as 512MB"):
        size(text)


def test_numbers_stay_as_they_are() -> None:
    assert seconds(7) == 7
    assert size(7.5) == 7.5


@each_row(
    ("length", "text"),
    [
        (0, "0s"),
        (59.6, "60s"),
        (60, "1m"),
        (90, "90s"),
        (720, "12m"),
        (3600, "1h"),
        (21_600, "6h"),
        (270_000, "3d"),
    ],
)
def test_in_words(length: float, text: str) -> None:
    assert in_words(length) == text


@each_row(
    ("number", "one", "text"),
    [
        (0, "entry", "0 entries"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "bad line", "3 bad lines"),
    ],
)
def test_counted(number: int, one: str, text: str) -> None:
    assert counted(number, one) == text
