from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rows import each_row
from urlward.lab import run as module
from urlward.lab.outcome import JudgedAttempt, Result
from urlward.lab.run import AttemptSender
from urlward.lab.scenario import load_scenario

SCENARIO = """\
description = "x"
show_urls = false
[list]
make = { entries = 100 }
[[steps]]
name = "first"
clients = ["curl-1-4", "curl-1-6", "chromium"]
requests = [
  { url = "http://a.example/", expect = "pass" },
  { url = "http://b.example/", expect = "pass", keep = "k", source = "neighbour" },
  { dns = "a.example", answer = "nxdomain", without = ["ech"] },
  { dns = "a.example", type = "AAAA", answer = "answer" },
]
[[steps]]
draw = 3
clients = ["curl-1-4", "curl-2-4"]
"""


class Agent:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "missing", lambda client, _: "no browser" if client == "chromium" else "")
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    return SimpleNamespace(
        loaded=load_scenario(str(path)), ipv6=True, resolver_of=lambda _family: "198.51.100.53", agent=None
    )


def of(world: Any, number: int = 0) -> tuple[AttemptSender, list[tuple[str, str, str]]]:
    made = AttemptSender(world, lambda _outcome: None)
    found = made.of(number, world.loaded.scenario.steps[number])
    return made, [(attempt.what, attempt.client, attempt.source) for attempt in found]


def test_each_request_by_each_client(world: Any) -> None:
    made, found = of(world)
    assert found == [
        ("line 9", "curl-1-4", "client"),
        ("line 9", "curl-1-6", "client"),
        ("line 10", "python-4", "neighbour"),
        ("line 11", "python-4", "client"),
        ("line 12", "python-4", "client"),
    ]
    assert made.left_out == {"chromium": "no browser"}


def test_without_ipv6(world: Any) -> None:
    world.ipv6 = False
    made, found = of(world)
    assert ("line 12", "python-4", "client") not in found
    assert made.left_out["what is about IPv6"]


def test_drawn_urls_are_shared_out(world: Any) -> None:
    _, found = of(world, 1)
    assert [client for _, client, _ in found] == ["curl-1-4", "curl-2-4", "curl-1-4"] * 2
    assert all(what.startswith("drawn ") for what, _, _ in found)


def judged(world: Any, place: int, within: float | None, *answers: dict[str, Any]) -> JudgedAttempt:
    agent = Agent(*answers)
    world.agent = lambda _source: agent
    made = AttemptSender(world, lambda _outcome: None)
    attempt = [a for a in made.of(0, world.loaded.scenario.steps[0]) if a.request.dns][place]
    made.run([attempt], within)
    return made.outcomes[0]


NOBODY = {"rcode": "NXDOMAIN", "records": 0, "parameters": []}
THERE = {"rcode": "NOERROR", "records": 1, "parameters": ["ech"]}


def test_answers_are_judged(world: Any) -> None:
    assert judged(world, 0, None, NOBODY).result is Result.HELD
    assert judged(world, 0, None, THERE).reason == "answer: answer"
    assert judged(world, 0, None, {**NOBODY, "parameters": ["ech"]}).reason == "the answer has ech"
    assert judged(world, 0, None, {"error": "timeout"}).reason == "answer: timeout timeout"
    assert judged(world, 0, None, {"rcode": "SERVFAIL"}).reason == "answer: failure"


def test_it_is_asked_again_while_there_is_time(world: Any) -> None:
    outcome = judged(world, 0, 60.0, THERE, THERE, NOBODY)
    assert outcome.result is Result.HELD
    assert outcome.after is not None
    assert 0.1 <= outcome.after < 60
    assert judged(world, 0, 0.2, THERE).result is Result.UNEXPECTED


@each_row(
    ("ended", "more", "expect", "result"),
    [
        ("", 10, "open", Result.HELD),
        ("", 0, "open", Result.WRONG),
        ("reset", 10, "open", Result.WRONG),
        ("reset", 0, "cut", Result.CAUGHT),
        ("", 10, "cut", Result.MISSED),
    ],
)
def test_a_download_goes_on_while_more_of_it_comes(
    ended: str, more: int, expect: str, result: Result
) -> None:
    assert module._stream({"ended": ended, "bytes": 99, "more": more}, expect)[1][0] is result
