"""Signatures of artifacts, and rotations of keys: Ed25519 (RFC 8032), deterministic and of constant cost.

What is signed is a prefix that no other use has, then the header with zeros for the signature. The header
contains a checksum of all the rest, so to verify costs the same whatever the size of the list; who verifies
must have checked that sum as well, which `urlward.engine.artifact.parse` does. BLAKE2b-128 bounds what that
is worth: to find other content under a signed checksum takes 2^128 tries.

Key files are PEM, as ``openssl pkey`` reads and writes them: PKCS #8 (RFC 5958) for the private key,
SubjectPublicKeyInfo (RFC 8410) for the public one, which may also be 64 hexadecimal digits.

A key rotation is the statement by which a list body changes from one signing key to the next: a text, ASCII,
one field a line, in this order and spelling and no other:

=================================  ==============================================================
line                               content
=================================  ==============================================================
``urlward rotation 1``             what it is, and the version of its form
``old`` 64 hexadecimal digits      the public key that signs no more
``new`` 64 hexadecimal digits      the one that signs instead
``from`` time                      from when, such as ``2027-01-31T12:00:00Z``
``last-serial`` number             the last serial that the old key may have signed
``signature`` 128 hexadecimal      of the old key (Ed25519) over the lines before, each with its
digits                             end of line
=================================  ==============================================================

The first line is in no other message that a signing key signs.
"""

import re
from collections.abc import Buffer
from dataclasses import dataclass, field

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from urlward.engine.artifact import SIGNATURE, Header, parse, reissue
from urlward.engine.dates import parse_time, time_text
from urlward.engine.errors import ArtifactError, KeyFileError, RotationError

SIGNING_KEY_SIZE = 32
SIGNATURE_SIZE = 64

_PREFIX = b"urlward artifact 1\n"
_HEX = re.compile(rb"[0-9A-Fa-f]{64}")
_PRIVATE = b"PRIVATE KEY-----"
_NO_KEY = (ValueError, UnsupportedAlgorithm, InternalError)
"""Raised for what is no PEM of a key; InternalError where OpenSSL itself stumbles over damaged bytes."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Public key that verifies one signer's artifacts.

    Args:
        raw: 32 bytes, not all zero, which stands for no signer.

    Raises:
        KeyFileError: other bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != SIGNING_KEY_SIZE or not any(self.raw):
            raise KeyFileError(f"a public key has {SIGNING_KEY_SIZE} bytes that are not all zero")

    def __str__(self) -> str:
        return self.raw.hex()

    @property
    def short(self) -> str:
        """Its first 16 hexadecimal digits, for messages."""
        return f"{self.raw[:8].hex()}…"

    def pem(self) -> bytes:
        """The content of a public key file."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made a signature of a message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """Private key that a list body signs with.

    Args:
        secret: 32 random bytes (the seed of RFC 8032, 5.1.5).

    Raises:
        KeyFileError: not 32 bytes.

    Attributes:
        public: what others verify with.
    """

    __slots__ = ("_key", "public")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SIGNING_KEY_SIZE:
            raise KeyFileError(f"a signing key has {SIGNING_KEY_SIZE} bytes, this one has {len(secret)}")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.short}>"

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message; always the same one."""
        return self._key.sign(message)

    def pem(self) -> bytes:
        """The content of a private key file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_signing_key(data: bytes) -> SigningKey:
    """Read a private key file.

    Raises:
        KeyFileError: not the PEM of an unencrypted Ed25519 key.
    """
    try:
        key = load_pem_private_key(data, None)
    except TypeError as e:
        raise KeyFileError("an encrypted key: decrypt it first (openssl pkey)") from e
    except _NO_KEY as e:
        raise KeyFileError("not a private key in PEM, which `urlward keygen --signing` makes") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError("a private key, but not of Ed25519: make one with `urlward keygen --signing`")
    return SigningKey(key.private_bytes_raw())


def parse_public_key(data: bytes) -> PublicKey:
    """Read a public key: PEM, or 64 hexadecimal digits.

    Raises:
        KeyFileError: neither, or not of Ed25519.
    """
    text = data.strip()
    if _HEX.fullmatch(text):
        return PublicKey(bytes.fromhex(text.decode()))
    if _PRIVATE in text:
        raise KeyFileError("a private key where the public one is wanted: that is the file with .pub behind")
    try:
        key = load_pem_public_key(text)
    except _NO_KEY as e:
        raise KeyFileError("not a public key: neither PEM nor 64 hexadecimal digits") from e
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError("a public key, but not of Ed25519")
    return PublicKey(key.public_bytes_raw())


def sign_artifact(
    data: Buffer,
    key: SigningKey,
    *,
    serial: int | None = None,
    valid_from: int | None = None,
    valid_until: int | None = None,
) -> bytes:
    """Sign an artifact, whatever it was signed with before; the same input gives the same bytes.

    Args:
        data: the whole file.
        key: to sign with.
        serial: 0 to 2^64-1; as it is where not given.
        valid_from: seconds since 1970-01-01 UTC, 0 for always; as it is where not given.
        valid_until: likewise.

    Raises:
        ArtifactError: what is wrong with it, as `parse`.
    """
    header = parse(data).header
    made = reissue(
        data,
        serial=header.serial if serial is None else serial,
        valid_from=header.valid_from if valid_from is None else valid_from,
        valid_until=header.valid_until if valid_until is None else valid_until,
        signer=key.public.raw,
    )
    made[SIGNATURE] = key.sign(_message(bytes(made[: len(header.raw)])))
    return bytes(made)


def signer_of(header: Header) -> PublicKey | None:
    """The key that an artifact names as its signer's, None for none; says nothing about the signature."""
    return PublicKey(header.signer) if any(header.signer) else None


