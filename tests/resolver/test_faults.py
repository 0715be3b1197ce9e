import pytest

from urlward.dns.judge import Faults
from urlward.gateway.table import NftError


def test_one_line_and_not_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    faults = Faults(lambda: now)
    for _ in range(3):
        faults.say(NftError("the kernel refused"), "an answer passes")
    faults.say(NftError("the kernel refused"), "an answer is withheld")
    assert caplog.messages == [
        "the kernel refused: an answer passes",
        "the kernel refused: an answer is withheld",
    ]
    now = 11.0
    faults.say(NftError("the kernel refused"), "an answer passes")
    assert caplog.messages[2:] == ["the kernel refused: an answer passes (and 2 times before)"]


def test_what_others_say_stays_untold(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    try:
        raise ValueError("blocked.example")
    except ValueError as e:
        faults.say(e, "an answer passes")
    assert caplog.messages[0].startswith("ValueError at test_faults.py:")
    assert "blocked.example" not in caplog.text


def test_bounded(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for number in range(1000):
        faults.say(NftError(str(number)), "x")
    assert len(faults._said) <= 100
