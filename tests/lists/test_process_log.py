import logging

import pytest

from urlward.lists.process_log import Lines


def test_a_message_is_one_line_and_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    for level, text in ((logging.INFO, "one\ntwo"), (logging.ERROR, "three %d")):
        Lines().emit(logging.LogRecord("x", level, "", 0, text, (4,) if "%" in text else (), None))
    assert capsys.readouterr() == ("one\n", "three 4\n")
