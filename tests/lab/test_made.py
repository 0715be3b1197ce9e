import time
from pathlib import Path

from urlward.engine.digest import Key
from urlward.feeds.keeper import Keeper
from urlward.lab.topology import draw, lines
from urlward.lists.source import ErrorBudget


def test_what_is_drawn_is_listed_or_not(tmp_path: Path) -> None:
    path = tmp_path / "made.txt"
    path.write_text("".join(lines(1000)))
    keeper = Keeper([path], Key(bytes(32)), ErrorBudget.parse("0"))
    keeper.load()
    drawn = draw(1000, 200)
    assert len(drawn.listed) == len(drawn.unlisted) == 200
    now = time.time()
    assert {keeper.matcher.check_url(url.encode(), now).action for url in drawn.listed} == {"block"}
    assert {keeper.matcher.check_url(url.encode(), now).action for url in drawn.unlisted} == {"pass"}
    kinds = {keeper.matcher.check_url(url.encode(), now).kind for url in drawn.listed}
    assert len(kinds) == 4


def test_the_same_seed_gives_the_same() -> None:
    assert draw(1000, 50, 7) == draw(1000, 50, 7)
    assert draw(1000, 50, 7) != draw(1000, 50, 8)
    assert list(lines(100, 7)) == list(lines(100, 7))
    assert len(set(lines(1000, 7))) == 1000
