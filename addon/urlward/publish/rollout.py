"""Rollout: which version of a list is offered to whom, and how that is changed.

Layout of a place, for a list ``NAME``; nodes read ``canary`` and ``stable`` alone:

=====================================  ==================================================================
``stable/NAME.ward``                   the version for all
``stable/NAME.ward.SERIAL.delta``      from an earlier version to it, as feeds look for it
``canary/NAME.ward``, ``….delta``      likewise, the version that is tried
``versions/NAME/SERIAL.ward``          each version that is kept; written once, never changed
``.publish/NAME.json``                 which versions there are, which is offered where, and why (`Rollout`)
``.publish/lease.json``                who leads (`urlward.publish.lease`)
=====================================  ==================================================================

The record in ``.publish`` is the truth, changed by compare and swap; `Lists.offer` makes the two folders for
nodes agree with it, as often as need be. So whoever is killed anywhere leaves a good state: a version that no
record has, or a record that the next offer catches up with. In each folder deltas are written before the
artifact, which is the pointer that nodes go by; it is replaced whole, and its serial only rises. To go back
is to issue an earlier version anew.
"""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import structs

from urlward.config import Config, PublishTable
from urlward.engine.artifact import HEADER_SIZE, parse, read_header
from urlward.engine.delta import make_delta
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, KeyFileError, UrlwardError
from urlward.engine.signing import MAX_SERIAL, SigningKey, check_signature, sign_artifact
from urlward.lists.trust import read_signing_key
from urlward.publish.canaries import (
    Sample,
    has_begun_anew,
    judge,
    protected_hosts,
    protected_listed,
)
from urlward.publish.lease import NAME as LEASE
from urlward.publish.lease import Lease, LeaseLostError
from urlward.publish.place import (
    CANARY,
    CONTROL,
    NEW,
    STABLE,
    VERSIONS,
    ListPlace,
    OvertakenError,
    PlacedObject,
)
from urlward.state.keys import read_key
from urlward.units import in_words

PATIENCE = 3
"""Times the observation for which canaries may take to have a list, or to answer."""

RESTARTS = 2
"""Times that a canary's filter may begin anew while it is watched."""

_HIGHEST = MAX_SERIAL // 2
"""Serial of a body's own list that is kept: above it there has to be room for all that follow."""

_TRIES = 20

_LOST = (
    "its record is gone or damaged, and nobody knows whether somebody has held it: what is offered stays, "
    "and a release offers the feed's list to all"
)


class PublishedVersion(msgspec.Struct):
    """Version of a list.

    Attributes:
        serial: of it.
        content: digest of all but its header: a list that is issued anew has the same.
        entries: number of them.
        at: when it was issued, seconds since 1970-01-01 UTC.
        until: when the feed's own list ends, likewise; 0 for never.
        released: whether it was offered to all.
        protected: hosts that are protected, and it would block whole.
        taken_back: whether somebody went back from it, so that nobody goes back to it but by its serial.
    """

    serial: int
    content: str
    entries: int
    at: float
    until: int = 0
    released: bool = False
    protected: int = 0
    taken_back: bool = False


class HeldRollout(msgspec.Struct):
    """Stop of a rollout: nothing new is offered until an operator releases it.

    Attributes:
        reason: why.
        who: an operator; empty where a guard did it.
        at: when, seconds since 1970-01-01 UTC; 0 where nobody knows.
    """

    reason: str
    who: str
    at: float


