"""What docs/security.md says of each kind of attacker, as far as that can be tried."""

import hashlib
import zlib
from collections.abc import Iterator

import pytest

from lists.support import SECRET
from rows import each_row
from urlward.engine.artifact import HEADER_SIZE, SIGNATURE, Section, dump, parse, reissue
from urlward.engine.compiler import Compiler
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.errors import ArtifactError, RotationError
from urlward.engine.grammar import parse_line
from urlward.engine.loaded import load
from urlward.engine.record import Flag, domain_text
from urlward.engine.signing import SigningKey, make_rotation, sign_artifact
from urlward.lists.trust import Trust, Validity

NOW = 1_800_000_000
BODY, THIEF = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)
TRUST = Trust(frozenset([BODY.public]))
LIST_KEY = Key(SECRET)


def compiled(*lines: str, under: Key = LIST_KEY, serial: int = 7) -> bytes:
    compiler = Compiler(under.fresh())
    for line in lines:
        for entry in parse_line(line):
            compiler.add(entry)
    return dump(compiler.finish(), under, name="list", serial=serial, created=NOW - 1000)


def issue(*lines: str, serial: int = 7, valid_until: int = 0) -> bytes:
    return sign_artifact(compiled(*(lines or ("a.example",)), serial=serial), BODY, valid_until=valid_until)


def take(data: bytes, *, trust: Trust = TRUST, last: bytes = b"", now: float = NOW) -> Validity:
    """What a filter asks before it takes an artifact, `last` being the one that it has."""
    header = parse(data).header
    before = parse(last).header if last else None
    return trust.check(
        header,
        last_serial=before.serial if before else 0,
        last_checksum=before.checksum if before else b"",
        now=now,
    )


def repaired(data: bytes) -> bytes:
    """The same under a checksum that fits: no secret is needed for one."""
    serial, valid_from, valid_until = (int.from_bytes(data[at : at + 8], "little") for at in (48, 64, 72))
    made = reissue(data, serial=serial, valid_from=valid_from, valid_until=valid_until, signer=data[80:112])
    made[SIGNATURE] = data[SIGNATURE]
    return bytes(made)


# -- who serves the feed, or sits on the wire


def test_any_bit_changed_anywhere_is_refused() -> None:
    data = bytearray(issue())
    take(bytes(data))
    for at in range(len(data)):
        for mask in (0x01, 0x10, 0x80):
            data[at] ^= mask
            with pytest.raises(ArtifactError):
                take(bytes(data))
            data[at] ^= mask


def test_any_byte_changed_and_the_checksum_made_anew_is_refused() -> None:
    data = bytearray(issue())
    assert repaired(bytes(data)) == data
    reasons = set()
    for at in set(range(len(data))) - set(range(32, 48)):  # which is where that checksum goes
        data[at] ^= 0x21
        with pytest.raises(ArtifactError) as caught:
            take(repaired(bytes(data)))
        reasons.add(getattr(caught.value, "reason", type(caught.value).__name__))
        data[at] ^= 0x21
    assert {"bad signature", "unknown signer"} < reasons


@each_row("length", [0, 7, 100, 255, 256, 300, -1])
def test_cut_short(length: int) -> None:
    with pytest.raises(ArtifactError):
        take(issue()[:length])


def test_the_signature_taken_away() -> None:
    data = bytearray(issue())
    data[SIGNATURE] = bytes(64)
    with pytest.raises(ArtifactError, match="not signed"):
        take(bytes(data))
    data[80:112] = bytes(32)
    with pytest.raises(ArtifactError, match="not signed"):
        take(repaired(bytes(data)))
    with pytest.raises(ArtifactError, match="a signature and no signer"):
        take(repaired(issue()[:80] + bytes(32) + issue()[112:]))


def test_another_list_with_the_same_key_but_signed_by_the_attacker() -> None:
    with pytest.raises(ArtifactError) as caught:
        take(sign_artifact(issue("other.example", serial=8), THIEF))
    assert caught.value.reason == "unknown signer"


def test_the_attackers_signature_under_the_bodys_name() -> None:
    data = bytearray(sign_artifact(issue(serial=8), THIEF))
    data[80:112] = BODY.public.raw
    with pytest.raises(ArtifactError) as caught:
        take(repaired(bytes(data)))
    assert caught.value.reason == "bad signature"


def test_a_signature_of_another_issue() -> None:
    data = bytearray(issue("a.example", serial=8))
    data[SIGNATURE] = issue("b.example", serial=8)[SIGNATURE]
    with pytest.raises(ArtifactError) as caught:
        take(bytes(data))
    assert caught.value.reason == "bad signature"


