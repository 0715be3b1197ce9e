"""True histories at random, what servers would tell of them, and a judge of what `who` answers.

Everything that ends is told, by a record that some log has: what the documentation says is not known (ends
that no record tells, names of sessions used again at a restart that none tells) does not happen here.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assignments.support import at
from assignments.test_rotation import HEADER, block, record
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.retention import hold_assignments, purge_assignments
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, who

EDGE = 2
"""Seconds about a change in which either is right."""
PORT = 1500
USERS = ("anna", "berta", "carla")
KEA = (
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"
)

type Question = tuple[str, int]
"""Address or prefix, and seconds."""
type Answer = tuple[str, list[str]]
"""Verdict, and subscribers."""


@dataclass(frozen=True, slots=True)
class Span:
    """Span of time in which a user had an address or prefix; whether it is told that it ended."""

    key: str
    begin: int
    end: int
    user: str
    is_told: bool = True


@dataclass(slots=True)
class History:
    """What was so, and what was told of it: each with the second in which it is written."""

    format: str
    told: list[tuple[int, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    unknown: list[tuple[str, int, int]] = field(default_factory=list)
    """Spans in which nobody has told yet that an address is another's."""

    @property
    def header(self) -> str:
        return {"ports": HEADER, "kea": KEA}.get(self.format, "")

    def had(self, key: str, seconds: int) -> set[str]:
        return {one.user for one in self.spans if one.key == key and one.begin <= seconds < one.end}

    def questions(self, rng: random.Random, most: int = 16) -> list[Question]:
        """About changes, and between."""
        last = max(seconds for seconds, _ in self.told)
        found = []
        for one in self.spans:
            end = min(one.end, last)
            some = (
                one.begin + 3,
                end - 3,
                end + rng.randrange(2, 400),
                rng.randint(one.begin, max(one.begin, end)),
            )
            found += [(one.key, seconds) for seconds in some if 0 <= seconds < last]
        known = [
            (key, at_)
            for key, at_ in found
            if not any(key == one and since <= at_ < until for one, since, until in self.unknown)
        ]
        return known if len(known) <= most else rng.sample(known, most)

    def wrong(self, question: Question, answer: Answer) -> str:
        """What is wrong with an answer: a name that is another's or nobody's then, or that there is none."""
        (key, seconds), (verdict, users) = question, answer
        near = [self.had(key, seconds + apart) for apart in range(-EDGE, EDGE + 1)]
        had = near[EDGE]
        if verdict == "none":
            return "NONE" if had and all(one == had for one in near) else ""
        if verdict != "one" or {*users} <= set().union(*near):
            return ""
        untold = {one.user for one in self.spans if one.key == key and not one.is_told and one.end <= seconds}
        return "WRONG" if had else "" if {*users} <= untold else "NOBODYS"