class Rollout(msgspec.Struct):
    """Record of a list.

    Attributes:
        name: of the list.
        token: of the lease under which it was written last.
        source: content of the feed's list that was published last.
        versions: that are kept, the lowest serial first.
        canary, stable: serials that are offered; 0 for none.
        watched: seconds for which every canary has had the one that is tried.
        waited: seconds for which one of them has not.
        waiting: why.
        before: what each canary had counted (`counted`) as it came into force there.
        latest: counters of each canary as they were seen last, also with earlier versions.
        carried: what it had counted before it began anew.
        restarts: times that each has begun anew since.
        held: why it is held.
    """

    name: str
    token: int = 0
    source: str = ""
    versions: list[PublishedVersion] = []
    canary: int = 0
    stable: int = 0
    watched: float = 0.0
    waited: float = 0.0
    waiting: str = ""
    before: dict[str, Sample] = {}
    latest: dict[str, Sample] = {}
    carried: dict[str, Sample] = {}
    restarts: dict[str, int] = {}
    held: HeldRollout | None = None

    def version(self, serial: int) -> PublishedVersion | None:
        """The version of a serial; None where it is not kept."""
        return next((version for version in self.versions if version.serial == serial), None)

    def content(self, serial: int) -> str:
        """Content of the version of a serial; empty where it is not kept."""
        version = self.version(serial)
        return "" if version is None else version.content

    @property
    def is_tried(self) -> bool:
        """Whether canaries have a version that others have not yet."""
        return self.held is None and self.canary != self.stable

    @property
    def state(self) -> Literal["offered", "tried", "held"]:
        """State in a word: the same is offered to all, another to canaries, or nothing new."""
        if self.held is not None:
            return "held"
        return "tried" if self.is_tried else "offered"

    @property
    def entries(self) -> int:
        """Number of entries of the version for all."""
        version = self.version(self.stable)
        return 0 if version is None else version.entries

    @property
    def waits_for_all(self) -> PublishedVersion | None:
        """The version that may be promoted: that canaries have, or that a guard has held; None for none."""
        if self.is_tried:
            return self.version(self.canary)
        if self.held is None or self.held.who:
            return None
        stable = self.content(self.stable)
        withdrawn = [each for each in self.versions if not each.released and each.content != stable]
        return withdrawn[-1] if withdrawn else None

    def observed(self, config: Config) -> float:
        """Share of its time for which every canary has had the version that is tried."""
        assert config.publish is not None
        return min(self.watched / config.publish.observe, 1.0) if self.is_tried else 0.0

    def try_on_canaries(self, serial: int) -> None:
        """Offer a version to canaries."""
        self.canary, self.watched, self.waited, self.waiting = serial, 0.0, 0.0, ""
        self.before, self.restarts = {}, {}

    def count(self, url: str, sample: Sample) -> bool:
        """Take the counters of a canary; returns whether they have begun at zero since the last ones."""
        latest = self.latest.get(url, Sample())
        if anew := has_begun_anew(latest, sample):
            self.carried[url] = latest.on_top_of(self.carried.get(url, Sample()))
        self.latest[url] = sample
        return anew

    def counted(self, url: str) -> Sample:
        """All that a canary is known to have counted, by which it is told what is usual there."""
        return self.latest.get(url, Sample()).on_top_of(self.carried.get(url, Sample()))

    def offer_to_all(self, serial: int) -> None:
        """Offer a version to all."""
        self.try_on_canaries(serial)
        self.stable = serial
        for version in self.versions:
            version.released |= version.serial == serial


def content_of(data: bytes) -> str:
    """Digest of an artifact without its header, which alone is new where it is issued anew."""
    return blake2b(memoryview(data)[HEADER_SIZE:], digest_size=16).hexdigest()


def record_name(name: str) -> str:
    """Name of a list's record in a place."""
    return f"{CONTROL}/{name}.json"


def read_rollouts(place: ListPlace) -> list[Rollout]:
    """Read the records of all lists, also of those that are offered and whose record is gone.

    Raises:
        PlaceError: the place cannot be used.
    """
    records = [name for name in place.names(CONTROL) if f"{CONTROL}/{name}" != LEASE]
    names = {name.removesuffix(".json") for name in records if name.endswith(".json")}
    names |= {name.removesuffix(".ward") for name in place.names(STABLE) if name.endswith(".ward")}
    found = [_read(place, name)[0] for name in sorted(names)]
    return [rollout for rollout in found if rollout.versions or rollout.held is not None]