def check_signature(header: Header) -> PublicKey:
    """Verify that the signer an artifact names has signed it.

    Args:
        header: of `read_header`, or of `parse`, which alone ties the rest of the artifact to it.

    Returns:
        The signer's key. Whether it is one to trust is the caller's question.

    Raises:
        ArtifactError: there is no signature (``unsigned``), or it is not the signer's.
    """
    signer = signer_of(header)
    if signer is None or not any(header.signature):
        raise ArtifactError("not signed", "unsigned")
    if not signer.verifies(header.signature, _message(header.raw)):
        text = f"its signature is not one of the key it names, {signer.short}: fetch it again"
        raise ArtifactError(text, "signature")
    return signer


def _message(header: bytes) -> bytes:
    return _PREFIX + header[: SIGNATURE.start] + bytes(SIGNATURE_SIZE) + header[SIGNATURE.stop :]


ROTATION_MAGIC = b"urlward rotation "
MAX_SERIAL = (1 << 64) - 1

_LAST_TIME = parse_time("9999-12-31T23:59:59Z")
_FORM = re.compile(
    r"urlward rotation 1\nold ([0-9a-f]{64})\nnew ([0-9a-f]{64})\n"
    r"from ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)\n"
    r"last-serial (0|[1-9][0-9]{0,19})\nsignature ([0-9a-f]{128})"
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Key rotation statement with a valid signature by the old key.

    Attributes:
        old: the key that signs no more.
        new: the one that signs instead.
        start: from when, seconds since 1970-01-01 UTC.
        last_serial: the last that the old key may have signed.
    """

    old: PublicKey
    new: PublicKey
    start: int
    last_serial: int
    _signature: bytes = field(repr=False)

    def text(self) -> bytes:
        """The content of its file."""
        message = _statement(self.old, self.new, self.start, self.last_serial)
        return message + f"signature {self._signature.hex()}\n".encode()


def make_rotation(old: SigningKey, new: PublicKey, *, start: int, last_serial: int) -> Rotation:
    """Hand over from one key to another; the same input gives the same statement.

    Args:
        old: the key that signs no more.
        new: the one that signs instead.
        start: from when, seconds since 1970-01-01 UTC.
        last_serial: the last that the old key may have signed.

    Raises:
        RotationError: the keys are the same, or a number is out of range.
    """
    if old.public == new:
        raise RotationError("the old key and the new one are the same")
    if not 0 <= last_serial <= MAX_SERIAL or not 0 <= start <= _LAST_TIME:
        raise RotationError(f"a serial is 0 to {MAX_SERIAL}, a date in the years 1970 to 9999")
    signature = old.sign(_statement(old.public, new, start, last_serial))
    return Rotation(old.public, new, start, last_serial, signature)


def parse_rotation(data: bytes) -> Rotation:
    """Read a statement and verify its signature; white space around it is ignored.

    Raises:
        RotationError: not a statement, or not signed by the key it names.
    """
    found = _FORM.fullmatch(data.strip().decode("latin-1"))
    if found is None:
        raise RotationError("not a rotation statement as `urlward rotate` writes it: fetch or copy it again")
    old, new, start, serial, signature = found.groups()
    try:
        keys = PublicKey(bytes.fromhex(old)), PublicKey(bytes.fromhex(new))
        made = Rotation(*keys, parse_time(start), int(serial), bytes.fromhex(signature))
    except (KeyFileError, ValueError) as e:
        raise RotationError(f"a rotation statement in which a key or the date is none: {e}") from e
    if made.old == made.new or made.last_serial > MAX_SERIAL:
        raise RotationError("a rotation statement from a key to itself, or with a serial out of range")
    message = _statement(made.old, made.new, made.start, made.last_serial)
    if not made.old.verifies(bytes.fromhex(signature), message):
        raise RotationError(f"a rotation statement that its old key, {made.old.short}, has not signed")
    return made


def _statement(old: PublicKey, new: PublicKey, start: int, last_serial: int) -> bytes:
    return (
        f"urlward rotation 1\nold {old}\nnew {new}\nfrom {time_text(start)}\nlast-serial {last_serial}\n"
    ).encode()
