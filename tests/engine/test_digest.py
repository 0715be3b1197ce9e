import pytest

from engine.support import OTHER_SECRET, SECRET
from rows import each_row
from urlward.engine.digest import DIGEST_SIZE, SEGMENT_LETTERS, Key, Tokens, format_key, parse_key
from urlward.engine.errors import ArtifactError, KeyFileError


def test_a_key_file_comes_back_as_the_key() -> None:
    assert format_key(SECRET).endswith(b"\n")
    assert parse_key(format_key(SECRET)).id == Key(SECRET).id
    assert parse_key(b" \r\n" + SECRET.hex().upper().encode() + b"\n\n").id == Key(SECRET).id


@each_row(
    ("data", "reason"),
    [
        (b"", "a key has 32 bytes, this one has 0"),
        (b"00" * 31, "this one has 31"),
        (b"00" * 33, "this one has 33"),
        (b"0" * 63, "an odd number"),
        (b"g" * 64, "64 hexadecimal digits and nothing else"),
        (SECRET, "64 hexadecimal digits and nothing else"),
        (b"00 " * 32, "64 hexadecimal digits and nothing else"),
    ],
)
def test_what_is_no_key_file(data: bytes, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        parse_key(data)


def test_each_key_and_each_use_has_digests_of_its_own() -> None:
    one, other = Key(SECRET), Key(OTHER_SECRET)
    assert one.id != other.id
    assert one.digest("da.test") != other.digest("da.test")
    assert one.digest("da.test") == Key(SECRET).digest("da.test")
    assert len(one.digest("da.test")) == DIGEST_SIZE
    texts = ["example", "test", "gallery", "a", ""]
    assert len({tokens[t] for k in (one, other) for tokens in (k.labels, k.names) for t in texts}) == 20
    assert not {one.segments[t] for t in texts} & {other.segments[t] for t in texts}


def test_no_public_part_of_a_key_holds_the_secret() -> None:
    key = Key(SECRET)
    assert key.id not in SECRET
    assert SECRET[:8] not in key.id


def test_tokens_are_letters_of_fixed_number() -> None:
    key = Key(SECRET)
    for text in ("", "a", "a" * 1000):
        assert len(key.labels[text]) == len(key.names[text]) == 3
        assert len(key.segments[text]) == SEGMENT_LETTERS
        # Letters from U+0100 on stand for positions, and no text may imitate them.
        assert max(map(ord, key.labels[text] + key.names[text] + key.segments[text])) < 0x100
    assert len({c for i in range(2000) for c in key.segments[str(i)]}) <= 64


def test_tokens_remember_short_texts_and_forget_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.engine.digest._CACHED_TOKENS", 3)
    tokens = Tokens(SECRET)
    letters = [tokens[str(i)] for i in range(10)]
    assert len(tokens) <= 3
    assert [tokens[str(i)] for i in range(10)] == letters
    long = "a" * 257
    assert tokens[long] == tokens[long]
    assert long not in tokens


def test_a_fresh_key_is_the_same_key_and_remembers_nothing() -> None:
    key = Key(SECRET)
    letters = key.labels["secret"], key.names["secret"], key.segments["secret"]
    fresh = key.fresh()
    assert [len(fresh.labels), len(fresh.names), len(fresh.segments)] == [0, 0, 0]
    assert (fresh.labels["secret"], fresh.names["secret"], fresh.segments["secret"]) == letters
    assert fresh.labels["other"]
    assert "other" not in key.labels
    assert (fresh.id, fresh.digest("x")) == (key.id, key.digest("x"))
    assert key.unseal(fresh.seal(b"networks")) == b"networks"


def test_what_is_sealed_opens_under_its_key_alone() -> None:
    key = Key(SECRET)
    sealed = key.seal(b"192.0.2.0/24")
    assert b"192.0.2" not in sealed
    assert key.unseal(sealed) == b"192.0.2.0/24"
    assert sealed == key.seal(b"192.0.2.0/24"), "artifacts are reproducible"
    assert sealed[:12] != key.seal(b"192.0.2.0/25")[:12], "no nonce serves two contents"
    with pytest.raises(ArtifactError):
        Key(OTHER_SECRET).unseal(sealed)


def test_any_change_of_what_is_sealed_shows() -> None:
    key = Key(SECRET)
    sealed = key.seal(b"192.0.2.0/24")
    for at in range(len(sealed)):
        with pytest.raises(ArtifactError):
            key.unseal(sealed[:at])
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(ArtifactError):
            key.unseal(bytes(changed))
