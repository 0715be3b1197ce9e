import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import run_command
from records.recorder_support import answering
from urlward import config
from urlward.commands.status import add_status_commands
from urlward.engine.errors import UrlwardError
from urlward.records.asking import reply
from urlward.records.exposition import Exposition
from urlward.records.metrics import ListFacts, Metrics
from urlward.records.status import status_of


@pytest.fixture
def urlward(tmp_path: Path) -> Callable[..., int]:
    file = tmp_path / "urlward.toml"
    file.write_text('state = "."\n[[feed]]\nname = "feed"\npath = "none"\n')
    return partial(run_command, add_status_commands, "status", "--config", file)


def test_no_recorder(urlward: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward() == 1
    out, err = capsys.readouterr()
    assert "no recorder runs" in err
    assert out.splitlines()[0].split()[:2] == ["feed", "entries"]
    assert urlward("--json") == 1
    assert json.loads(capsys.readouterr().out)["running"] is False


def test_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SYSTEM", tmp_path / "none.toml")
    assert run_command(add_status_commands, "status", "--state", tmp_path) == 1
    assert "give the filter's configuration with --config" in capsys.readouterr().err


def test_a_recorder(urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposition = Exposition((), tmp_path, steady=lambda: 0.0)
    metrics = Metrics(time.time())
    metrics.lists([ListFacts("one", 3, 10)])
    exposition.take("a", metrics.snapshot())
    with answering(tmp_path, lambda asked: reply(asked, {"status": lambda: status_of(exposition)})):
        assert urlward() == 0
        assert "1 of 1 report" in capsys.readouterr().out
        assert urlward("--json") == 0
        assert json.loads(capsys.readouterr().out)["lists"][0]["name"] == "one"
        exposition.expected = 2
        assert urlward() == 1
        assert "not healthy: workers: 1 of 2 report" in capsys.readouterr().out


def test_a_start_is_waited_for(
    urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exposition = Exposition((), tmp_path, steady=lambda: 0.0)
    metrics = Metrics(time.time())
    metrics.lists([ListFacts("one", 3, 10)])
    asked: list[str] = []

    def status() -> dict[str, object]:
        asked.append("status")
        if len(asked) == 2:
            raise UrlwardError("cut short, by one that ends")
        if len(asked) == 3:
            exposition.take("a", metrics.snapshot())
        return status_of(exposition)

    with answering(tmp_path, lambda question: reply(question, {"status": status})):
        assert urlward() == 1
        asked.clear()
        assert urlward("--wait", "10m") == 0
    assert len(asked) == 3
    assert capsys.readouterr().out.count("1 of 1 report") == 1
    with pytest.raises(SystemExit):
        urlward("--wait", "soon")


def test_a_recorder_of_an_earlier_release(
    urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As between an upgrade and the reload behind it."""
    exposition = Exposition((), tmp_path, steady=lambda: 0.0)
    metrics = Metrics(time.time())
    metrics.lists([ListFacts("one", 3, 10)])
    exposition.take("a", metrics.snapshot())
    now = status_of(exposition)
    came_since = ("publish", "fleet", "hook", "alarms")
    before = {key: value for key, value in now.items() if key not in came_since}
    said = []
    for status in (now, before):
        with answering(tmp_path, lambda asked, status=status: reply(asked, {"status": lambda: status})):
            assert urlward() == 0
            said.append(capsys.readouterr().out)
    assert said[0] == said[1]