def test_sections_of_another_issue_under_a_signed_header() -> None:
    """The length is the same, and so is all that a header says but for the checksum."""
    one, other = issue("a.example"), issue("b.example")
    assert len(one) == len(other)
    with pytest.raises(ArtifactError):
        take(one[:HEADER_SIZE] + other[HEADER_SIZE:])


def test_replayed() -> None:
    old, new = issue(serial=7), issue("b.example", serial=8)
    take(new, last=old)
    take(new, last=new)
    with pytest.raises(ArtifactError) as caught:
        take(old, last=new)
    assert caught.value.reason == "older serial"


def test_an_older_one_with_its_serial_raised() -> None:
    old = issue(serial=7)
    header = parse(old).header
    raised = reissue(old, serial=9, valid_from=0, valid_until=0, signer=header.signer)
    raised[SIGNATURE] = header.signature
    with pytest.raises(ArtifactError) as caught:
        take(bytes(raised), last=issue(serial=8))
    assert caught.value.reason == "bad signature"


def test_two_issues_of_one_serial() -> None:
    with pytest.raises(ArtifactError) as caught:
        take(issue("b.example", serial=7), last=issue("a.example", serial=7))
    assert caught.value.reason == "forked serial"


def test_an_expired_one_with_its_date_put_off() -> None:
    old = issue(valid_until=NOW)
    header = parse(old).header
    put_off = reissue(old, serial=7, valid_from=0, valid_until=NOW * 2, signer=header.signer)
    put_off[SIGNATURE] = header.signature
    with pytest.raises(ArtifactError) as caught:
        take(bytes(put_off))
    assert caught.value.reason == "bad signature"


def test_withholding_is_noticed_by_the_date() -> None:
    data = issue(valid_until=NOW + 1000)
    states = [take(data, last=data, now=NOW + later).state for later in (0, 900, 1000, 1000 + 86400)]
    assert states == ["ok", "expiring", "expired", "expired"]
    with pytest.raises(ArtifactError) as caught:
        take(data, last=data, now=NOW + 1000 + 7 * 86400)
    assert caught.value.reason == "expired"


def test_a_rotation_that_the_body_has_not_signed() -> None:
    with pytest.raises(RotationError):
        TRUST.with_rotation(make_rotation(THIEF, SigningKey(b"\3" * 32).public, start=0, last_serial=0))


def as_allow(data: bytes) -> bytes:
    """A list of one block with that turned into an allow, which takes no key."""
    (shape,) = parse(data).meta["shapes"]
    was, put = (f'"shapes":[[{shape[0]},{n},'.encode() for n in (shape[1], shape[1] | Flag.ALLOW))
    assert data.count(was) == 1
    return repaired(data.replace(was, put))


def test_a_block_turned_into_an_allow_is_what_a_signature_is_for() -> None:
    """The artifact still loads under the key: without trust nothing would notice."""
    forged = as_allow(issue())
    assert not load(issue(), LIST_KEY).table.shape(0).allow
    assert load(forged, LIST_KEY).table.shape(0).allow
    assert take(forged, trust=Trust()).state == "ok"
    with pytest.raises(ArtifactError) as caught:
        take(forged)
    assert caught.value.reason == "bad signature"


# -- who stole the body's signing key


def test_after_the_rotation_the_stolen_key_signs_nothing_new() -> None:
    new = SigningKey(b"\3" * 32)
    trust = TRUST.with_rotation(make_rotation(BODY, new.public, start=NOW, last_serial=7))
    take(issue(serial=7), trust=trust)
    take(sign_artifact(issue(), new, serial=8), trust=trust)
    with pytest.raises(ArtifactError) as caught:
        take(issue("b.example", serial=8), trust=trust)
    assert caught.value.reason == "retired key"


def test_before_it_the_thief_can_sign_all_and_even_rotate_to_himself() -> None:
    """What makes a stolen key urgent; a filter that has taken the body's own statement is out of reach."""
    take(issue("b.example", serial=8))
    stolen = make_rotation(BODY, THIEF.public, start=NOW, last_serial=7)
    take(sign_artifact(issue(), THIEF, serial=9), trust=TRUST.with_rotation(stolen))
    own = make_rotation(BODY, SigningKey(b"\3" * 32).public, start=NOW, last_serial=7)
    with pytest.raises(RotationError, match="two rotations"):
        TRUST.with_rotation(own).with_rotation(stolen)


# -- who has an artifact and not its key

DICTIONARY = [f"{word}.example" for word in ("alpha", "bravo", "delta", "gamma")]
LISTED = DICTIONARY[1]
KEYED = (
    *(Section.DIGESTS, Section.BELOW, Section.LETTERS, Section.PARAMS, Section.NETWORKS, Section.SIEVE),
    *(Section.FILES, Section.PERCEPTUAL),
)


