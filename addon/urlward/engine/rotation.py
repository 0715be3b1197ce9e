"""Key rotation: the statement by which a list body changes from one signing key to the next.

A text, ASCII, one field a line, in this order and spelling and no other:

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
from dataclasses import dataclass, field

from urlward.engine.dates import parse_time, time_text
from urlward.engine.errors import KeyFileError, RotationError
from urlward.engine.signing import PublicKey, SigningKey

ROTATION_MAGIC = b"urlward rotation "
MAX_SERIAL = (1 << 64) - 1

_LAST_TIME = parse_time("9999-12-31T23:59:59Z")
_STATEMENT = re.compile(
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
        message = _message(self.old, self.new, self.start, self.last_serial)
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
    signature = old.sign(_message(old.public, new, start, last_serial))
    return Rotation(old.public, new, start, last_serial, signature)


def parse_rotation(data: bytes) -> Rotation:
    """Read a statement and verify its signature; white space around it is ignored.

    Raises:
        RotationError: not a statement, or not signed by the key it names.
    """
    found = _STATEMENT.fullmatch(data.strip().decode("latin-1"))
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
    message = _message(made.old, made.new, made.start, made.last_serial)
    if not made.old.verifies(bytes.fromhex(signature), message):
        raise RotationError(f"a rotation statement that its old key, {made.old.short}, has not signed")
    return made


def _message(old: PublicKey, new: PublicKey, start: int, last_serial: int) -> bytes:
    return (
        f"urlward rotation 1\nold {old}\nnew {new}\nfrom {time_text(start)}\nlast-serial {last_serial}\n"
    ).encode()
