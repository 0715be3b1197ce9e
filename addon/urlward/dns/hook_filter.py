"""Filter for a hook in a resolver: which names may be listed, so that it hands over few answers beside those.

It is made of the sieves of the lists in force (`urlward.engine.sieve`), which no name can be read from, but
which tell whoever has one whether a guess may be listed. So the file is sealed with a key of its own, which
stands beside it and opens nothing else; a hook unseals it into memory.

======  =====  =========================================================================
offset  bytes  (numbers are little-endian)
======  =====  =========================================================================
0       8      ``URLWHOOK``
8       4      version, 1
12      4      bytes of the content
16      4      CRC-32 of the content
20      12     nonce, another each time
32      ...    the content, sealed by ChaCha20 (RFC 8439 section 2.4, counter from 0)
======  =====  =========================================================================

The content is six numbers of 4 bytes: microseconds to wait (`settle`), 1 where the hook fails closed, bytes
of the suffixes, names, 1 where any name may be listed, sieves; then the suffixes, between spaces; the names,
4 bytes each; and for each sieve 4 bytes of its size and its bits.

A name may be listed where in any sieve one of its domains, itself among them and suffixes left out, has both
its bits, or where one of its labels is among the names (CRC-32).
"""

import os
import secrets
import struct
from array import array
from binascii import unhexlify
from collections.abc import Collection, Generator, Iterable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from urlward.engine.digest import KEY_SIZE
from urlward.engine.hosts import public_suffixes
from urlward.engine.matcher import Matcher
from urlward.engine.sieve import Sieve, may_list_domain, read_sieve, write_sieve
from urlward.lists.build import written_atomically

MAGIC, VERSION = b"URLWHOOK", 1

FILTER, KEY, SOCKET = "filter", "key", "socket"
"""Files in a hook's folder."""

_HEADER = struct.Struct("<8sIII12s")
_NUMBERS = struct.Struct("<6I")
_SIZE = struct.Struct("<I")
_MODE = 0o640
_LOOKED_AT = 1_024


def content(
    matcher: Matcher, own: Iterable[str], settle: float, *, closed: bool
) -> Generator[None, None, bytes]:
    """The content of a filter, in short steps.

    Args:
        matcher: in force.
        own: names that the filter answers itself.
        settle: seconds that the hook waits.
        closed: whether the hook fails closed.
    """
    sieves = [_of_names(own), *(li.sieve for li in matcher.lists)]
    suffixes = yield from _quiet_suffixes(matcher, sieves)
    names: set[int] = set()
    for sieve in sieves:
        names.update(sieve.names or ())
        yield
    any_name = any(sieve.names is None for sieve in sieves)
    told = " ".join(["", *suffixes, ""]).encode()
    numbers = (round(settle * 1e6), closed, len(told), len(names), any_name, len(sieves))
    parts = [_NUMBERS.pack(*numbers), told, struct.pack(f"<{len(names)}I", *sorted(names))]
    for sieve in sieves:
        parts += [_SIZE.pack(len(sieve.bits)), bytes(sieve.bits)]
    return b"".join(parts)


def _of_names(names: Iterable[str]) -> Sieve:
    return read_sieve(write_sieve(array("I", [crc32(name.encode()) for name in names]), (), ()))


def _quiet_suffixes(matcher: Matcher, sieves: Collection[Sieve]) -> Generator[None, None, list[str]]:
    """Public suffixes that the sieves take for listed, and that are not: all below would be handed over."""
    found = []
    for number, suffix in enumerate(sorted(filter(str.isascii, public_suffixes()))):
        if not number % _LOOKED_AT:
            yield
        value = crc32(suffix.encode())
        if any(may_list_domain(sieve.bits, value) for sieve in sieves) and matcher.is_quiet((suffix,), ""):
            found.append(suffix)
    return found


def sealed(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """A filter's file.

    Args:
        data: its content.
        key: 32 bytes.
        nonce: 12 bytes, which no other content was sealed with.
    """
    cipher = Cipher(ChaCha20(key, bytes(4) + nonce), None).encryptor()
    return _HEADER.pack(MAGIC, VERSION, len(data), crc32(data), nonce) + cipher.update(data)


def write(folder: Path, data: bytes) -> None:
    """Write a filter into a hook's folder, and its key where there is none.

    Raises:
        SourceError: not writable.
    """
    key = _key(folder / KEY)
    _write(folder / FILTER, sealed(data, key, os.urandom(12)))


def _key(path: Path) -> bytes:
    with suppress(OSError, ValueError):
        found = unhexlify(path.read_bytes().strip())
        if len(found) == KEY_SIZE:
            return found
    made = secrets.token_bytes(KEY_SIZE)
    _write(path, made.hex().encode() + b"\n")
    return made


def _write(path: Path, data: bytes) -> None:
    with written_atomically(path, _MODE) as file:
        os.fchmod(file.fileno(), _MODE)  # whatever the service's umask
        file.write(data)
