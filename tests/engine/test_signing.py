import base64
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from engine.support import OTHER_SECRET, SECRET, build, examples, key
from rows import each_row
from urlward.engine.artifact import HEADER_SIZE, SIGNATURE, Header, parse, read_header
from urlward.engine.errors import ArtifactError, KeyFileError
from urlward.engine.loaded import load
from urlward.engine.signing import (
    PublicKey,
    SigningKey,
    check_signature,
    parse_public_key,
    parse_signing_key,
    sign_artifact,
    signer_of,
)

SIGNER = SigningKey(SECRET)
OTHER = SigningKey(OTHER_SECRET)
LINES = ["example.test id=1", "http://example.test/page id=2", "192.0.2.7 id=3"]
GOLDEN = Path(__file__).parents[1] / "data" / "golden.ward"
GOLDEN_SIGNATURE = (
    "bc31dd76b27bc26c87cf76795a0f93a8860dce57580c4864fb2c3cf0d4e18f92"
    "8c9bebc691f0cced8cc0693a2178933b105eb1bc2cf5fb34fcf09c7c29482403"
)


def artifact() -> bytes:
    return build(LINES, key(), "signed")


def header(data: bytes) -> Header:
    return parse(data).header


# -- signing


def test_a_signed_artifact_names_its_signer_and_verifies() -> None:
    data = sign_artifact(artifact(), SIGNER, serial=7, valid_from=10, valid_until=20)
    found = header(data)
    assert (found.serial, found.valid_from, found.valid_until) == (7, 10, 20)
    assert found.created == header(artifact()).created
    assert signer_of(found) == check_signature(found) == SIGNER.public


def test_the_list_is_the_same_as_without() -> None:
    plain, data = artifact(), sign_artifact(artifact(), SIGNER)
    assert data[HEADER_SIZE:] == plain[HEADER_SIZE:]
    assert load(data, key()).entries == load(plain, key()).entries == 3


def test_the_same_input_gives_the_same_bytes() -> None:
    assert sign_artifact(artifact(), SIGNER) == sign_artifact(artifact(), SIGNER)
    assert sign_artifact(sign_artifact(artifact(), OTHER), SIGNER) == sign_artifact(artifact(), SIGNER)


def test_golden_signature() -> None:
    found = header(sign_artifact(GOLDEN.read_bytes(), SIGNER, serial=7))
    assert found.signature.hex() == GOLDEN_SIGNATURE, (
        "Filters in the field no longer verify what this release signs: undo it, or raise artifact.VERSION."
    )
    assert check_signature(found) == SIGNER.public


def test_what_was_there_stays_where_nothing_is_said() -> None:
    first = sign_artifact(artifact(), SIGNER, serial=7, valid_from=10, valid_until=20)
    again = header(sign_artifact(first, OTHER))
    assert (again.serial, again.valid_from, again.valid_until) == (7, 10, 20)
    assert header(sign_artifact(first, OTHER, valid_from=0, valid_until=0)).valid_until == 0


def test_a_damaged_artifact_is_not_signed() -> None:
    data = bytearray(artifact())
    data[-1] ^= 1
    with pytest.raises(ArtifactError):
        sign_artifact(bytes(data), SIGNER)


