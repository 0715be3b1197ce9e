from pathlib import Path

import pytest

from urlward.lab.outcome import JudgedAttempt, Result
from urlward.lab.run import Progress


def test_without_a_terminal_it_says_steps_what_is_wrong_and_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = JudgedAttempt("1 a", "x", "c", "pass", Result.PASSED, "served")
    bad = JudgedAttempt("1 a", "[y]", "c", "block", Result.MISSED, "served by the origin")
    with Progress("[lab]") as progress:
        progress.begin(1)
        progress.say("the filter")
        progress.step(0, "a [step]")
        progress.outcome(good)
        progress.outcome(bad)
    progress.end(False, [good, bad], 1.25, Path("/somewhere/report.html"))
    assert capsys.readouterr().err.splitlines() == [
        "  1 a [step]",
        "  missed: step 1 a: [y] (c): served by the origin",
        "lab [lab]: not as expected: 1 passed, 1 missed; 1.2 s",
        "report: /somewhere/report.html",
    ]
