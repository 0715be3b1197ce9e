"""What the lists' tests share: keys, files of lists, and what a matcher blocks."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from urlward.engine.artifact import dump
from urlward.engine.compiler import Compiler
from urlward.engine.digest import Key, format_key
from urlward.engine.grammar import parse_line
from urlward.engine.matcher import Matcher
from urlward.engine.signing import SigningKey, sign_artifact

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))

HTML = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head>\n<body>secret.example</body></html>\n"
PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4

SENTINEL = "plaintext-sentinel"
"""A word of entries that must not come up in any message."""


def artifact(
    lines: Iterable[str],
    secret: bytes = SECRET,
    name: str = "compiled",
    *,
    serial: int = 1,
    created: int = 1_700_000_000,
    valid_from: int = 0,
    valid_until: int = 0,
    signer: SigningKey | None = None,
) -> bytes:
    """The bytes of a compiled list, signed where there is a signer."""
    key = Key(secret)
    compiler = Compiler(key)
    for line in lines:
        for entry in parse_line(line):
            compiler.add(entry)
    data = dump(
        compiler.finish(), key, name=name, serial=serial, created=created, valid_from=valid_from,
        valid_until=valid_until,
    )  # fmt: skip
    return sign_artifact(data, signer) if signer else data


def key_file(path: Path, secret: bytes = SECRET) -> Path:
    path.write_bytes(format_key(secret))
    path.chmod(0o600)
    return path


def blocks(matcher: Matcher, url: str) -> bool:
    return matcher.check_url(url).blocked


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def descriptors(begin: str = "") -> set[tuple[int, int, int]]:
    """What this process has open: number, and device and inode of what that leads to.

    Which they are, and not how many: those that an earlier test has left may be collected at any moment, and
    what is new has to be told from what has gone.

    Args:
        begin: those alone whose path in /proc begins so.
    """
    found = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        path = Path("/proc/self/fd", entry)
        with suppress(OSError):  # that of this very look is closed by now
            status = path.stat()
            if str(path.readlink()).startswith(begin):
                found.add((int(entry), status.st_dev, status.st_ino))
    return found