class _Accounting:
    """Accounting of one or two servers.

    ``late``: some is told late, or again, by a server that says how late; ``restart``: servers restart, and
    tell no Stops of what ends so; ``reuse``: names of sessions begin anew then; ``nas``: two servers;
    ``multi``: prefixes; ``move``: a session gets another address while it lasts.
    """

    def __init__(self, rng: random.Random, flags: set[str]) -> None:
        self.rng, self.flags, self.history = rng, flags, History("detail")
        self.end, self.every = rng.choice([4000, 9000]), rng.choice([300, 600])
        self.addresses = [f"100.64.0.{n}" for n in range(1, rng.choice([3, 4, 6]))]
        self.prefixes = [f"2001:db8:1:{n}::/64" for n in (1, 2)]
        self.free = dict.fromkeys([*self.addresses, *self.prefixes], 0)
        servers = ["192.0.2.1", "192.0.2.2"][: 2 if "nas" in flags else 1]
        self.restarts = {
            one: sorted(rng.sample(range(800, self.end), 4)) if "restart" in flags else [] for one in servers
        }
        self.counts: dict[object, int] = {}
        now = rng.randrange(100)
        while now < self.end:
            self._begin(now, rng.choice(servers))
            now += rng.choice([0, 1, 5, 300, 900])
        for server, some in self.restarts.items():
            for one in some:
                late = rng.choice([0, 0, 20])
                more = {"NAS_IP_Address": server, "Acct_Session_Id": "", "Acct_Delay_Time": str(late)}
                self.history.told.append((one + late, record("Accounting-On", one + late, "", **more)))
        self.history.told.sort(key=lambda one: one[0])

    def _tell(
        self, status: str, seconds: int, user: str, took: int | None, has: Sequence[str], **more: str
    ) -> None:
        fields = {"Framed_IP_Address": "", **more}
        for one in has:
            fields["Framed_IPv6_Prefix" if ":" in one else "Framed_IP_Address"] = one
        times = [0]
        if "late" in self.flags:
            times = [self.rng.choice([2, 60, 400, 1500]) if self.rng.random() < 0.15 else 0]
            times += [times[0] + self.rng.choice([1, 10, 400])] if self.rng.random() < 0.2 else []
        for late in times:
            delay = {"Acct_Delay_Time": str(late)} if late else {}
            text = record(status, seconds + late, user, took, **fields, **delay)
            self.history.told.append((seconds + late, text))

    def _begin(self, now: int, server: str) -> None:
        rng, restarts = self.rng, self.restarts[server]
        limit = min((one for one in restarts if one > now), default=10**9) - 1
        there = [one for one in self.addresses if self.free[one] <= now]
        if not there or limit - now < 4:
            return
        user, has = rng.choice(USERS), [rng.choice(there)]
        prefixes = [one for one in self.prefixes if self.free[one] <= now]
        has += prefixes[:1] if "multi" in self.flags and rng.random() < 0.7 else []
        end = min(now + rng.choice([20, 500, 2500]), limit)
        era = (server, sum(now >= one for one in restarts)) if "reuse" in self.flags else None
        self.counts[era] = self.counts.get(era, 0) + 1
        names = {"NAS_IP_Address": server, "Acct_Session_Id": f"s{self.counts[era]}"}
        self._tell("Start", now, user, None, has, **names)
        since, last = dict.fromkeys(has, now), now
        for seconds in range(now + self.every, end, self.every):
            if "move" in self.flags and rng.random() < 0.3:
                there = [one for one in self.addresses if self.free[one] <= last and one not in has]
                if there:
                    old, new = has[0], rng.choice(there)
                    moved = rng.randint(last + 1, seconds)
                    self.history.spans.append(Span(old, since.pop(old), moved, user))
                    self.history.unknown += [(old, moved, seconds), (new, moved, seconds)]
                    has[0], since[new], self.free[old], self.free[new] = new, moved, seconds, end
            if rng.random() < 0.9 or has[0] not in since or since[has[0]] > last:
                self._tell("Interim-Update", seconds, user, seconds - now, has, **names)
                last = seconds
        for one in has:
            self.free[one] = end + rng.choice([0, 1, 60])
            self.history.spans.append(Span(one, since[one], end, user))
        if end != limit:
            named = user if rng.random() < 0.8 else ""
            self._tell("Stop", end, named, end - now, has if rng.random() < 0.7 else [], **names)


def accounting(*flags: str) -> Callable[[random.Random], History]:
    return lambda rng: _Accounting(rng, {*flags}).history


def blocks(rng: random.Random) -> History:
    """Blocks of ports of a translator."""
    history = History("ports")
    for address in ("198.51.100.7", "198.51.100.8"):
        now = rng.randrange(60)
        while now < 6000:
            user, end = rng.choice(USERS), now + rng.choice([5, 60, 400, 2500])
            history.told += [
                (now, block(now, user, "alloc", address)),
                (end, block(end, user, "release", address)),
            ]
            history.spans.append(Span(address, now, end, user))
            now = end + rng.choice([0, 1, 60, 600])
    history.told.sort(key=lambda one: one[0])
    return history


