import sys
from pathlib import Path

import pytest

from conftest import wait_for
from urlward.engine.errors import UrlwardError
from urlward.lab import services
from urlward.lab.services import AgentLink, LabService


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs run on this machine itself."""
    monkeypatch.setattr(services, "inside", lambda _machine, command: list(command))


def test_a_service_that_ends_is_said(tmp_path: Path) -> None:
    service = LabService("it", "m", ["sh", "-c", "echo first; echo last words >&2; exit 3"], tmp_path / "log")
    service.process.wait()
    with pytest.raises(UrlwardError, match="it ended with 3: last words"):
        service.check()
    assert service.stop() == 3


def test_a_service_that_does_not_listen_is_made_to_end(tmp_path: Path) -> None:
    service = LabService("it", "m", ["sh", "-c", "trap '' TERM; echo up; exec sleep 60"], tmp_path / "log")
    wait_for(lambda: service.last_words() == "up", "it to run")
    service.check()
    assert service.stop(patience=0.2) == -9


def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="it: No such file"):
        LabService("it", "m", ["/nowhere/program"], tmp_path / "log")


def test_an_agent_answers_and_ends(tmp_path: Path) -> None:
    link = AgentLink("m", tmp_path / "log")
    assert link.ask("hello") == {}
    assert link.ask("stream", keep="x") == {"error": "was not begun"}
    with pytest.raises(UrlwardError, match="client on m: AttributeError"):
        link.ask("nonsense")
    link.close()
    wait_for(lambda: _has_ended(link), "the end to be seen")


def test_an_agent_that_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    link = AgentLink("m", tmp_path / "log")
    wait_for(lambda: _has_ended(link), "the end to be seen")


def _has_ended(link: AgentLink) -> bool:
    try:
        link.ask("hello", patience=5)
    except UrlwardError as e:
        return "has ended" in str(e)
    return False
