"""Places: objects that are written whole, if nobody else was there first."""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port
from publish.publish_support import Clock, configured, deltas, leading, listed, offered
from urlward.publish import place as publish_place
from urlward.publish.lease import Lease, LeaseLostError
from urlward.publish.place import NEW, Folder, ListPlace, OvertakenError, PlaceError, open_place
from urlward.publish.rollout import Lists, read_rollouts


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A store that speaks S3, on this machine alone; its address."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    made = server.ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ListPlace:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import boto3

    boto3.client("s3").create_bucket(Bucket="lists")
    return open_place(f"s3://lists/{request.node.name.split('[')[0].replace('_', '-')}")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> ListPlace:
    return (
        open_place(str(tmp_path / "www")) if request.param == "folder" else request.getfixturevalue("bucket")
    )


def test_whoever_was_first_is_not_written_over(place: ListPlace) -> None:
    assert place.read("stable/a.ward") is None
    first = place.write("stable/a.ward", b"first", NEW)
    found = place.read("stable/a.ward")
    assert found is not None
    assert (found.data, found.tag) == (b"first", first)
    with pytest.raises(OvertakenError):
        place.write("stable/a.ward", b"other", NEW)
    second = place.write("stable/a.ward", b"third", first)
    assert second != first
    with pytest.raises(OvertakenError):
        place.write("stable/a.ward", b"other", first)
    with pytest.raises(OvertakenError):
        place.write("stable/b.ward", b"other", first)
    head = place.read("stable/a.ward", 2)
    assert head is not None
    assert (head.data, head.tag) == (b"th", second)
    place.write("stable/b.ward", b"", NEW)
    place.write(".publish/a.json", b"{}", NEW)
    assert place.names("stable") == ["a.ward", "b.ward"]
    assert place.names("nothing") == []
    place.remove("stable/b.ward")
    place.remove("stable/b.ward")
    assert place.names("stable") == ["a.ward"]


def test_of_many_writers_each_sees_what_it_takes_the_place_of(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    place.write(".publish/n", b"0", NEW)

    def add() -> None:
        for _ in range(25):
            while True:
                found = place.read(".publish/n")
                assert found is not None
                try:
                    place.write(".publish/n", str(int(found.data) + 1).encode(), found.tag)
                    break
                except OvertakenError:
                    continue

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = place.read(".publish/n")
    assert found is not None
    assert found.data == b"100"


def test_readers_see_the_old_or_the_new_and_web_servers_tell_them_apart(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    tag = place.write("stable/a.ward", b"a" * 100_000, NEW)
    path = tmp_path / "stable/a.ward"
    with path.open("rb") as before:
        second = path.stat().st_mtime
        place.write("stable/a.ward", b"b" * 100_000, tag)
        assert set(before.read()) == {ord("a")}
    assert int(path.stat().st_mtime) > int(second)


def test_nodes_may_read_what_is_for_them_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        place = Folder(tmp_path)
        for name in ("stable/a.ward", "versions/a/1.ward", ".publish/a.json"):
            place.write(name, b"", NEW)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "stable": 0o755, "stable/a.ward": 0o644,
        "versions": 0o700, "versions/a": 0o700, "versions/a/1.ward": 0o600,
        ".publish": 0o700, ".publish/a.json": 0o600,
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_writes_for_whose_folder_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    place = Folder(tmp_path)
    tag = place.write("versions/phish/1.ward", b"", NEW)
    place.write("versions/phish/1.ward", b"1", tag)
    place.write(".publish/phish.json", b"{}", NEW)
    found = list(tmp_path.rglob("*"))
    assert len(found) == 5
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(12345, 12346)}


def test_a_folder_that_somebody_keeps_locked_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_place, "LOCKED", 0.05)
    place = Folder(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(PlaceError, match="a publisher that hangs"):
            place.write("stable/a.ward", b"", NEW)
    finally:
        os.close(fd)
    place.write("stable/a.ward", b"", NEW)


def test_what_a_killed_writer_has_left_is_deleted(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    place.write("stable/a.ward", b"whole", NEW)
    (tmp_path / "stable/.a.ward.0a1b2c3d.tmp").write_bytes(b"ha")
    (tmp_path / ".theirs.tmp").write_bytes(b"not ours")
    place.prepare()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".theirs.tmp", "a.ward"]


def test_lists_in_a_bucket(bucket: ListPlace, tmp_path: Path) -> None:
    config, clock = configured(tmp_path), Clock()
    old, lists = leading(bucket, config, Clock()), [listed(range(n, 100 + n)) for n in range(3)]
    for data in lists[:2]:
        assert old.publish("phish", data)
    assert deltas(bucket) == deltas(bucket, "canary") == [1]
    assert old.roll_back("phish", why="wrong", who="Ann").serial == 3
    header = offered(bucket)
    assert header is not None
    assert header.serial == 3
    lease = Lease(bucket, 30, clock)
    assert not lease.take()
    clock.now += 30
    assert lease.take()
    new = Lists(bucket, config, lease)
    new.claim("phish")
    new.release("phish")
    assert new.publish("phish", lists[2])
    with pytest.raises(LeaseLostError):
        old.publish("phish", lists[1])
    assert deltas(bucket) == [1, 2, 3]
    (rollout,) = read_rollouts(bucket)
    assert (rollout.stable, rollout.token) == (4, 2)


def test_a_store_that_writes_over_whatever_is_there_is_not_used(
    bucket: ListPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        bucket.prepare()
    call = bucket._files.call_s3  # type: ignore[attr-defined]
    for ignored in ("IfMatch", "IfNoneMatch"):

        def deaf(method: str, ignored: str = ignored, **fields: Any) -> Any:
            return call(method, **{name: value for name, value in fields.items() if name != ignored})

        monkeypatch.setattr(bucket._files, "call_s3", deaf)  # type: ignore[attr-defined]
        with pytest.raises(PlaceError, match="the store ignores If-Match or If-None-Match"):
            bucket.prepare()


def test_a_bucket_that_is_away_is_one_clear_line(bucket: ListPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.write("stable/a.ward", b"", NEW)
    with pytest.raises(PlaceError, match=r"^s3://nothing-here: NoSuchBucket$"):
        open_place("s3://nothing-here").read("a")
    with pytest.raises(PlaceError, match=r"^s3://nothing-here: NoSuchBucket$"):
        open_place("s3://nothing-here").names("stable")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    away = open_place("s3://lists")
    with pytest.raises(PlaceError, match=r"^s3://lists: \w+$"):
        away.write("a", b"", NEW)


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="file"):
        open_place(str(tmp_path / "file"))
    place = Folder(tmp_path / "www")
    (tmp_path / "www/stable").write_text("")
    with pytest.raises(PlaceError, match="stable"):
        place.write("stable/a.ward", b"", NEW)
