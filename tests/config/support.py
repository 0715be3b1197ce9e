"""What the tests of the configuration share."""

import re
from pathlib import Path

import pytest

from urlward.config import ConfigError, read_config


def said(error: BaseException, path: Path) -> str:
    """An error's key and text, without the file and line in front, which it has to have."""
    match = re.fullmatch(re.escape(str(path)) + r"(?::[0-9]+)?: ([^\n]*)", str(error))
    assert match is not None, str(error)
    return match[1]


def error(path: Path, text: str | bytes) -> str:
    """The same of the error that a configuration is, which is written into a file."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    return said(raised.value, path).replace("value error, ", "")