def files(guess: str) -> list[str]:
    """Lines that list an invented file by its digests."""
    content = guess.encode()
    digests = {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha1", "sha256")}
    return [f"{name}:{digest}" for name, digest in (digests | {"pdq": digests["sha256"]}).items()]


def texts(guess: str) -> Iterator[bytes]:
    """How a list might spell a guess."""
    labels = guess.split(".")
    words = [label for label in labels if len(label) > 3]  # shorter ones stand everywhere
    for text in (guess, *words, ".".join(reversed(labels)), f"||{guess}^", f"http://{guess}/"):
        yield text.encode()
        yield text.upper().encode()


def unkeyed(text: bytes) -> Iterator[bytes]:
    """The beginning of what anyone can compute of a text."""
    yield text
    yield zlib.crc32(text).to_bytes(4, "little")
    yield zlib.crc32(text).to_bytes(4, "big")
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b", "blake2s", "sha3_256"):
        yield hashlib.new(name, text).digest()[:8]
    for size in (8, 16, 32):
        yield hashlib.blake2b(text, digest_size=size).digest()[:8]


def test_nothing_of_an_entry_that_can_be_computed_without_the_key_is_in_it() -> None:
    data = compiled(LISTED, *files(LISTED), f"http://{LISTED}/{LISTED}", f"*/{LISTED}/x/*", "192.0.2.7 id=7")
    for guess in (*DICTIONARY, "192.0.2.7"):
        for text in texts(guess):
            found = [value for value in unkeyed(text) if value in data]
            assert not found, "what stands there could be looked up with a dictionary"
    assert bytes([192, 0, 2, 7]) not in data


def keyed_windows(data: bytes) -> set[bytes]:
    """All runs of half a digest in what is made of entries' texts."""
    sections = parse(data).sections
    parts = [bytes(sections[section]) for section in KEYED]
    half = DIGEST_SIZE // 2
    return {part[at : at + half] for part in parts for at in range(len(part) - half + 1)}


def test_with_a_wrong_key_no_guess_looks_better_than_another() -> None:
    target = compiled(LISTED, *files(LISTED))
    windows = keyed_windows(target)
    for line in (LISTED, *files(LISTED)):
        again = keyed_windows(compiled(line, *files("filler.example")))
        assert windows & again, "with the key, the right guess is seen"
    for wrong in (b"\0" * 32, b"\xff" * 32, LIST_KEY.id * 4, SECRET[::-1]):
        for guess in DICTIONARY:
            assert not windows & keyed_windows(compiled(guess, *files(guess), under=Key(wrong)))


def test_lists_of_one_shape_differ_in_keyed_bytes_alone() -> None:
    """So that whatever tells them apart takes the key."""
    one, other = (parse(compiled(guess, *files(guess))) for guess in DICTIONARY[:2])
    assert one.header.size == other.header.size
    assert one.meta == other.meta
    for section in set(Section) - set(KEYED):
        assert one.sections[section] == other.sections[section]
    for section in (Section.DIGESTS, Section.FILES, Section.PERCEPTUAL):
        assert one.sections[section] != other.sections[section]


def test_a_wrong_key_opens_nothing() -> None:
    data = compiled(LISTED, "192.0.2.7")
    with pytest.raises(ArtifactError, match="compiled under key"):
        load(data, Key(b"\0" * 32))
    for section in (Section.NETWORKS, Section.SIEVE):
        with pytest.raises(ArtifactError):
            Key(b"\0" * 32).unseal(bytes(parse(data).sections[section]))


def test_the_key_id_put_in_does_not_help() -> None:
    """A filter that was made to take a wrong key for the right one finds nothing, and says that it cannot."""
    wrong = Key(b"\0" * 32)
    data = bytearray(compiled(LISTED))
    data[24:32] = wrong.id
    with pytest.raises(ArtifactError, match="does not open under this key"):
        load(repaired(bytes(data)), wrong)


# -- who has both


def test_with_key_and_artifact_guesses_can_be_tested() -> None:
    """It is what a filter does; docs/security.md says so."""
    digests = bytes(parse(compiled(LISTED)).sections[Section.DIGESTS])
    assert [guess for guess in DICTIONARY if LIST_KEY.digest(domain_text(guess)) in digests] == [LISTED]


def test_ids_counts_and_categories_are_there_to_read() -> None:
    found = parse(compiled("a.example id=S-1 category=phishing", "b.example id=S-2"))
    assert bytes(found.sections[Section.IDS]) in (b"S-1S-2", b"S-2S-1")
    assert found.meta["by_category"] == {"": 1, "phishing": 1}
    assert found.meta["counts"] == {"domain": 2}
