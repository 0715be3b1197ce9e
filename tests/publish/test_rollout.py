"""Rollouts: versions, deltas, canaries, rollback, and publishers that are killed, replaced or out of room."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from lists.support import artifact, key_file
from publish.publish_support import (
    BODY,
    KEY,
    NODE,
    THEIRS,
    Clock,
    configured,
    deltas,
    leading,
    listed,
    offered,
)
from urlward.config import Config
from urlward.engine.artifact import parse
from urlward.engine.delta import apply_delta
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.engine.signing import check_signature, sign_artifact
from urlward.publish import rollout as publish_rollout
from urlward.publish.canaries import Sample, parse_sample
from urlward.publish.lease import Lease, LeaseLostError
from urlward.publish.place import Folder, OvertakenError, PlacedObject, PlaceError
from urlward.publish.rollout import PATIENCE, Lists, content_of, read_rollouts
from urlward.publish.run import told

LISTS = [listed(range(n, 100 + n)) for n in range(8)]


class Killed(BaseException):
    """What a test ends a publisher with."""


class Watched(Folder):
    """A folder in which something happens at one of the writes; serials may only rise there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes = 0
        self.at = -1
        self.happens: Callable[[], None] = lambda: None

    def write(self, name: str, data: bytes, over: str) -> str:
        self.writes += 1
        if self.writes - 1 == self.at:
            self.happens()
        before = self.read(name)
        tag = super().write(name, data, over)
        if name.endswith(".ward") and before is not None:
            assert parse(data).header.serial > parse(before.data).header.serial, name
        return tag


class Read(Watched):
    """Likewise as a version is read, for a delta or to be offered."""

    def read(self, name: str, size: int | None = None) -> PlacedObject | None:
        if name.startswith("versions/") and size is None:
            self.writes += 1
            if self.writes - 1 == self.at:
                self.happens()
        return super().read(name, size)

    def write(self, name: str, data: bytes, over: str) -> str:
        return Folder.write(self, name, data, over)


def whole(place: Folder) -> None:
    """What a node sees now leads it to a whole list, from wherever it is."""
    for channel in ("stable", "canary"):
        header = offered(place, channel)
        if header is None:
            continue
        assert check_signature(header) == BODY.public
        for serial in deltas(place, channel):
            delta = place.read(f"{channel}/phish.ward.{serial}.delta")
            old = place.read(f"versions/phish/{serial}.ward")
            assert delta is not None
            if old is not None:
                made = parse(apply_delta(parse(old.data), delta.data, KEY))
                assert check_signature(made.header) == BODY.public
                assert made.header.serial > serial


def content(place: Folder, channel: str = "stable") -> str:
    found = place.read(f"{channel}/phish.ward")
    assert found is not None
    return content_of(found.data)


def test_a_list_goes_to_all_with_deltas_from_the_last_versions(tmp_path: Path) -> None:
    place, config = Watched(tmp_path / "www"), configured(tmp_path, keep=3)
    lists = leading(place, config)
    for number, data in enumerate(LISTS):
        assert lists.publish("phish", data)
        assert not lists.publish("phish", data)
        whole(place)
        assert content(place) == content(place, "canary") == content_of(data)
        assert len(deltas(place)) == len(deltas(place, "canary")) == min(number, 3)
    assert len(place.names("versions/phish")) == 4
    (rollout,) = read_rollouts(place)
    assert [version.serial for version in rollout.versions] == [5, 6, 7, 8]
    assert (rollout.canary, rollout.stable, rollout.token) == (8, 8, 1)


def test_it_is_signed_anew_and_ends_with_the_bodys_own_day(tmp_path: Path) -> None:
    place, config = Folder(tmp_path / "www"), configured(tmp_path, valid_for=3600.0)
    theirs = sign_artifact(listed(range(20), serial=77, until=1_900_000_000), THEIRS)
    lists = leading(place, config)
    lists.publish("phish", theirs)
    header = offered(place)
    assert header is not None
    assert (header.serial, check_signature(header)) == (77, BODY.public)
    assert header.valid_until < 1_900_000_000
    lists.publish("phish", listed(range(21), until=1_600_000_000))
    header = offered(place)
    assert header is not None
    assert (header.serial, header.valid_until) == (78, 1_600_000_000)


