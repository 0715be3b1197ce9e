from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from lists.support import artifact
from rows import each_row
from urlward.engine.artifact import Header, parse
from urlward.engine.errors import ArtifactError, KeyFileError, RotationError
from urlward.engine.signing import Rotation, SigningKey, make_rotation, sign_artifact
from urlward.lists.trust import GRACE, MAX_ROTATIONS, Trust, Validity, check_dates, read_trust

DAY, HOUR = 86400, 3600
NOW = 1_800_000_000
PLAIN = artifact(["a.example", "b.example"])
A, B, C, D = (SigningKey(bytes([n]) * 32) for n in range(1, 5))


def signed(key: SigningKey | None, serial: int = 7, valid_from: int = 0, valid_until: int = 0) -> Header:
    data = sign_artifact(PLAIN, key or A, serial=serial, valid_from=valid_from, valid_until=valid_until)
    header = parse(data).header
    return header if key else header._replace(signer=bytes(32), signature=bytes(64))


def hand_over(old: SigningKey, new: SigningKey, last_serial: int = 7, start: int = NOW) -> Rotation:
    return make_rotation(old, new.public, start=start, last_serial=last_serial)


def trusting(*keys: SigningKey, rotations: Sequence[Rotation] = ()) -> Trust:
    return Trust(frozenset(key.public for key in keys), tuple(rotations))


def refused(
    trust: Trust, header: Header, *, last_serial: int = 0, now: float = NOW, **more: object
) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        trust.check(header, last_serial=last_serial, now=now, **more)  # type: ignore[arg-type]
    return caught.value


# -- signatures


def test_of_a_trusted_key() -> None:
    for trust in (trusting(A), trusting(B, A)):
        assert trust.check(signed(A), last_serial=0, now=NOW) == Validity("ok", 0, "", A.public)


def test_unsigned() -> None:
    error = refused(trusting(A), signed(None))
    assert error.reason == "unsigned"
    assert str(error) == f"not signed, trusted: {A.public.short}"


def test_a_signature_taken_away() -> None:
    assert refused(trusting(A), signed(A)._replace(signature=bytes(64))).reason == "unsigned"


def test_an_unknown_signer() -> None:
    error = refused(trusting(A, C), signed(B))
    assert error.reason == "unknown signer"
    assert all(each.public.short in str(error) for each in (A, B, C))
    assert "rotation statement" in str(error)


def test_many_trusted_keys_make_no_long_message() -> None:
    many = [SigningKey(bytes([n]) * 32) for n in range(10, 60)]
    assert "and 47 more" in str(refused(trusting(*many), signed(A)))


def test_a_bad_signature() -> None:
    error = refused(trusting(A), signed(A)._replace(signature=b"\1" * 64))
    assert error.reason == "bad signature"
    assert A.public.short in str(error)


def test_another_signer_put_in_its_place() -> None:
    assert refused(trusting(A, B), signed(A)._replace(signer=B.public.raw)).reason == "bad signature"


def test_without_keys_no_signature_is_asked_for_but_serial_and_dates_are() -> None:
    trust = read_trust([])
    assert trust == Trust()
    assert trust.check(signed(None), last_serial=7, now=NOW) == Validity("ok", 0, "", None)
    assert trust.check(signed(A)._replace(signature=b"\1" * 64), last_serial=0, now=NOW).signer is None
    assert refused(trust, signed(None), last_serial=8).reason == "older serial"
    assert refused(trust, signed(None, valid_until=NOW - GRACE_S - 1)).reason == "expired"


GRACE_S = int(GRACE)


# -- serials


def test_serials_rise() -> None:
    trust = trusting(A)
    for last in (0, 6, 7):
        trust.check(signed(A), last_serial=last, now=NOW)
    error = refused(trust, signed(A), last_serial=8)
    assert error.reason == "older serial"
    assert "serial 7, but 8 has been taken" in str(error)


def test_the_same_serial_is_the_same_artifact_or_a_forked_one() -> None:
    header, other = signed(A), signed(A, valid_until=NOW + DAY)
    trusting(A).check(header, last_serial=7, last_checksum=header.checksum, now=NOW)
    trusting(A).check(header, last_serial=6, last_checksum=other.checksum, now=NOW)
    error = refused(trusting(A), header, last_serial=7, last_checksum=other.checksum)
    assert error.reason == "forked serial"
    assert f"checksum {other.checksum.hex()}, this one has {header.checksum.hex()}" in str(error)