def _read(place: ListPlace, name: str) -> tuple[Rollout, str]:
    """Read a list's record, and its tag; one that is lost is begun anew, above the serials on offer."""
    found = place.read(record_name(name))
    if found is not None:
        with suppress(msgspec.MsgspecError):  # it is written whole, so somebody has edited it
            return msgspec.json.decode(found.data, type=Rollout), found.tag
    rollout = Rollout(name)
    if place.read(f"{STABLE}/{name}.ward", 1) is not None:
        rollout.held = HeldRollout(_LOST, "", 0.0)
    return rollout, NEW if found is None else found.tag


class Lists:
    """Lists of a place.

    Args:
        place: which.
        config: has ``[publish]``, and the keys of artifacts.
        lease: under which all is written; None for an operator's act, which goes with whoever leads.

    Raises:
        KeyFileError: the signing key is not to be had.
    """

    def __init__(self, place: ListPlace, config: Config, lease: Lease | None = None) -> None:
        assert config.publish is not None
        self._place = place
        self._config = config
        self._table: PublishTable = config.publish
        self._lease = lease
        self._signing: SigningKey = read_signing_key(Path(self._table.sign))
        read_key(Path(self._table.key))  # so that what is wrong with it is said at once

    def rollout(self, name: str) -> Rollout:
        """Read a list's record."""
        return _read(self._place, name)[0]

    def claim(self, name: str) -> None:
        """Write a list's record anew under the lease, so that nothing of who led before gets through."""

        def change(rollout: Rollout) -> bool:
            return bool(rollout.versions)

        self._change(name, change)

    def publish(self, name: str, data: bytes) -> bool:
        """Publish a list, to canaries first; returns whether it is new, and not held up.

        While canaries have one that others have not, what comes waits.

        Raises:
            UrlwardError: it cannot be.
        """
        artifact = parse(data)
        content = content_of(data)
        if not self._is_news(self.rollout(name), content):
            return False
        key = self._key(artifact.header.key_id)
        protected = 0 if key is None else protected_listed(data, key, protected_hosts(self._config))
        header, entries = artifact.header, artifact.entries
        fetched = PublishedVersion(
            header.serial, content, entries, 0.0, header.valid_until, protected=protected
        )

        def change(rollout: Rollout) -> bool:
            if not self._is_news(rollout, content):
                return False
            is_offered = content == rollout.content(rollout.canary) == rollout.content(rollout.stable)
            if is_offered and rollout.source != content:
                rollout.source = content  # as after a rollback, where the body has gone back too
                return True
            rollout.source = content
            version = self._issue(rollout, data, fetched)
            stable = rollout.version(rollout.stable)
            if stable is not None and protected > stable.protected:
                reason = f"{protected - stable.protected} protected hosts would be blocked whole"
                rollout.held = HeldRollout(reason, "", time.time())
            elif self._table.canary and stable is not None:
                rollout.try_on_canaries(version.serial)
            else:
                rollout.offer_to_all(version.serial)  # the first one too: who has no list blocks nothing
            return True

        rollout = self._change(name, change)
        self.offer(name)
        return rollout.held is None

    def _is_news(self, rollout: Rollout, content: str) -> bool:
        if rollout.held is not None or rollout.is_tried:
            return False  # of versions that follow each other fast none would be tried for long enough
        return rollout.source != content or not self._is_kept(rollout.name, rollout.canary)

    def renew(self, name: str) -> None:
        """Issue anew what is to be offered, once half of the time is over for which it is valid."""
        valid_for = self._table.valid_for
        if valid_for is None:
            return

        def change(rollout: Rollout) -> bool:
            changed = False
            for serial in {rollout.canary, rollout.stable}:
                version = rollout.version(serial)
                # A clock that was set back counts too.
                if version is not None and abs(time.time() - version.at) > valid_for / 2:
                    self._replace(rollout, serial)
                    changed = True
            return changed

        self._change(name, change)

    def look(self, name: str, samples: dict[str, Sample | str], elapsed: float) -> str:
        """Look at how canaries fare; promote the version that they have, or hold it.

        Args:
            name: of the list.
            samples: of each canary, or why it has given none.
            elapsed: seconds since the last look.

        Returns:
            What became of it, for the log; empty for nothing yet.
        """
        said = ""

        def change(rollout: Rollout) -> bool:
            nonlocal said
            said = ""
            if not rollout.is_tried:
                return False
            reason, rollout.waiting = self._judged(rollout, samples)
            if rollout.waiting:
                rollout.waited += elapsed
                if rollout.waited > PATIENCE * self._table.observe:
                    reason = f"after {in_words(rollout.waited)}: {rollout.waiting}"
            else:
                rollout.watched += elapsed
            if reason:
                said = f"serial {rollout.canary} is held and withdrawn from the canaries: {reason}"
                rollout.held = HeldRollout(reason, "", time.time())
                stable = self._issue_again(rollout, rollout.stable)
                rollout.canary = stable.serial
            elif not rollout.waiting and rollout.watched >= self._table.observe:
                said = f"serial {rollout.canary} is offered to all, after {in_words(rollout.watched)}"
                rollout.offer_to_all(rollout.canary)
            return True

        self._change(name, change)
        if said:
            self.offer(name, at_once=True)
        return said

    def _judged(self, rollout: Rollout, samples: dict[str, Sample | str]) -> tuple[str, str]:
        """Why the version that is tried is to be held, and why it cannot be judged yet."""
        waiting = ""
        for url, sample in samples.items():
            if isinstance(sample, str):
                waiting = f"{url}: {sample}"
                continue
            if sample.serial != rollout.canary:
                state = f" (its feed: {sample.state})" if sample.state else ""
                waiting = f"{url}: has serial {sample.serial} in force{state}"
                continue
            if rollout.count(url, sample) and url in rollout.before:
                rollout.restarts[url] = rollout.restarts.get(url, 0) + 1
                if rollout.restarts[url] > RESTARTS:
                    return f"{url}: has begun anew {rollout.restarts[url]} times", waiting
            now = rollout.counted(url)
            if reason := judge(rollout.before.setdefault(url, now), now, self._table.max_rise):
                return f"{url}: {reason}", waiting
        return "", waiting

    def roll_back(
        self,
        name: str,
        *,
        why: str,
        who: str,
        serial: int | None = None,
        tell: Callable[[], None] = lambda: None,
    ) -> PublishedVersion:
        """Have all nodes go back to an earlier version, and hold the list there.

        Args:
            name: of the list.
            why, who: for the record.
            serial: of the version; where not given the last that all had before the newest, and that nobody
                has gone back from.
            tell: called once it is clear that it can be done, before it is.

        Returns:
            That version, as it is issued anew.

        Raises:
            UrlwardError: there is none, or somebody else has held the list in the same moment.
        """
        issued: list[PublishedVersion] = []
        seen: list[HeldRollout | None] = []

        def change(rollout: Rollout) -> bool:
            seen.append(rollout.held)
            if rollout.held is not None and rollout.held != seen[0]:
                raise UrlwardError(f"{name}: held in the same moment: {rollout.held.reason}: look first")
            newest = rollout.content(rollout.canary)
            found = [
                version
                for version in rollout.versions
                if (
                    version.released and not version.taken_back and version.content != newest
                    if serial is None
                    else version.serial == serial
                )
            ]
            if not found:
                kept = ", ".join(str(version.serial) for version in rollout.versions) or "none"
                raise UrlwardError(f"{name}: no such version is kept; there are: {kept}")
            wanted = found[-1].serial
            opened = self._is_kept(name, rollout.canary) and self._opens(name, rollout.canary)
            if opened and not self._opens(name, wanted):
                raise UrlwardError(f"{name}: serial {wanted} is under a list key that nodes no longer have")
            version = self._issue_again(rollout, wanted)
            for each in rollout.versions:
                if each.content in (newest, version.content):
                    each.taken_back = each.content != version.content
            rollout.held = HeldRollout(why, who, time.time())
            rollout.offer_to_all(version.serial)
            issued[:] = [version]
            return True

        self._change(name, change, tell)
        self.offer(name, at_once=True)
        return issued[0]

    def release(self, name: str, tell: Callable[[], None] = lambda: None) -> None:
        """Publish a list again that is held: the feed's present one, to canaries first.

        Args:
            name: of the list.
            tell: as of `roll_back`.

        Raises:
            UrlwardError: it is not held.
        """

        def change(rollout: Rollout) -> bool:
            if rollout.held is None:
                raise UrlwardError(f"{name}: not held")
            rollout.held, rollout.source = None, ""
            if rollout.content(rollout.canary) == rollout.content(rollout.stable):
                rollout.offer_to_all(max(rollout.canary, rollout.stable))
            return True

        self._change(name, change, tell)
        self.offer(name)

    def promote(self, name: str, tell: Callable[[], None] = lambda: None) -> PublishedVersion:
        """Offer the version to all that canaries have, or that a guard has held.

        Args:
            name: of the list.
            tell: as of `roll_back`.

        Raises:
            UrlwardError: there is none.
        """
        offered: list[PublishedVersion] = []

        def change(rollout: Rollout) -> bool:
            version = rollout.waits_for_all
            if version is None:
                raise UrlwardError(f"{name}: no version waits to be offered to all")
            if rollout.held is not None:
                version = self._issue_again(rollout, version.serial)
            rollout.held = None
            rollout.offer_to_all(version.serial)
            offered[:] = [version]
            return True

        self._change(name, change, tell)
        self.offer(name)
        return offered[0]

    def offer(self, name: str, *, at_once: bool = False) -> None:
        """Make what nodes see agree with the record.

        Args:
            name: of the list.
            at_once: the artifacts go before their deltas: nodes have what is issued anew already.

        Raises:
            PlaceError: the place cannot be used.
            ArtifactError: a version that is to be offered is gone, or damaged.
            LeaseLostError: another leads.
        """
        anew = False
        for _ in range(_TRIES):
            try:
                if self._offer(name, at_once=at_once, anew=anew):
                    return
            except OvertakenError:
                anew = True  # the deltas that were written until then may lead to what is no longer offered
        raise OvertakenError(f"{self._place}: {name}: others go on writing it")

    def _offer(self, name: str, *, at_once: bool, anew: bool) -> bool:
        """One try of `offer`; False where the record had to be changed.

        Args:
            name: of the list.
            at_once: as of `offer`.
            anew: whether deltas to what is offered already are written too.
        """
        paths = {channel: f"{channel}/{name}.ward" for channel in (CANARY, STABLE)}
        # Before the record is read: what is written after it has been changed makes these tags void.
        there = {channel: self._place.read(path, HEADER_SIZE) for channel, path in paths.items()}
        rollout = self.rollout(name)
        wanted = {CANARY: rollout.canary, STABLE: rollout.stable}
        changed, others = [], []
        for channel, found in there.items():
            offered, serial = self._serial_of(found), wanted[channel]
            if offered > serial > 0:
                # By who led before, or the record is of a copy of old: nodes go by serials, so above it.
                self._rise(name, channel, offered)
                return False
            if serial and offered != serial and not self._is_version(found, name, serial):
                changed.append((channel, serial, NEW if found is None else found.tag))
            elif serial and anew:
                others.append((channel, serial))
        for channel, _ in others:
            self._remove_deltas(name, channel, ())
        if at_once:
            for channel, serial, tag in reversed(changed):
                # Those that are there lead to what is to be taken back.
                self._remove_deltas(name, channel, ())
                self._put(paths[channel], self._version(name, serial), tag)
        deltas: dict[tuple[int, int], bytes | None] = {}
        for channel, serial, tag in changed:
            data = self._version(name, serial)
            names = self._put_deltas(rollout, paths[channel], serial, data, deltas)
            if not at_once:
                self._put(paths[channel], data, tag)
            self._remove_deltas(name, channel, names)
        for channel, serial in others:
            self._put_deltas(rollout, paths[channel], serial, self._version(name, serial), deltas)
        self._prune(rollout)
        return True

    def _put(self, path: str, data: bytes, tag: str) -> None:
        if self._lease is not None:
            self._lease.check()
        self._place.write(path, data, tag)

    def _remove(self, name: str, path: str) -> None:
        """Delete an object of a list.

        Few stores delete on a condition, so it is looked at just before whether another has led since.

        Raises:
            LeaseLostError: one has.
        """
        if self._lease is not None:  # else it is an operator's command, which waits for none
            self._check_leads(self.rollout(name))
        self._place.remove(path)

    def _check_leads(self, rollout: Rollout) -> None:
        """Check that nobody has led since, as far as a list's record says.

        Raises:
            LeaseLostError: somebody has.
        """
        if self._lease is not None:
            self._lease.check()
            if rollout.token > self._lease.token:
                raise LeaseLostError(f"{self._place}: another publisher has led since: nothing is written")

    def _remove_deltas(self, name: str, channel: str, but: Collection[str]) -> None:
        """Delete the deltas of a list, but those of some names."""
        for other in self._place.names(channel):
            if other.startswith(f"{name}.ward.") and other.endswith(".delta") and other not in but:
                self._remove(name, f"{channel}/{other}")

    def _put_deltas(
        self,
        rollout: Rollout,
        path: str,
        serial: int,
        data: bytes,
        made: dict[tuple[int, int], bytes | None],
    ) -> set[str]:
        """Write the deltas to a version, from each that is kept; returns their names."""
        names = set()
        for version in rollout.versions:
            if version.serial >= serial:
                continue
            if (version.serial, serial) not in made:
                made[version.serial, serial] = self._delta(rollout.name, version.serial, data)
            delta = made[version.serial, serial]
            if delta is None:
                continue
            name = f"{path}.{version.serial}.delta"
            found = self._place.read(name, 1)
            self._put(name, delta, NEW if found is None else found.tag)
            names.add(name.rpartition("/")[2])
        return names

    def _delta(self, name: str, serial: int, data: bytes) -> bytes | None:
        """Make the delta from a version; None where there is none that is worth it."""
        new = parse(data)
        key = self._key(new.header.key_id)
        try:
            old = parse(self._version(name, serial))
            return None if key is None else make_delta(old, new, key)
        except ArtifactError:
            return None

    def _version(self, name: str, serial: int) -> bytes:
        """Read a version.

        Raises:
            ArtifactError: it is gone, or damaged: nobody is offered that.
        """
        path = f"{VERSIONS}/{name}/{serial}.ward"
        found = self._place.read(path)
        if found is None:
            raise ArtifactError(f"{self._place}: {path} is gone")
        try:
            parse(found.data)
        except ArtifactError as e:
            raise ArtifactError(f"{self._place}: {path} is damaged: {e}") from e
        return found.data

    def _opens(self, name: str, serial: int) -> bool:
        """Whether a version that is kept is under a key of the configuration."""
        return self._key(parse(self._version(name, serial)).header.key_id) is not None

    def _is_kept(self, name: str, serial: int) -> bool:
        """Whether a version is there, as it was written."""
        with suppress(ArtifactError):
            return bool(self._version(name, serial))
        return False

    def _serial_of(self, found: PlacedObject | None) -> int:
        """Serial of an artifact that is offered, by its header; 0 for none, and for what we have not signed:
        nodes do not go by that either."""
        if found is not None:
            with suppress(ArtifactError):
                header = read_header(found.data)
                if check_signature(header) == self._signing.public:
                    return header.serial
        return 0

    def _is_version(self, found: PlacedObject | None, name: str, serial: int) -> bool:
        """Whether an offered artifact is a version as it is kept, by its header: what the signing key before
        has signed is offered until the list changes."""
        if found is None:
            return False
        kept = self._place.read(f"{VERSIONS}/{name}/{serial}.ward", HEADER_SIZE)
        return kept is not None and kept.data == found.data

    def _rise(self, name: str, channel: str, above: int) -> None:
        """Issue what a channel is to have above a serial that is offered there."""

        def change(rollout: Rollout) -> bool:
            serial = rollout.canary if channel == CANARY else rollout.stable
            if serial > above:
                return False
            self._replace(rollout, serial, above)
            return True

        self._change(name, change)

    def _replace(self, rollout: Rollout, serial: int, above: int = 0) -> None:
        """Offer a version anew, with another serial, where it is offered."""
        version = self._issue_again(rollout, serial, above)
        version.released = rollout.stable == serial
        if rollout.canary == serial:
            rollout.canary, rollout.before = version.serial, {}
        if rollout.stable == serial:
            rollout.stable = version.serial

    def _issue_again(self, rollout: Rollout, serial: int, above: int = 0) -> PublishedVersion:
        version = rollout.version(serial)
        if version is None:
            raise ArtifactError(f"{self._place}: {rollout.name}: serial {serial} is not kept")
        data = self._version(rollout.name, serial)
        return self._issue(rollout, data, structs.replace(version, released=False), above)

    def _issue(
        self, rollout: Rollout, data: bytes, version: PublishedVersion, above: int = 0
    ) -> PublishedVersion:
        """Sign a version, with its own serial or one above all others, and keep it."""
        now = time.time()
        offered = [
            self._serial_of(self._place.read(f"{channel}/{rollout.name}.ward", HEADER_SIZE))
            for channel in (CANARY, STABLE)
        ]
        known = [each.serial for each in rollout.versions]
        own = version.serial if version.serial <= _HIGHEST else 0
        serial = max(own, 1 + max([above, *offered, *known]))
        ends = [version.until] if version.until else []
        if self._table.valid_for is not None:
            ends.append(int(now + self._table.valid_for))
        while True:
            made = sign_artifact(
                data, self._signing, serial=serial, valid_from=0, valid_until=min(ends, default=0)
            )
            try:
                self._put(f"{VERSIONS}/{rollout.name}/{serial}.ward", made, NEW)
                break
            except OvertakenError:
                serial += 1  # of one that was killed before it had noted it
        version = structs.replace(version, serial=serial, at=now)
        rollout.versions.append(version)
        newest: dict[tuple[str, bool], int] = {}
        for each in rollout.versions:
            newest.pop((each.content, each.released), None)
            newest[each.content, each.released] = each.serial
        # And the last contents: what is issued anew all the time pushes out none to go back to.
        last = -1 - self._table.keep
        kept = {each.serial for each in rollout.versions[last:]} | set(list(newest.values())[last:])
        kept |= {rollout.canary, rollout.stable}
        rollout.versions = [each for each in rollout.versions if each.serial in kept]
        return version

    def _prune(self, rollout: Rollout) -> None:
        """Delete versions that are older than the newest, and not kept."""
        kept = {version.serial for version in rollout.versions}
        newest = max(kept, default=0)  # above it are those that are not noted yet
        for name in self._place.names(f"{VERSIONS}/{rollout.name}"):
            serial = name.removesuffix(".ward")
            if serial.isdecimal() and int(serial) < newest and int(serial) not in kept:
                self._remove(rollout.name, f"{VERSIONS}/{rollout.name}/{name}")

    def _key(self, id_: bytes) -> Key | None:
        """Key that an artifact was compiled under; None where it is not here, so that there are no deltas."""
        names = [self._table.key, self._config.key, *(feed.key for feed in self._config.feed)]
        for name in dict.fromkeys(filter(None, names)):
            with suppress(KeyFileError):
                if (key := read_key(Path(name))).id == id_:
                    return key
        return None

    def _change(
        self, name: str, change: Callable[[Rollout], bool], tell: Callable[[], None] = lambda: None
    ) -> Rollout:
        """Change a list's record; `change` says whether there is anything to write, and `tell` is called once
        before that is.

        Raises:
            LeaseLostError: another leads.
            PlaceError: the place cannot be used.
        """
        told = False
        for _ in range(_TRIES):
            rollout, tag = _read(self._place, name)
            if self._lease is not None:
                self._check_leads(rollout)
                rollout.token = self._lease.token
            if not change(rollout):
                return rollout
            if not told:
                tell()
                told = True
            data = msgspec.json.encode(rollout)
            try:
                self._place.write(record_name(name), data, tag)
            except OvertakenError:
                found = self._place.read(record_name(name))
                if found is not None and found.data == data:
                    return rollout  # by ourselves: the answer to a write was lost
                continue
            return rollout
        raise OvertakenError(f"{self._place}: {name}: others go on writing it")
