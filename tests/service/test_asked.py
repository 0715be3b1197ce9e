import logging
from pathlib import Path

import pytest

from urlward.config import ConfigError
from urlward.service.process import LineHandler, read_asked


def test_a_message_is_one_line_and_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    for level, text in ((logging.INFO, "one\ntwo"), (logging.ERROR, "three %d")):
        LineHandler().emit(logging.LogRecord("x", level, "", 0, text, (4,) if "%" in text else (), None))
    assert capsys.readouterr() == ("one\n", "three 4\n")


def test_what_is_asked_goes_before_what_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.write_text('state = "kept"\nkey = "key"\n')
    config, state = read_asked({"config": str(file)})
    assert (config.key, state) == (str(tmp_path / "key"), tmp_path / "kept")
    config, state = read_asked({"config": str(file), "key": "/other", "state": "/elsewhere", "monitor": True})
    assert config.monitor
    assert (config.key, state) == ("/other", Path("/elsewhere"))
    file.write_text("state = 5\n")
    with pytest.raises(ConfigError):
        read_asked({"config": str(file)})
