import logging
from unittest.mock import create_autospec

import pytest

from proxy.driver import NOW, make_context
from rows import each_row
from urlward.engine.verdict import Verdict
from urlward.proxy.guard import DecisionLog, timestamp
from urlward.records.metrics import Metrics
from urlward.records.privacy import name_in_log
from urlward.records.worker import Hit, Recording

CLIENT = make_context().client
VERDICT = Verdict("block", "page", "E-1", "phishing", "feed")
HIT = Hit(VERDICT, "192.0.2.1", 1234, "http", "match", "AAAA-BBBB-CCCC")


def log() -> DecisionLog:
    return DecisionLog(Metrics(NOW), lambda: NOW)


@each_row(
    ("would", "cut", "word"),
    [
        (False, False, "block"),
        (False, True, "cut"),
        (True, False, "would-block"),
        (True, True, "would-cut"),
    ],
)
def test_a_block(would: bool, cut: bool, word: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log().hit(HIT._replace(cut=cut, would=would))
    assert caplog.messages == [
        f"2027-01-15T08:00:00.000Z {word} client=192.0.2.1:1234 list=feed entry=E-1 category=phishing "
        "reference=AAAA-BBBB-CCCC"
    ]


@pytest.mark.parametrize("logs", [False, True])
def test_what_is_recorded_is_in_the_log_only_where_that_is_asked_for(
    logs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recording = create_autospec(Recording, instance=True, logs=logs)
    recording.named = name_in_log
    DecisionLog(Metrics(NOW), lambda: NOW, recording).hit(HIT)
    recording.hit.assert_called_once_with(HIT)
    assert len(caplog.messages) == logs


def test_a_block_without_a_category_of_a_client_with_an_ipv6_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    verdict = Verdict("block", list="feed", entry="E-2")
    log().hit(Hit(verdict, "2001:db8::1", 1234, "http", "match", "R", group="staff"))
    assert " client=[2001:db8::1]:1234 list=feed entry=E-2 category=- reference=R group=staff" in caplog.text


def test_a_failure_tells_where_and_not_what(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("http://blocked.example/secret")

    written = log()
    for count in (1, 2):
        try:
            fail()
        except RuntimeError as e:
            written.failure(e, CLIENT, "cut")
        assert written.metrics.snapshot()["errors"]["decision"] == count
    assert caplog.messages[1].endswith(" count=2 request=cut")
    assert " error client=192.0.2.1:1234 error=RuntimeError at=test_decision_log.py:" in caplog.messages[0]
    assert "secret" not in caplog.text


def test_a_broken_handler_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(logging.getLogger("urlward"), "log", fail)
    log().hit(HIT)


def test_timestamp() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
