import stat
from pathlib import Path

import pytest

from lists.support import SECRET, names_in
from urlward.engine.errors import KeyFileError
from urlward.engine.signing import SigningKey
from urlward.lists.trust import new_signing_key, read_public_key, read_signing_key
from urlward.state.keys import write_key_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_pair_of_files(tmp_path: Path) -> None:
    key = new_signing_key(tmp_path / "body")
    assert names_in(tmp_path) == ["body", "body.pub"]
    assert mode(tmp_path / "body") == 0o600
    assert not mode(tmp_path / "body.pub") & 0o133
    assert read_signing_key(tmp_path / "body").public == key.public == read_public_key(tmp_path / "body.pub")
    assert new_signing_key(tmp_path / "other").public != key.public


@pytest.mark.parametrize("there", ["body", "body.pub"])
def test_neither_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_bytes(b"kept")
    with pytest.raises(KeyFileError, match=f"{there}: there already"):
        new_signing_key(tmp_path / "body")
    assert names_in(tmp_path) == [there]
    assert (tmp_path / there).read_bytes() == b"kept"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "body.pub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="there already"):
        new_signing_key(tmp_path / "body")
    assert names_in(tmp_path) == ["body.pub"]


def test_where_none_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="none/body: No such file"):
        new_signing_key(tmp_path / "none" / "body")
    with pytest.raises(KeyFileError, match="null"):
        write_key_file(Path("a\0b"), b"", 0o600)


@pytest.mark.parametrize("read", [read_signing_key, read_public_key])
def test_what_cannot_be_read(tmp_path: Path, read: object) -> None:
    assert callable(read)
    for path, reason in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "null"),
    ]:
        with pytest.raises(KeyFileError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_the_wrong_half(tmp_path: Path) -> None:
    (tmp_path / "private").write_bytes(SigningKey(SECRET).pem())
    (tmp_path / "public").write_bytes(SigningKey(SECRET).public.pem())
    with pytest.raises(KeyFileError, match="private: a private key where the public one"):
        read_public_key(tmp_path / "private")
    with pytest.raises(KeyFileError, match="public: not a private key"):
        read_signing_key(tmp_path / "public")
