import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import CREATED, OTHER_SECRET, SECRET, build, examples, key
from rows import each_row
from urlward.engine.artifact import read_header
from urlward.engine.errors import ArtifactError, RotationError
from urlward.engine.signing import (
    MAX_SERIAL,
    ROTATION_MAGIC,
    SigningKey,
    check_signature,
    make_rotation,
    parse_rotation,
    sign_artifact,
)

OLD, NEW = SigningKey(SECRET), SigningKey(OTHER_SECRET)
TEXT = f"""urlward rotation 1
old {OLD.public}
new {NEW.public}
from 2023-11-14T22:13:20Z
last-serial 41
signature """


def statement() -> bytes:
    return make_rotation(OLD, NEW.public, start=CREATED, last_serial=41).text()


def test_it_says_what_the_docstring_says() -> None:
    text = statement().decode()
    assert text.startswith(TEXT)
    assert text.startswith(ROTATION_MAGIC.decode())
    signature = bytes.fromhex(text.removeprefix(TEXT).strip())
    assert OLD.public.verifies(signature, TEXT.removesuffix("signature ").encode())


def test_it_comes_back() -> None:
    found = parse_rotation(b"\n " + statement() + b" \n")
    assert found == make_rotation(OLD, NEW.public, start=CREATED, last_serial=41)
    assert (found.old, found.new, found.start, found.last_serial) == (OLD.public, NEW.public, CREATED, 41)
    assert found.text() == statement()


@each_row(("start", "serial"), [(-1, 1), (1, -1), (1, MAX_SERIAL + 1), (2**60, 1)])
def test_numbers_out_of_range(start: int, serial: int) -> None:
    with pytest.raises(RotationError, match="0 to"):
        make_rotation(OLD, NEW.public, start=start, last_serial=serial)


def test_the_ends_of_the_range_come_back() -> None:
    for start, serial in ((0, 0), (253_402_300_799, MAX_SERIAL)):
        made = make_rotation(OLD, NEW.public, start=start, last_serial=serial)
        assert parse_rotation(made.text()) == made


def test_to_the_same_key() -> None:
    with pytest.raises(RotationError, match="the same"):
        make_rotation(OLD, OLD.public, start=1, last_serial=1)


def signed(text: str) -> bytes:
    return f"{text}signature {OLD.sign(text.encode()).hex()}\n".encode()


@each_row(
    ("was", "put"),
    [
        ("last-serial 41", f"last-serial {MAX_SERIAL + 1}"),
        ("last-serial 41", "last-serial 041"),
        ("last-serial 41", "last-serial -1"),
        ("2023-11-14T", "2023-02-30T"),
        ("2023-11-14T", "1969-11-14T"),
        (f"new {NEW.public}", f"new {OLD.public}"),
        (f"new {NEW.public}", f"new {'0' * 64}"),
        (f"new {NEW.public}", f"new {str(NEW.public).upper()}"),
        ("rotation 1", "rotation 2"),
        ("\n", "\r\n"),
    ],
)
def test_signed_but_no_statement(was: str, put: str) -> None:
    text = TEXT.removesuffix("signature ")
    assert parse_rotation(signed(text)).last_serial == 41
    with pytest.raises(RotationError):
        parse_rotation(signed(text.replace(was, put)))


def test_any_changed_bit() -> None:
    data = bytearray(statement().strip())
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RotationError):
            parse_rotation(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_signed_by_another() -> None:
    made = make_rotation(NEW, SigningKey(bytes(32)).public, start=CREATED, last_serial=41).text()
    forged = made.replace(str(NEW.public).encode(), str(OLD.public).encode())
    with pytest.raises(RotationError, match="has not signed"):
        parse_rotation(forged)


def test_a_signature_serves_one_use_alone() -> None:
    """A statement's signature is none of an artifact, whatever is made of the bytes around it."""
    data = bytearray(sign_artifact(build(["a.test"], key()), OLD))
    data[112:176] = OLD.sign(bytes(data[:112]) + bytes(64) + bytes(data[176:256]))
    with pytest.raises(ArtifactError, match="its signature is not"):
        check_signature(read_header(bytes(data)))


@given(st.binary(max_size=500) | st.binary(max_size=40).map(lambda b: TEXT.encode() + b))
@examples(200)
def test_any_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(RotationError):
        parse_rotation(data)