def test_openssl_verifies_it_too(tmp_path: Path) -> None:
    """The signed bytes are what the docstring says, by another program."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    data = sign_artifact(artifact(), SIGNER)
    message = bytearray(data[:HEADER_SIZE])
    message[112:176] = bytes(64)
    for name, content in {
        "message": b"urlward artifact 1\n" + message,
        "signature": data[112:176],
        "public": SIGNER.public.pem(),
        "private": SIGNER.pem(),
    }.items():
        (tmp_path / name).write_bytes(content)
    command = "openssl pkeyutl -verify -pubin -inkey public -rawin -in message -sigfile signature"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "Signature Verified Successfully" in done.stdout, done
    made = subprocess.run(
        ["openssl", "pkey", "-in", "private", "-pubout"], cwd=tmp_path, capture_output=True, timeout=120
    )
    assert made.stdout == SIGNER.public.pem()


# -- each way to be wrong


def test_unsigned() -> None:
    assert signer_of(header(artifact())) is None
    with pytest.raises(ArtifactError, match="not signed"):
        check_signature(header(artifact()))


def test_a_signature_taken_away() -> None:
    data = bytearray(sign_artifact(artifact(), SIGNER))
    data[SIGNATURE] = bytes(64)
    with pytest.raises(ArtifactError, match="not signed"):
        check_signature(header(bytes(data)))


def test_a_signature_of_something_else() -> None:
    data = bytearray(sign_artifact(artifact(), SIGNER))
    data[SIGNATURE] = sign_artifact(artifact(), SIGNER, serial=9)[SIGNATURE]
    with pytest.raises(ArtifactError, match=f"not one of the key it names, {SIGNER.public.short}"):
        check_signature(header(bytes(data)))


def test_a_signer_that_is_no_point_of_the_curve() -> None:
    data = sign_artifact(artifact(), SIGNER)
    with pytest.raises(ArtifactError, match="its signature is not"):
        check_signature(header(data)._replace(signer=b"\2" + bytes(31)))


def test_every_bit_of_the_header_is_signed() -> None:
    data = bytearray(sign_artifact(artifact(), SIGNER, serial=7, valid_from=10, valid_until=20))
    for bit in range(10 * 8, HEADER_SIZE * 8):  # behind magic and version, which are errors of their own
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArtifactError, match="its signature is not"):
            check_signature(read_header(bytes(data)))
        data[bit // 8] ^= 1 << bit % 8
    assert check_signature(read_header(bytes(data))) == SIGNER.public


def test_a_header_needs_no_more_than_its_bytes() -> None:
    data = sign_artifact(artifact(), SIGNER)
    assert read_header(data[:HEADER_SIZE]) == header(data)
    with pytest.raises(ArtifactError, match="where the header says"):
        read_header(data[: HEADER_SIZE - 1])


# -- keys


def test_rfc8032_test_1() -> None:
    """RFC 8032, 7.1, test 1."""
    signing = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert str(signing.public) == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert (
        signing.sign(b"")
        .hex()
        .startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555")
    )


def test_keys_come_back_from_their_files() -> None:
    assert parse_signing_key(SIGNER.pem()).public == SIGNER.public
    assert parse_public_key(SIGNER.public.pem()) == SIGNER.public
    assert parse_public_key(f" {SIGNER.public}\n".encode()) == SIGNER.public
    assert parse_public_key(str(SIGNER.public).upper().encode()) == SIGNER.public


def test_no_secret_in_a_repr() -> None:
    assert SECRET.hex() not in repr(SIGNER)
    assert repr(SIGNER) == f"<SigningKey {SIGNER.public.short}>"


def pem_of(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b"") -> bytes:
    sealed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_PUBLIC = EC_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@each_row(
    ("data", "reason"),
    [
        (b"", "not a private key in PEM"),
        (SECRET, "not a private key in PEM"),
        (SIGNER.public.pem(), "not a private key in PEM"),
        (pem_of(EC_KEY), "not of Ed25519"),
        (pem_of(ed25519.Ed25519PrivateKey.from_private_bytes(SECRET), b"secret"), "encrypted"),
    ],
    ids=["empty", "raw", "public", "another kind", "encrypted"],
)
def test_what_is_no_signing_key(data: bytes, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        parse_signing_key(data)


@each_row(
    ("data", "reason"),
    [
        (b"", "neither PEM nor"),
        (b"ab" * 31, "neither PEM nor"),
        (b"0" * 64, "not all zero"),
        (SIGNER.pem(), r"\.pub"),
        (EC_PUBLIC, "not of Ed25519"),
    ],
    ids=["empty", "short", "zero", "private", "another kind"],
)
def test_what_is_no_public_key(data: bytes, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        parse_public_key(data)


@each_row("size", [0, 31, 33])
def test_keys_of_another_size(size: int) -> None:
    with pytest.raises(KeyFileError):
        SigningKey(b"\1" * size)
    with pytest.raises(KeyFileError):
        PublicKey(b"\1" * size)


@given(st.sampled_from([SIGNER.pem(), SIGNER.public.pem(), b""]), st.integers(0, 120), st.binary(max_size=40))
@examples(300)
def test_any_bytes_are_a_key_or_a_key_file_error(whole: bytes, at: int, put: bytes) -> None:
    data = whole[:at] + put + whole[at + len(put) :]
    for parse_key in (parse_signing_key, parse_public_key):
        with suppress(KeyFileError):
            parse_key(data)


def test_a_key_of_another_algorithms_name_is_a_key_file_error() -> None:
    """32 bytes that say they are an X448 key are an InternalError to OpenSSL under cryptography 48."""
    lines = SIGNER.pem().splitlines()
    der = base64.b64decode(b"".join(lines[1:-1]))
    where = der.index(b"\x2b\x65\x70") + 2  # 1.3.101.112
    for last in (*range(112), *range(113, 256)):
        other = base64.b64encode(der[:where] + bytes([last]) + der[where + 1 :])
        with pytest.raises(KeyFileError):
            parse_signing_key(b"\n".join([lines[0], other, lines[-1], b""]))
