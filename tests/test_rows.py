"""Tables that one test goes through."""

import asyncio
import logging
from pathlib import Path

import pytest

from rows import each_row


def told(test: object, *args: object, **fixtures: object) -> str:
    with pytest.raises(pytest.fail.Exception) as failed:
        test(*args, **fixtures)  # type: ignore[operator]
    return str(failed.value)


def test_every_row_that_fails_is_named_and_the_others_are_tried() -> None:
    tried = []

    @each_row("number, word", [(1, "one"), pytest.param(2, "two", id="pair"), (3, "three"), (4, "four")])
    def test(number: int, word: str) -> None:
        tried.append(number)
        if number == 4:
            pytest.fail("of itself")
        assert number % 2, word

    said = told(test)
    assert tried == [1, 2, 3, 4]
    assert said.startswith("2 of 4 rows:")
    assert "number=2, word='two'" in said
    assert "AssertionError: two" in said
    assert "number=4, word='four'" in said
    assert "of itself" in said
    assert "one" not in said


def test_tables_stand_on_one_another() -> None:
    tried = []

    @each_row("left", "ab")
    @each_row("right", "cd")
    def test(right: str, left: str) -> None:
        tried.append(left + right)
        assert left + right != "bc"

    said = told(test)
    assert tried == ["ac", "ad", "bc", "bd"]
    assert said.startswith("1 of 2 rows:\n-- left='b'")
    assert "right='c'" in said


def test_coroutines_are_awaited() -> None:
    @each_row("number", range(3))
    async def test(number: int) -> None:
        await asyncio.sleep(0)
        assert number != 1

    with pytest.raises(pytest.fail.Exception, match=r"^1 of 3 rows:\n-- number=1"):
        asyncio.run(test())


@each_row("number", range(2))
def test_each_row_has_its_own(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert not hasattr(test_each_row_has_its_own, "patched")
    monkeypatch.setattr(test_each_row_has_its_own, "patched", True, raising=False)
    assert (capsys.readouterr().out, caplog.text) == ("", "")
    print("text")
    logging.getLogger().warning("text")


def test_a_row_that_skips_hides_none_that_failed() -> None:
    @each_row("number", range(3))
    def test(number: int) -> None:
        assert number != 0
        pytest.skip("nor does it pass")

    assert told(test).startswith("3 of 3 rows:")


def test_a_table_without_rows_is_none() -> None:
    with pytest.raises(AssertionError, match="no rows"):
        each_row("number", [])


def test_each_row_has_a_name() -> None:
    with pytest.raises(AssertionError, match="a name for each row"):
        each_row("number", [1, 2], ids=["one"])


def test_a_test_that_hangs_ends() -> None:
    tried = []

    @each_row("number", range(2))
    def test(number: int) -> None:
        tried.append(number)
        pytest.fail("Timeout (>420.0s) from pytest-timeout.")

    assert "Timeout" in told(test)
    assert tried == [0]