def test_a_forged_serial_does_not_get_as_far_as_to_be_compared() -> None:
    assert refused(trusting(A), signed(B, serial=2**64 - 1)).reason == "unknown signer"


# -- dates


def test_not_yet_valid() -> None:
    header = signed(A, valid_from=NOW)
    error = refused(trusting(A), header, now=NOW - 1)
    assert error.reason == "not yet valid"
    assert "valid from 2027-01-15T08:00:00Z" in str(error)
    assert trusting(A).check(header, last_serial=0, now=NOW).state == "ok"


@each_row(
    ("valid_from", "valid_until", "before", "state"),
    [
        (NOW - 10 * DAY, NOW, DAY + 1, "ok"),
        (NOW - 10 * DAY, NOW, DAY, "expiring"),
        (NOW - 10 * DAY, NOW, 1, "expiring"),
        (NOW - 10 * DAY, NOW, 0, "expired"),
        (NOW - 10 * DAY, NOW, 1 - GRACE_S, "expired"),
        (NOW - 1000 * DAY, NOW, 7 * DAY + 1, "ok"),
        (NOW - 1000 * DAY, NOW, 7 * DAY, "expiring"),
        (0, 1_700_000_000 + 10 * DAY, DAY + 1, "ok"),
        (0, 1_700_000_000 + 10 * DAY, DAY, "expiring"),
        (0, 1_600_000_000, 1, "ok"),
        (0, 0, 0, "ok"),
    ],
)
def test_the_end_of_validity(valid_from: int, valid_until: int, before: int, state: str) -> None:
    header = signed(A, valid_from=valid_from, valid_until=valid_until)
    found = trusting(A).check(header, last_serial=0, now=(valid_until or NOW) - before)
    assert (found.state, found.until) == (state, valid_until)
    assert bool(found.message) == (state != "ok")


def test_beyond_grace() -> None:
    header = signed(A, valid_until=NOW)
    error = refused(trusting(A), header, now=NOW + GRACE_S)
    assert error.reason == "expired"
    assert str(error) == (
        "expired at 2027-01-15T08:00:00Z, and the 7 days of grace are over: a newer issue is needed"
    )
    assert refused(trusting(A), header, now=NOW, grace=0).reason == "expired"
    assert trusting(A).check(header, last_serial=0, now=NOW, grace=1).state == "expired"


def test_sentences_for_the_alarm() -> None:
    header = signed(A, valid_until=NOW)
    assert check_dates(header, now=NOW - 5 * HOUR, grace=0).message == (
        "expires at 2027-01-15T08:00:00Z, in 5 hours"
    )
    assert check_dates(header, now=NOW - 90, grace=0).message.endswith("in 2 minutes")
    assert check_dates(header, now=NOW + DAY, grace=GRACE).message == (
        "expired at 2027-01-15T08:00:00Z, is not taken any more in 6 days"
    )


def test_times_that_no_calendar_has() -> None:
    far = 2**64 - 1
    assert check_dates(signed(A, valid_until=far), now=NOW, grace=0).state == "ok"
    assert f"valid from {far}" in str(refused(trusting(A), signed(A, valid_from=far)))


# -- rotation


def test_a_new_key_is_trusted_by_the_old_ones_word() -> None:
    assert refused(trusting(A), signed(B)).reason == "unknown signer"
    trust = trusting(A, rotations=[hand_over(A, B)])
    assert trust.check(signed(B, serial=8), last_serial=7, now=NOW).signer == B.public


def test_a_retired_key_signs_up_to_the_last_serial() -> None:
    trust = trusting(A, rotations=[hand_over(A, B, last_serial=7)])
    assert trust.check(signed(A, serial=7), last_serial=0, now=NOW).signer == A.public
    error = refused(trust, signed(A, serial=8))
    assert error.reason == "retired key"
    assert "serial 8 signed by" in str(error)


def test_before_its_date_the_new_key_signs_nothing() -> None:
    trust = trusting(A, rotations=[hand_over(A, B)])
    assert refused(trust, signed(B, serial=8), now=NOW - 1).reason == "key not yet in use"


@each_row("order", list(permutations(range(3))))
def test_a_chain_in_any_order(order: Sequence[int]) -> None:
    chain = [hand_over(A, B, 7), hand_over(B, C, 9), hand_over(C, D, 11)]
    trust = trusting(A, rotations=[chain[n] for n in order])
    assert trust.check(signed(D, serial=99), last_serial=0, now=NOW).signer == D.public
    assert trust.check(signed(B, serial=9), last_serial=0, now=NOW).signer == B.public
    assert refused(trust, signed(B, serial=10)).reason == "retired key"


