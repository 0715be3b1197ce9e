from pathlib import Path

import pytest

from gateway.dns_support import keep
from rows import each_row
from urlward.dns.judge import BELOW, NOTHING, WHOLE, Faults, Judge
from urlward.engine.matcher import Matcher

TEXT = """\
blocked.example
http://paged.example/x.html
http://both.example/x.html
over.example expires=2020-01-01
"""


def test_what_is_found(tmp_path: Path) -> None:
    keeper = keep(tmp_path, TEXT)
    judge = Judge(lambda: keeper.matcher, Faults())
    assert judge.find(("plain.example", "")) == NOTHING
    assert judge.find(("www.blocked.example",)) == WHOLE
    assert judge.find(("plain.example", "paged.example")) == BELOW
    assert judge.find(("paged.example", "blocked.example")) == BELOW | WHOLE
    assert judge.find(("over.example",)) == NOTHING


@each_row("host", ["a|b.example", "xn--.example", "a^.example", "1.2.3.4.5", "0x.0x", "x" * 200])
def test_names_that_are_no_hosts(tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture) -> None:
    keeper = keep(tmp_path, TEXT)
    judge = Judge(lambda: keeper.matcher, Faults())
    assert judge.find((host, "paged.example")) == BELOW
    assert not caplog.messages


@each_row("host", ["xn--a.blocked.example", "a.xn--a.b.blocked.example", "a|b.blocked.example"])
def test_they_are_below_domains_all_the_same(tmp_path: Path, host: str) -> None:
    keeper = keep(tmp_path, TEXT)
    assert Judge(lambda: keeper.matcher, Faults()).find((host,)) == WHOLE


def test_a_fault_lists_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def matcher() -> Matcher:
        raise RuntimeError("plain.example")

    assert Judge(matcher, Faults()).find(("plain.example",)) == NOTHING
    assert "RuntimeError" in caplog.text
    assert "plain.example" not in caplog.text
