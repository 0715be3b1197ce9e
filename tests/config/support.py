"""What the tests of the configuration share."""

import re
from pathlib import Path


def said(error: BaseException, path: Path) -> str:
    """An error's key and text, without the file and line in front, which it has to have."""
    match = re.fullmatch(re.escape(str(path)) + r"(?::[0-9]+)?: ([^\n]*)", str(error))
    assert match is not None, str(error)
    return match[1]