def leases(rng: random.Random) -> History:
    """Kea's, in a file that grows; when one was given back is not told."""
    history, life = History("kea"), rng.choice([600, 1200])
    for address in ("198.51.100.7", "198.51.100.8"):
        now, barred = rng.randrange(100), {}
        while now < 8000:
            number = rng.choice([one for one in range(1, 5) if barred.get(one, 0) <= now])
            user, renewed = f"02:00:00:00:00:0{number}", now

            def row(
                seconds: int, state: int, lifetime: int, expire: int, user: str = user, key: str = address
            ) -> None:
                ends = at(expire) // 1000
                history.told.append((seconds, f"{key},{user},,{lifetime},{ends},1,0,0,,{state},\n"))

            row(now, 0, life, now + life)
            while rng.random() < 0.5:
                renewed += rng.choice([life // 2, life * 3 // 4])
                row(renewed, 0, life, renewed + life)
            is_back = rng.random() < 0.3
            end = rng.randrange(renewed + 1, renewed + life) if is_back else renewed + life
            if is_back:
                row(end, 0, 0, renewed + life)
                barred[number] = renewed + life + 5  # by whom it was renewed, or begun again, is not told
            history.spans.append(Span(address, now, end, user, is_told=not is_back))
            now = end + rng.choice([0, 1, 60, 600])
    history.told.sort(key=lambda one: one[0])
    return history


@dataclass(frozen=True, slots=True)
class Step:
    """Import of a file with some of what was told, at a time; and before when what ended is deleted then."""

    name: str
    lines: tuple[int, ...]
    at: int
    purged: int | None = None


def readings(mode: str, rng: random.Random, history: History) -> Iterator[list[Step]]:
    """Ways to read all of it: ``grow``: a file that grows; ``files``: rotated ones, in any order; ``two``: by
    two collectors, each of which lacks some."""
    count, last = len(history.told), history.told[-1][0] + 60
    every = range(count)
    if mode == "grow":
        cuts = sorted(rng.sample(every[1:], min(4, count - 1)))
        yield [Step("log", tuple(every[:one]), history.told[one - 1][0] + 1) for one in cuts] + [
            Step("log", tuple(every), last)
        ]
        yield [Step("log", tuple(every), last)]
    elif mode == "files":
        cuts = [0, *sorted(rng.sample(every[1:], min(2, count - 1))), count]
        parts = [
            Step(f"log-2026120{n}", tuple(every[cuts[n] : cuts[n + 1]]), last) for n in range(len(cuts) - 1)
        ]
        yield parts
        for _ in range(2):
            yield rng.sample(parts, len(parts))
    else:
        on: tuple[list[int], list[int]] = ([], [])
        for one in every:
            for some in rng.choice([on, on, on[:1], on[1:]]):
                some.append(one)
        both = [Step(f"{number}/log", tuple(some), last) for number, some in enumerate(on)]
        part = on[0][: rng.randrange(1, len(on[0]) + 1)]
        yield [Step("0/log", tuple(part), history.told[part[-1]][0] + 1), *both]
        yield both[::-1]


def answers(
    history: History,
    steps: Sequence[Step],
    asked: Sequence[Question],
    made: Path,
    folder: Path,
    *,
    held: Sequence[Question] = (),
) -> list[Answer]:
    """What is answered after all steps; what is held is so from before the first."""
    folder.mkdir()
    found = []
    with AssignmentStore(Path(shutil.copy(made, folder / "a.db"))) as store:
        if held:
            clients = [(key.split("/")[0], PORT, at(seconds)) for key, seconds in held]
            hold_assignments(store, "R", at(10**9), clients)
        for step in steps:
            path = folder / step.name
            path.parent.mkdir(exist_ok=True)
            path.write_text(history.header + "".join(history.told[one][1] for one in step.lines))
            os.utime(path, (at(history.told[step.lines[-1]][0]) / 1000,) * 2)
            source = store.source("source", history.format, str(path))
            import_file(store, source, path, ReadOptions(), lambda now=step.at: at(now) / 1000)  # type: ignore[misc]
            if step.purged is not None:
                purge_assignments(store, at(step.purged), at(step.at))
        for key, seconds in asked:
            answer = who(store, WhoQuestion(key.split("/")[0], PORT, at(seconds)))
            found.append(
                (str(answer.verdict), sorted({one.interval.subscriber for one in answer.candidates}))
            )
    shutil.rmtree(folder)
    return found
