"""Keys and keyed digests.

Everything an artifact stores about an entry's text is a keyed BLAKE2b digest (RFC 7693), so that
without the key nobody can test a guess against it. Each use has a key of its own, derived with
BLAKE2b's personalisation, so that a digest made for one use says nothing about another.
"""

import re
from binascii import Error as BinasciiError
from binascii import b2a_base64, unhexlify
from collections.abc import Buffer, Callable, Iterable
from copy import copy
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from urlward.engine.errors import ArtifactError, KeyFileError

KEY_SIZE = 32
DIGEST_SIZE = 16

# The first letters stand for positions, not for text: no digest is written with them. All letters are
# Latin-1, which keeps strings short and sorting fast.
HOST_START = "\0"
HOST_END = "\1"
PATH_END = "\2"
NAME_START = "\3"
NETWORK_START = "\4"
_POSITIONS = 5

SEALED = 28
"""Bytes that sealing adds: nonce and tag."""

SEGMENT_LETTERS = 4
"""Letters of a path segment."""

_TOKEN_BYTES = 3
# Byte to letter: the few bytes that would be positions share their letters with others.
_LETTERS = bytes(byte if byte >= _POSITIONS else 0x80 + byte for byte in range(256))
_CACHED_TOKENS = 1 << 16


class Key:
    """A list's secret, and the digests made under it.

    Args:
        secret: 32 bytes.

    Raises:
        KeyFileError: not 32 bytes.
    """

    __slots__ = ("_seal", "begin", "id", "labels", "names", "secret", "segments")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_SIZE:
            raise KeyFileError(f"a key has {KEY_SIZE} bytes, this one has {len(secret)}")
        self.secret = secret
        """The 32 bytes, for a process that compiles on this one's behalf."""
        self.id: bytes = derived(secret, b"urlward key id", 8)
        """8 public bytes that tell keys apart."""
        record = blake2b(key=derived(secret, b"urlward record"), digest_size=DIGEST_SIZE)
        self.begin: Callable[[], blake2b] = record.copy
        """Begins a digest of a text, for where a call of `digest` is dear."""
        self._seal = derived(secret, b"urlward seal")
        self.labels = Tokens(derived(secret, b"urlward label"))
        self.names = Tokens(derived(secret, b"urlward name"))
        self.segments = Tokens(derived(secret, b"urlward segment"), few_letters=True)

    def fresh(self) -> "Key":
        """The same key with an empty token cache, for a use whose texts must not outlive it."""
        key = copy(self)
        key.labels, key.names, key.segments = self.labels.fresh(), self.names.fresh(), self.segments.fresh()
        return key

    def digest(self, text: str) -> bytes:
        """The 16-byte digest that confirms a candidate; `text` is kind and canonical form."""
        h = self.begin()
        h.update(text.encode("latin-1"))
        return h.digest()

    def digests(self, beginning: str, ends: Iterable[str]) -> list[bytes]:
        """The digests of texts with the same beginning, at which each of them is looked at once."""
        begin, found = self.begun(beginning), []
        for end in ends:
            h = begin()
            h.update(end.encode("latin-1"))
            found.append(h.digest())
        return found

    def behind(self, beginning: str) -> Callable[[bytes], bytes]:
        """What makes the digests of texts with the same beginning, which is not empty: of each the bytes that
        follow it."""
        begin = self.begun(beginning)

        def digest_of(end: bytes) -> bytes:
            h = begin()
            h.update(end)
            return h.digest()

        return digest_of

    def begun(self, beginning: str) -> Callable[[], blake2b]:
        """What begins such digests, where they are so many that a call of Python's for each is dear."""
        h = self.begin()
        h.update(beginning.encode("latin-1"))
        return h.copy

    def seal(self, data: bytes) -> bytes:
        """Encrypt for whoever holds the key (ChaCha20-Poly1305, RFC 8439).

        The nonce is a keyed digest of the content: the same content seals to the same bytes, which
        keeps artifacts reproducible, and no nonce serves two contents.
        """
        nonce = blake2b(data, key=self._seal, digest_size=12, person=b"urlward nonce").digest()
        return nonce + ChaCha20Poly1305(self._seal).encrypt(nonce, data, self.id)

    def unseal(self, sealed: Buffer) -> bytes:
        """Undo `seal`.

        Raises:
            ArtifactError: not sealed under this key, or changed since.
        """
        try:
            view = memoryview(sealed)
            return ChaCha20Poly1305(self._seal).decrypt(view[:12], view[12:], self.id)
        except (InvalidTag, ValueError) as e:
            raise ArtifactError("a sealed section does not open under this key") from e


class Tokens(dict[str, str]):
    """Text to the letters that stand for it in a haystack, computed once and remembered.

    A plain dictionary, because a hit must cost no more than one: the whole request is mapped
    through ``__getitem__`` in C. It forgets everything when full, which costs a digest (0.5 µs) for
    each text seen again, and needs no bookkeeping on the way that counts.

    Labels and names become 3 letters out of 251, which makes the fewest nodes. Segments become 4
    out of 64: pyahocorasick walks a node's children one by one, and every segment of every request
    is tried at the root of the floating automata, where all letters occur.
    """

    __slots__ = ("_base", "_few_letters")

    def __init__(self, secret: bytes, *, few_letters: bool = False) -> None:
        super().__init__()
        self._base = blake2b(key=secret, digest_size=_TOKEN_BYTES)
        self._few_letters = few_letters

    def fresh(self) -> "Tokens":
        """The same mapping with an empty cache."""
        tokens = Tokens.__new__(Tokens)
        tokens._base, tokens._few_letters = self._base, self._few_letters
        return tokens

    def __missing__(self, text: str) -> str:
        h = self._base.copy()
        h.update(text.encode("latin-1"))
        digest = h.digest()
        few = self._few_letters
        letters = (b2a_base64(digest, newline=False) if few else digest.translate(_LETTERS)).decode("latin-1")
        if len(text) <= 256:
            if len(self) >= _CACHED_TOKENS:
                self.clear()
            self[text] = letters
        return letters


def mark_of(digest: bytes) -> int:
    """The number that a keyed digest is sorted and found by where rows are many: its first 8 bytes."""
    return int.from_bytes(digest[:8], "little")


def derived(secret: bytes, use: bytes, size: int = 32) -> bytes:
    """Secret for one use, which says nothing about the one that it is made from."""
    return blake2b(key=secret, digest_size=size, person=use.ljust(16, b"\0")).digest()


def parse_key(data: bytes) -> Key:
    """Read a key file: 64 hexadecimal digits, white space around them ignored.

    Raises:
        KeyFileError: anything else.
    """
    text = data.strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]*", text):
        raise KeyFileError("a key file holds 64 hexadecimal digits and nothing else")
    try:
        secret = unhexlify(text)
    except BinasciiError as e:
        raise KeyFileError("a key file holds 64 hexadecimal digits, this one an odd number") from e
    return Key(secret)


def format_key(secret: bytes) -> bytes:
    """The content of a key file for 32 secret bytes."""
    return secret.hex().encode() + b"\n"