def test_it_is_renewed_when_half_of_its_time_is_over_and_whatever_the_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, config = Watched(tmp_path / "www"), configured(tmp_path, valid_for=3600.0)
    lists, now = leading(place, config), 1_800_000_000.0
    monkeypatch.setattr(publish_rollout.time, "time", lambda: now)
    lists.publish("phish", LISTS[0])
    for step, serial in ((1700, 1), (200, 2), (-7 * 86_400, 3), (10 * 365 * 86_400, 4), (-86_400, 5)):
        now += step
        lists.renew("phish")
        lists.offer("phish")
        header = offered(place)
        assert header is not None
        assert header.serial == serial
        assert 1600 < header.valid_until - now <= 3600
        assert offered(place, "canary") == header
    lists.publish("phish", LISTS[1])
    header = offered(place)
    assert header is not None
    assert header.serial == 6


def test_what_is_renewed_all_the_time_leaves_the_one_before_to_go_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that had not changed for some terms could not be taken back: all that was kept was itself."""
    place, config = Watched(tmp_path / "www"), configured(tmp_path, valid_for=3600.0, keep=2)
    lists, now = leading(place, config), 1_800_000_000.0
    monkeypatch.setattr(publish_rollout.time, "time", lambda: now)
    lists.publish("phish", LISTS[0])
    lists.publish("phish", LISTS[1])
    for _ in range(6):
        now += 1900
        lists.renew("phish")
        lists.offer("phish")
        whole(place)
    assert len(place.names("versions/phish")) == 4
    (rollout,) = read_rollouts(place)
    assert {version.content for version in rollout.versions} == {content_of(each) for each in LISTS[:2]}
    lists.roll_back("phish", why="wrong", who="Ann")
    assert content(place) == content_of(LISTS[0])


@pytest.mark.parametrize("error", [Killed, lambda: PlaceError("No space left on device")])
def test_a_publisher_that_ends_between_any_two_writes(
    error: Callable[[], BaseException], tmp_path: Path
) -> None:
    for at in range(100):
        folder = tmp_path / str(at)
        place, config = Watched(folder), configured(tmp_path, keep=1)
        for data in LISTS[1:3]:
            leading(place, config, clock := Clock()).publish("phish", data)
            (folder / ".publish/lease.json").unlink()

        def end() -> None:
            raise error()

        place.happens, place.writes, place.at = end, 0, at
        try:
            lists = leading(place, config, clock)
            lists.publish("phish", LISTS[3])
        except (Killed, UrlwardError):
            pass
        else:
            break
        whole(place)
        assert content(place) in map(content_of, LISTS[2:4])
        place.at = -1
        (folder / ".publish/lease.json").unlink(missing_ok=True)
        lists = leading(place, config, clock)
        lists.claim("phish")
        lists.offer("phish")
        whole(place)
        lists.publish("phish", LISTS[3])
        lists.publish("phish", LISTS[4])
        whole(place)
        assert content(place) == content(place, "canary") == content_of(LISTS[4])
    assert at == 7


def take_over(place: Watched, config: Config, clock: Clock) -> None:
    place.at = -1
    lease = Lease(place, 30, clock)
    assert not lease.take()
    clock.now += 30
    assert lease.take()
    new = Lists(place, config, lease)
    new.claim("phish")
    new.offer("phish")
    new.publish("phish", LISTS[2])


def test_who_led_before_writes_nothing_any_more_wherever_it_was_held_up(tmp_path: Path) -> None:
    for at in range(100):
        place, config = Watched(tmp_path / str(at)), configured(tmp_path, keep=2)
        stopped, clock = Clock(), Clock()
        old = leading(place, config, stopped)
        old.publish("phish", LISTS[0])

        place.happens, place.writes, place.at = partial(take_over, place, config, clock), 0, at
        try:
            old.publish("phish", LISTS[1])
        except (LeaseLostError, OvertakenError):
            was_refused = True
        else:
            was_refused = False
        if place.at == at:
            break
        # It may find the other's work done, and then it has written nothing of its own since.
        assert was_refused or content(place) == content_of(LISTS[2])
        whole(place)
        assert content(place) == content(place, "canary") == content_of(LISTS[2])
        (rollout,) = read_rollouts(place)
        assert rollout.token == 2
        with pytest.raises(LeaseLostError):
            old.publish("phish", LISTS[3])
    assert at >= 5


class Listed(Watched):
    """Likewise as names are asked for, of which some are to be deleted."""

    def names(self, folder: str) -> list[str]:
        self.writes += 1
        if self.writes - 1 == self.at:
            self.happens()
        return super().names(folder)

    def write(self, name: str, data: bytes, over: str) -> str:
        return Folder.write(self, name, data, over)


def test_who_led_before_deletes_nothing_of_who_leads(tmp_path: Path) -> None:
    refused = 0
    for at in range(100):
        folder = tmp_path / str(at)
        place, config, clock = Listed(folder), configured(tmp_path, keep=2), Clock()
        old = leading(place, config, Clock())
        for text in LISTS[:3]:
            old.publish("phish", text)
        left: set[Path] = set()

        def happens(
            place: Listed = place, config: Config = config, clock: Clock = clock, left: set[Path] = left
        ) -> None:
            take_over(place, config, clock)
            Lists(place, config).roll_back("phish", why="wrong", who="Ann")
            left.update(path for path in place._path.rglob("*") if path.is_file())

        place.happens, place.writes, place.at = happens, 0, at
        try:
            old.publish("phish", LISTS[3])
        except (LeaseLostError, OvertakenError):
            refused += 1
        if place.at == at:
            break
        assert {path for path in left if not path.exists()} == set()
    assert at >= 3
    assert refused


def test_a_new_leader_has_said_so_before_there_is_anything_new(tmp_path: Path) -> None:
    place, config, clock = Watched(tmp_path), configured(tmp_path), Clock()
    old = leading(place, config, Clock())
    old.publish("phish", LISTS[0])
    lease = Lease(place, 30, clock)
    assert not lease.take()
    clock.now += 30
    assert lease.take()
    Lists(place, config, lease).claim("phish")
    with pytest.raises(LeaseLostError, match="another publisher has led since"):
        old.publish("phish", LISTS[1])
    assert content(place) == content_of(LISTS[0])


def test_what_is_offered_goes_above_whatever_is_there(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    found = place.read("stable/phish.ward")
    assert found is not None
    # By one whose clock was years ahead, or after a copy of old of the records was put back.
    place.write("stable/phish.ward", sign_artifact(LISTS[5], BODY, serial=4_000_000_000), found.tag)
    lists.offer("phish")
    header = offered(place)
    assert header is not None
    assert (header.serial, content(place)) == (4_000_000_001, content_of(LISTS[0]))
    (tmp_path / ".publish/phish.json").write_text("edited")
    lists.claim("phish")
    lists.offer("phish")
    lists.release("phish")
    lists.publish("phish", LISTS[1])
    header = offered(place)
    assert header is not None
    assert (header.serial, content(place)) == (4_000_000_002, content_of(LISTS[1]))


@pytest.mark.parametrize("how", ["edited", "deleted"])
@pytest.mark.parametrize("canary", [False, True])
def test_a_list_whose_record_is_lost_is_held_as_it_is_offered(
    tmp_path: Path, how: str, *, canary: bool
) -> None:
    """The one that was held since it was wrong was a first version again, and for all."""
    place, config = Watched(tmp_path), configured(tmp_path, canary=canary)
    lists = leading(place, config)
    for data in LISTS[:2]:
        lists.publish("phish", data)
    lists.roll_back("phish", why="wrong", who="Ann", serial=1)
    record = tmp_path / ".publish/phish.json"
    record.write_text("{") if how == "edited" else record.unlink()
    serials = [found and found.serial for found in (offered(place), offered(place, "canary"))]
    for data in LISTS[1:3]:
        assert not lists.publish("phish", data)
        lists.offer("phish")
        lists.renew("phish")
    assert [found and found.serial for found in (offered(place), offered(place, "canary"))] == serials
    assert content(place) == content_of(LISTS[0])
    held = lists.rollout("phish")
    assert told(held) == told(lists.rollout("phish")), "which is logged where it is another"
    assert told(held).startswith("held: its record is gone or damaged")
    assert [each.name for each in read_rollouts(place)] == ["phish"]
    lists.release("phish")
    assert lists.publish("phish", LISTS[2])
    assert content(place) == content_of(LISTS[2])


def test_a_body_cannot_use_up_the_serials(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    for number in range(2):
        lists.publish("phish", listed(range(100 + number), serial=2**64 - 1 - number))
        header = offered(place)
        assert header is not None
        assert header.serial == 1 + number


@pytest.mark.parametrize("theirs", [b"", b"half a list", sign_artifact(LISTS[5], THEIRS, serial=2**64 - 1)])
def test_what_others_have_put_there_is_written_over(theirs: bytes, tmp_path: Path) -> None:
    place, config = Folder(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    for channel in ("stable", "canary"):
        (tmp_path / channel / "phish.ward").write_bytes(theirs)
    lists.offer("phish")
    assert content(place) == content(place, "canary") == content_of(LISTS[0])
    (tmp_path / "stable/phish.ward").write_bytes(theirs)
    lists.publish("phish", LISTS[1])
    header = offered(place)
    assert header is not None
    assert (header.serial, content(place)) == (2, content_of(LISTS[1]))


def test_what_the_key_before_has_signed_is_offered_and_written_no_more(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    for data in LISTS[:2]:
        lists.publish("phish", data)
    (tmp_path / "body").write_bytes(THEIRS.pem())
    lists = Lists(place, config)
    place.writes = 0
    for _ in range(2):
        lists.offer("phish")
    assert place.writes == 0
    lists.publish("phish", LISTS[2])
    header = offered(place)
    assert header is not None
    assert (header.serial, check_signature(header)) == (3, THEIRS.public)


def test_a_version_that_somebody_has_deleted_is_issued_anew(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    place.remove("versions/phish/1.ward")
    place.remove("stable/phish.ward")
    with pytest.raises(ArtifactError, match=r"versions/phish/1\.ward is gone"):
        lists.offer("phish")
    assert lists.publish("phish", LISTS[0])
    assert content(place) == content_of(LISTS[0])


@pytest.mark.parametrize("size", [0, 200, -1])
def test_a_version_that_is_damaged_is_offered_to_nobody_and_issued_anew(tmp_path: Path, size: int) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    version = tmp_path / "versions/phish/1.ward"
    version.write_bytes(version.read_bytes()[:size])
    offered = place.read("stable/phish.ward")
    assert offered is not None
    lists.offer("phish")
    assert place.read("stable/phish.ward") == offered, "what is offered stays"
    place.remove("stable/phish.ward")
    with pytest.raises(ArtifactError, match=r"versions/phish/1\.ward is damaged: "):
        lists.offer("phish")
    assert place.read("stable/phish.ward") is None
    assert lists.publish("phish", LISTS[0])
    assert content(place) == content_of(LISTS[0])
    assert not lists.publish("phish", LISTS[0])
    with pytest.raises(ArtifactError, match=r"versions/phish/1\.ward is damaged: "):
        lists.roll_back("phish", why="wrong", who="Ann", serial=1)


def test_all_go_back_whoever_leads_and_stay_until_it_is_released(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    with pytest.raises(UrlwardError, match="phish: no such version is kept; there are: none"):
        lists.roll_back("phish", why="wrong", who="Ann")
    for data in LISTS[:3]:
        lists.publish("phish", data)
    version = Lists(Folder(tmp_path), config).roll_back("phish", why="wrong", who="Ann")
    assert version.serial == 4
    whole(place)
    assert content(place) == content(place, "canary") == content_of(LISTS[1])
    assert deltas(place) == [1, 2, 3]
    # It is held for whoever leads, whatever the feed has.
    assert not lists.publish("phish", LISTS[2])
    assert not lists.publish("phish", LISTS[3])
    (rollout,) = read_rollouts(place)
    assert rollout.held is not None
    assert (rollout.held.who, rollout.held.reason) == ("Ann", "wrong")
    # And again, to the one before that, never to one that was taken back; or forth, by its serial.
    assert lists.roll_back("phish", why="that too", who="Ann").serial == 5
    assert content(place) == content_of(LISTS[0])
    with pytest.raises(UrlwardError, match="no such version"):
        lists.roll_back("phish", why="none before", who="Ann")
    assert lists.roll_back("phish", why="the last", who="Ann", serial=3).serial == 6
    assert content(place) == content_of(LISTS[2])
    assert lists.roll_back("phish", why="the first", who="Ann", serial=1).serial == 7
    assert content(place) == content_of(LISTS[0])
    with pytest.raises(UrlwardError, match="no such version"):
        lists.roll_back("phish", why="none", who="Ann", serial=9)
    lists.release("phish")
    with pytest.raises(UrlwardError, match="phish: not held"):
        lists.release("phish")
    assert lists.publish("phish", LISTS[3])
    assert content(place) == content_of(LISTS[3])


def test_nobody_goes_back_to_a_list_that_nodes_have_no_key_for(tmp_path: Path) -> None:
    place, config = Folder(tmp_path / "www"), configured(tmp_path)
    other = b"another list key, of 32 bytes..."
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    key_file(tmp_path / "lists.key", other)
    lists.publish("phish", artifact(["h9.example"], other, "phish", serial=2))
    with pytest.raises(UrlwardError, match="phish: serial 1 is under a list key that nodes no longer have"):
        lists.roll_back("phish", why="wrong", who="Ann")
    # Where it was changed by mistake, the way back is there once the key is.
    key_file(tmp_path / "lists.key")
    assert lists.roll_back("phish", why="wrong", who="Ann").serial == 3
    assert content(place) == content_of(LISTS[0])


def test_two_who_go_back_in_the_same_moment(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    for data in LISTS[:3]:
        lists.publish("phish", data)
    place.at = place.writes + 1  # the record, behind the version
    place.happens = lambda: Lists(Folder(tmp_path), config).roll_back("phish", why="it", who="Bob")
    with pytest.raises(UrlwardError, match="phish: held in the same moment: it"):
        lists.roll_back("phish", why="wrong", who="Ann")
    assert content(place) == content_of(LISTS[1])
    # Whoever publishes meanwhile is in nobody's way.
    lists.release("phish")
    place.at = place.writes + 1
    place.happens = lambda: lists.publish("phish", LISTS[3])
    Lists(place, config).roll_back("phish", why="wrong", who="Ann")
    assert content(place) == content_of(LISTS[1])


def test_a_list_goes_back_once_where_the_answer_to_a_write_was_lost(tmp_path: Path) -> None:
    config = configured(tmp_path)
    lists = leading(Folder(tmp_path), config)
    for data in LISTS[:3]:
        lists.publish("phish", data)

    class Deaf(Folder):
        """Tries a write again whose answer was lost, as libraries for buckets do."""

        def write(self, name: str, data: bytes, over: str) -> str:
            tag = super().write(name, data, over)
            return super().write(name, data, over) if name.endswith("phish.json") else tag

    Lists(Deaf(tmp_path), config).roll_back("phish", why="wrong", who="Ann")
    place = Folder(tmp_path)
    assert content(place) == content_of(LISTS[1])
    (rollout,) = read_rollouts(place)
    assert rollout.held is not None


def test_to_go_back_waits_for_no_delta_and_none_leads_to_what_is_taken_back(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path)
    lists = leading(place, config)
    for data in LISTS[:3]:
        lists.publish("phish", data)

    def end() -> None:
        raise Killed

    # The version, the record, and the artifacts for all and for canaries: the fifth would be a delta.
    place.happens, place.writes, place.at = end, 0, 4
    with pytest.raises(Killed):
        lists.roll_back("phish", why="wrong", who="Ann")
    assert content(place) == content(place, "canary") == content_of(LISTS[1])
    assert deltas(place) == deltas(place, "canary") == []


def test_no_delta_of_who_was_at_it_leads_to_what_is_taken_back_meanwhile(tmp_path: Path) -> None:
    """Nodes go by deltas first: they came to have what an operator had just taken back."""
    for at in range(100):
        place, config = Read(tmp_path / str(at)), configured(tmp_path, keep=3)
        lists = leading(place, config)
        for data in LISTS[:2]:
            lists.publish("phish", data)

        def back(place: Folder = place, config: Config = config) -> None:
            place.at = -1
            with suppress(UrlwardError):  # before the record there is nothing to take back
                Lists(place, config).roll_back("phish", why="wrong", who="Ann")

        place.happens, place.writes, place.at = back, 0, at
        lists.publish("phish", LISTS[2])
        is_over, place.at = place.at == at, -1
        lists.offer("phish")
        for channel in "stable", "canary":
            header = offered(place, channel)
            assert header is not None
            for serial in deltas(place, channel):
                delta = place.read(f"{channel}/phish.ward.{serial}.delta")
                old = place.read(f"versions/phish/{serial}.ward")
                assert delta is not None
                assert old is not None
                assert parse(apply_delta(parse(old.data), delta.data, KEY)).header == header, at
        if is_over:
            break
    assert at >= 3


# --- canaries


@pytest.mark.parametrize("line", ['urlward_blocks_total{list="phish"} -1', "urlward_errors_total 1e308"])
def test_counts_that_are_none(line: str) -> None:
    """Of sums without end the record could not be read again; of what is below zero nothing became."""
    with pytest.raises(ValueError, match="not what is counted"):
        parse_sample(f"{line}\n" + 'urlward_errors_total{kind="x"} 1e308\n' * ("errors" in line), "phish")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999"])
def test_a_number_that_is_none_is_not_counted(value: str) -> None:
    """It ended each look by an error, so that the version was neither for all nor held."""
    lines = (
        f'urlward_list_serial{{list="phish"}} {value}',
        f'urlward_blocks_total{{list="phish"}} {value}',
        'urlward_requests_total{stage="match"} 7',
    )
    assert parse_sample("\n".join(lines) + "\n", "phish") == Sample(requests=7.0)


def sample(serial: int, requests: float = 10_000, **counters: float) -> Sample:
    return Sample(serial, "ok", requests, **({"blocks": 100.0, "faults": 0.0} | counters))


def tried(tmp_path: Path, **publish: float) -> tuple[Folder, Lists]:
    """A second version that the canary alone has."""
    place, config = Watched(tmp_path), configured(tmp_path, canary=True, observe=60.0, **publish)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    assert (
        content(place) == content(place, "canary") == content_of(LISTS[0])
    )  # who has none has no time to lose
    lists.publish("phish", LISTS[1])
    assert content(place) == content_of(LISTS[0])
    assert content(place, "canary") == content_of(LISTS[1])
    return place, lists


def test_all_have_it_when_canaries_have_fared_well_for_long_enough(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    assert lists.look("phish", {NODE: "refused: no connection"}, 50) == ""
    assert lists.look("phish", {NODE: sample(1)}, 50) == ""  # it has it not in force yet
    assert lists.look("phish", {NODE: sample(2)}, 50) == ""
    assert content(place) == content_of(LISTS[0])
    said = lists.look("phish", {NODE: sample(2, 20_000, blocks=210)}, 20)
    assert said == "serial 2 is offered to all, after 70s"
    assert content(place) == content_of(LISTS[1])
    assert offered(place) == offered(place, "canary")
    whole(place)
    assert lists.look("phish", {NODE: "gone"}, 1000) == ""


@pytest.mark.parametrize(
    ("counters", "said"),
    [
        ({"blocks": 400}, "300 blocks of 10000 requests, where 1.00% was usual"),
        ({"faults": 100}, "100 faults of 10000 requests, where 0.00% was usual"),
        ({"objections": 30}, "30 objections of 10000 requests, where 0.00% was usual"),
    ],
)
def test_a_canary_that_fares_ill_keeps_it_from_all(
    counters: dict[str, float], said: str, tmp_path: Path
) -> None:
    place, lists = tried(tmp_path)
    lists.look("phish", {NODE: sample(2)}, 30)
    text = lists.look("phish", {NODE: sample(2, 20_000, **counters)}, 30)
    assert text == f"serial 2 is held and withdrawn from the canaries: {NODE}: {said}"
    # The canaries have what the others have, by a serial above; nothing else goes on by itself.
    assert content(place) == content(place, "canary") == content_of(LISTS[0])
    header = offered(place, "canary")
    assert header is not None
    assert header.serial == 3
    whole(place)
    assert lists.look("phish", {NODE: sample(3)}, 1000) == ""
    assert not lists.publish("phish", LISTS[1])
    assert not lists.publish("phish", LISTS[2])
    # An operator who knows better.
    assert lists.promote("phish").serial == 4
    assert content(place) == content(place, "canary") == content_of(LISTS[1])
    with pytest.raises(UrlwardError, match="no version waits"):
        lists.promote("phish")


def test_what_was_held_is_tried_again_once_it_is_released(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    lists.look("phish", {NODE: sample(2)}, 30)
    lists.look("phish", {NODE: sample(2, 20_000, blocks=9_000)}, 30)
    lists.release("phish")
    assert content(place) == content(place, "canary") == content_of(LISTS[0])
    assert lists.publish("phish", LISTS[1])
    assert content(place) == content_of(LISTS[0])
    assert content(place, "canary") == content_of(LISTS[1])
    assert lists.promote("phish").serial == 4
    assert content(place) == content_of(LISTS[1])


@pytest.mark.parametrize("answer", ["timeout: not done", sample(1, 10_000)])
def test_a_canary_that_does_not_come_to_have_it_keeps_it_from_all(
    answer: "Sample | str", tmp_path: Path
) -> None:
    place, lists = tried(tmp_path)
    for _ in range(PATIENCE):
        assert lists.look("phish", {NODE: answer}, 60) == ""
    assert "is held and withdrawn" in lists.look("phish", {NODE: answer}, 60)
    assert content(place) == content_of(LISTS[0])


def test_a_canary_that_goes_on_beginning_anew_keeps_it_from_all(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    for requests in (10_000, 500, 400):
        assert lists.look("phish", {NODE: sample(2, requests, blocks=0)}, 5) == ""
    assert lists.look("phish", {NODE: sample(2, 300, blocks=0)}, 5).endswith("has begun anew 3 times")
    assert content(place) == content_of(LISTS[0])


def test_what_is_usual_at_a_canary_is_known_when_it_has_begun_anew(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    lists.look("phish", {NODE: sample(2, 10_000, blocks=2_000)}, 10)
    lists.look("phish", {NODE: sample(2, 0, blocks=0)}, 10)
    assert lists.look("phish", {NODE: sample(2, 10_000, blocks=2_000)}, 10) == ""
    lists.promote("phish")
    lists.publish("phish", LISTS[2])
    lists.look("phish", {NODE: sample(3, 0, blocks=0)}, 10)  # and before it has the next one
    assert lists.look("phish", {NODE: sample(3, 10_000, blocks=2_000)}, 10) == ""
    said = lists.look("phish", {NODE: sample(3, 20_000, blocks=10_000)}, 10)
    assert said.endswith("10000 blocks of 20000 requests, where 20.00% was usual")
    assert content(place) == content_of(LISTS[1])


def test_chance_keeps_nothing_from_anybody(tmp_path: Path) -> None:
    _, lists = tried(tmp_path)
    lists.look("phish", {NODE: sample(2, 0, blocks=0)}, 10)
    assert lists.look("phish", {NODE: sample(2, 8, blocks=8, faults=2, objections=2)}, 10) == ""
    assert lists.look("phish", {NODE: sample(2, 10_000, blocks=60, faults=15, objections=9)}, 10) == ""


def test_what_comes_while_one_is_tried_waits_for_it(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    for step in range(3):
        # A feed that changes faster than a version is tried would never come to anybody else.
        assert not lists.publish("phish", LISTS[2 + step])
        assert content(place, "canary") == content_of(LISTS[1])
        lists.look("phish", {NODE: sample(2)}, 25)
    assert content(place) == content_of(LISTS[1])
    assert lists.publish("phish", LISTS[4])
    assert content(place, "canary") == content_of(LISTS[4])


def test_a_rollback_takes_it_from_the_canaries_first(tmp_path: Path) -> None:
    place, lists = tried(tmp_path)
    lists.roll_back("phish", why="wrong", who="Ann")
    assert content(place) == content(place, "canary") == content_of(LISTS[0])
    assert offered(place) == offered(place, "canary")


def test_a_list_of_protected_hosts_is_not_even_tried(tmp_path: Path) -> None:
    place, config = Watched(tmp_path), configured(tmp_path, canary=True)
    lists = leading(place, config)
    lists.publish("phish", LISTS[0])
    assert not lists.publish(
        "phish", listed(range(150), more=["lencr.org", "||localhost^", "http://pki.goog/a"])
    )
    (rollout,) = read_rollouts(place)
    assert rollout.held is not None
    assert rollout.held.reason == "2 protected hosts would be blocked whole"
    assert "lencr" not in (tmp_path / ".publish/phish.json").read_text()
    assert content(place) == content(place, "canary") == content_of(LISTS[0])
    assert lists.promote("phish").released
    assert content(place) != content_of(LISTS[0])
