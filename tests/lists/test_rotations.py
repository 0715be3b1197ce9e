import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lists.support import names_in
from obstacles import permissions_hold
from rows import each_row
from urlward.engine.errors import RotationError
from urlward.engine.signing import Rotation, SigningKey, make_rotation
from urlward.lists.source import SourceError
from urlward.lists.trust import Trust, restore_rotations, take_rotation

A, B, C, D = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
TRUST = Trust(frozenset([A.public]))


def hand_over(old: SigningKey, new: SigningKey, last_serial: int = 7) -> Rotation:
    return make_rotation(old, new.public, start=0, last_serial=last_serial)


def test_what_is_taken_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "trust"
    trust = TRUST
    for rotation in (hand_over(A, B), hand_over(B, C), hand_over(C, D)):
        trust = take_rotation(trust, rotation.text(), folder)
    assert names_in(folder) == sorted(f"{key.public}.rotation" for key in (A, B, C))
    restored = restore_rotations(TRUST, folder)
    assert set(restored.rotations) == set(trust.rotations)
    assert len(restored.rotations) == 3


def test_the_same_one_again_writes_nothing(tmp_path: Path) -> None:
    trust = take_rotation(TRUST, hand_over(A, B).text(), tmp_path)
    (path,) = tmp_path.iterdir()
    path.unlink()
    assert take_rotation(trust, hand_over(A, B).text(), tmp_path) is trust
    assert names_in(tmp_path) == []


def test_another_process_has_taken_it(tmp_path: Path) -> None:
    take_rotation(TRUST, hand_over(A, B).text(), tmp_path)
    assert take_rotation(TRUST, hand_over(A, B).text(), tmp_path).rotations == (hand_over(A, B),)
    with pytest.raises(RotationError, match="has been taken"):
        take_rotation(TRUST, hand_over(A, C).text(), tmp_path)
    assert restore_rotations(TRUST, tmp_path).rotations == (hand_over(A, B),)
    assert len(names_in(tmp_path)) == 1


def test_of_many_at_once_one_is_taken(tmp_path: Path) -> None:
    def attempt(n: int) -> bool:
        try:
            take_rotation(TRUST, hand_over(A, B, last_serial=n).text(), tmp_path)
        except RotationError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(attempt, range(16)))
    assert sum(taken) == 1
    assert restore_rotations(TRUST, tmp_path).rotations[0].last_serial == taken.index(True)
    assert len(names_in(tmp_path)) == 1


@each_row(
    ("data", "reason"),
    [
        (b"<!doctype html>", "not a rotation statement"),
        (b"urlward rotation 1\n" * 1000, "19000 bytes"),
        (hand_over(B, C).text(), "is not trusted"),
        (hand_over(A, B).text()[:-5], "not a rotation statement"),
    ],
    ids=["page", "long", "untrusted", "cut"],
)
def test_what_is_not_taken_is_not_kept(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(RotationError, match=reason):
        take_rotation(TRUST, data, tmp_path / "trust")
    assert names_in(tmp_path) == []


def test_what_cannot_be_kept_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "trust").write_text("a file")
    with pytest.raises(SourceError, match="trust"):
        take_rotation(TRUST, hand_over(A, B).text(), tmp_path / "trust")


def test_what_fits_no_more_is_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    take_rotation(TRUST, hand_over(A, B).text(), tmp_path)
    (tmp_path / "bad.rotation").write_text("half a statem")
    assert restore_rotations(Trust(frozenset([D.public])), tmp_path) == Trust(frozenset([D.public]))
    assert "bad.rotation: not counted: not a rotation statement" in caplog.text
    assert (
        f"{A.public}.rotation: not counted: a rotation from {A.public.short}, which is not trusted"
        in caplog.text
    )
    assert restore_rotations(TRUST, tmp_path).rotations == (hand_over(A, B),)


def test_the_operators_own_statement_goes_before_one_that_was_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take_rotation(TRUST, hand_over(A, B).text(), tmp_path)
    given = Trust(TRUST.keys, (hand_over(A, C),))
    assert restore_rotations(given, tmp_path) == given
    assert "two rotations from" in caplog.text


def test_nothing_kept(tmp_path: Path) -> None:
    assert restore_rotations(TRUST, tmp_path / "none") is TRUST


def test_a_trust_can_be_handed_to_another_process() -> None:
    trust = TRUST.with_rotation(hand_over(A, B))
    assert pickle.loads(pickle.dumps(trust)) == trust


@each_row("damage", ["flipped", "cut", "empty", "noise", "folder", "pipe", "unreadable"])
def test_a_damaged_one_is_set_aside_and_taken_anew(tmp_path: Path, damage: str) -> None:
    folder, rotation = tmp_path / "trust", hand_over(A, B)
    take_rotation(TRUST, rotation.text(), folder)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif damage == "unreadable":
        path.chmod(0)
    else:
        flipped = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
        path.write_bytes(
            {"flipped": flipped, "cut": data[:-20], "empty": b"", "noise": b"\xff\x00" * 80}[damage]
        )
    with permissions_hold():
        assert restore_rotations(TRUST, folder, tmp_path).rotations == ()
        assert len(names_in(tmp_path / "damaged")) == 1
        assert take_rotation(TRUST, rotation.text(), folder).rotations == (rotation,)
        assert restore_rotations(TRUST, folder, tmp_path).rotations == (rotation,)
