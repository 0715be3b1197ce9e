"""ZIP archives that contain one list.

An archive's directory is at its end, so the archive is kept in memory first, as it came.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from io import FileIO
from typing import Literal

from urlward.lists import memfd

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""What an archive begins with; the second one is empty."""

_MOST_AT_ONCE = 1 << 20
"""Bytes. zipfile reads a directory as a whole, and makes some hundred bytes of each of its entries."""

_READ_HERE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class ZipError(Exception):
    """An archive that one list cannot be taken from."""

    def __init__(self, message: str, reason: Literal["truncated", "corrupt", "unsupported"]) -> None:
        super().__init__(message)
        self.reason: Literal["truncated", "corrupt", "unsupported"] = reason


class _File(FileIO):
    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _MOST_AT_ONCE:
            raise zipfile.BadZipFile
        return super().read(wanted) or b""


def only_member(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Read an archive's one file, folders apart, in chunks of a size.

    Raises:
        ZipError: no archive, cut short or damaged, more files than one, or one that is encrypted or
            compressed with something else than deflate.
    """
    with _File(memfd.new(), "rb+") as file:
        for chunk in data:
            while chunk:
                chunk = chunk[file.write(chunk) :]
        try:
            yield from _content(file, size)
        except EOFError:
            raise ZipError("the ZIP archive ends too early", "truncated") from None
        except NotImplementedError:
            raise ZipError("a ZIP archive of a kind that is not read here", "unsupported") from None
        except (zipfile.BadZipFile, zlib.error, UnicodeError, ValueError, OSError):
            raise ZipError("the ZIP archive is damaged", "corrupt") from None


def _content(file: _File, size: int) -> Iterator[bytes]:
    if not zipfile.is_zipfile(file):
        raise ZipError("the ZIP archive ends too early: its directory is not there", "truncated")
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise ZipError(f"a ZIP archive of {len(members)} files, where one is expected", "unsupported")
        member = members[0]
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _READ_HERE:
            raise ZipError("a ZIP archive that is encrypted, or not compressed with deflate", "unsupported")
        with archive.open(member) as content:
            while chunk := content.read(size):
                yield chunk
