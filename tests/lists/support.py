"""What the lists' tests share: keys, files of lists, and what a matcher blocks."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from urlward.engine.artifact import dump
from urlward.engine.compiler import Compiler
from urlward.engine.digest import Key, format_key
from urlward.engine.grammar import parse_line
from urlward.engine.matcher import Matcher

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))

HTML = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head>\n<body>secret.example</body></html>\n"
PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4

SENTINEL = "plaintext-sentinel"
"""A word of entries that must not come up in any message."""


def artifact(
    lines: Iterable[str], secret: bytes = SECRET, name: str = "compiled", valid_until: int = 0
) -> bytes:
    """The bytes of a compiled list."""
    key = Key(secret)
    compiler = Compiler(key)
    for line in lines:
        for entry in parse_line(line):
            compiler.add(entry)
    return dump(compiler.finish(), key, name=name, serial=1, created=1_700_000_000, valid_until=valid_until)


def key_file(path: Path, secret: bytes = SECRET) -> Path:
    path.write_bytes(format_key(secret))
    path.chmod(0o600)
    return path


def blocks(matcher: Matcher, url: str) -> bool:
    return matcher.check_url(url).blocked


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def settled_fds() -> int:
    """Open file descriptors, when their number has been the same for a while."""
    same, number = 0, -1
    while same < 5:
        now = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        same, number = (same + 1, number) if now == number else (0, now)
        time.sleep(0.01)
    return number