def test_a_later_date_in_the_chain_holds() -> None:
    trust = trusting(A, rotations=[hand_over(A, B, start=NOW + 10), hand_over(B, C, start=NOW)])
    assert refused(trust, signed(C), now=NOW + 9).reason == "key not yet in use"
    trust.check(signed(C), last_serial=0, now=NOW + 10)


@each_row("n", range(20, 30))
def test_a_key_the_operator_names_too_needs_no_date(n: int) -> None:
    """Whichever of the two comes first in the set."""
    other = SigningKey(bytes([n]) * 32)
    trust = trusting(A, other, rotations=[hand_over(A, other, start=NOW + DAY)])
    trust.check(signed(other, serial=8), last_serial=0, now=NOW)
    assert refused(trust, signed(A, serial=8)).reason == "retired key"


def test_a_statement_from_nobody_trusted_counts_for_nothing() -> None:
    trust = trusting(A, rotations=[hand_over(B, C)])
    assert refused(trust, signed(C)).reason == "unknown signer"
    with pytest.raises(RotationError, match="which is not trusted"):
        trusting(A).with_rotation(hand_over(B, C))


def test_one_statement_more() -> None:
    first = trusting(A).with_rotation(hand_over(A, B))
    second = first.with_rotation(hand_over(B, C))
    assert second.check(signed(C, serial=8), last_serial=0, now=NOW).signer == C.public
    assert second.with_rotation(hand_over(A, B)) is second
    assert refused(first, signed(C, serial=8)).reason == "unknown signer"


def test_two_statements_by_one_key() -> None:
    trust = trusting(A, rotations=[hand_over(A, B)])
    for other in (hand_over(A, C), hand_over(A, B, last_serial=99)):
        with pytest.raises(RotationError, match="two rotations from"):
            trust.with_rotation(other)
        with pytest.raises(RotationError, match="two rotations from"):
            trusting(A, rotations=[other, hand_over(A, B)])


def test_a_circle() -> None:
    trust = trusting(A, rotations=[hand_over(A, B), hand_over(B, C)])
    for back in (A, B):
        with pytest.raises(RotationError, match=r"lead back|two rotations"):
            trust.with_rotation(hand_over(C, back))


def test_too_many() -> None:
    keys = [SigningKey(n.to_bytes(32)) for n in range(1, MAX_ROTATIONS + 3)]
    chain = [hand_over(old, new) for old, new in pairwise(keys)]
    trust = trusting(keys[0], rotations=chain[:MAX_ROTATIONS])
    trust.check(signed(keys[MAX_ROTATIONS]), last_serial=0, now=NOW)
    with pytest.raises(RotationError, match="at most 100"):
        trust.with_rotation(chain[MAX_ROTATIONS])


# -- from files


def test_read_trust(tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_bytes(A.public.pem())
    (tmp_path / "b.hex").write_text(f"{B.public}\n")
    (tmp_path / "rotation").write_bytes(hand_over(C, D).text())
    paths = [str(tmp_path / "a.pub"), tmp_path / "b.hex", tmp_path / "rotation", str(C.public)]
    assert read_trust(paths) == trusting(A, B, C, rotations=[hand_over(C, D)])
    assert read_trust([*paths, *paths]) == read_trust(paths)


def test_statements_alone_are_no_trust(tmp_path: Path) -> None:
    (tmp_path / "rotation").write_bytes(hand_over(A, B).text())
    with pytest.raises(KeyFileError, match="name the public key"):
        read_trust([tmp_path / "rotation"])


@each_row(
    ("content", "error", "reason"),
    [
        (None, KeyFileError, "No such file"),
        (b"", KeyFileError, "neither PEM nor"),
        (A.pem(), KeyFileError, "a private key where"),
        (hand_over(A, B).text()[:-9], RotationError, "not a rotation statement"),
        (hand_over(A, B).text().replace(b"serial 7", b"serial 8"), RotationError, "has not signed"),
    ],
)
def test_files_that_are_wrong(
    tmp_path: Path, content: bytes | None, error: type[Exception], reason: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=reason) as caught:
        read_trust([str(A.public), path])
    assert str(caught.value).startswith(f"{path}: ")
