"""Whatever the order in which logs are read, and in however many imports: `who` gives the same answers."""

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest

from assignments.support import at
from assignments.test_rotation import block, record
from conftest import in_turns
from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, who

ADDRESSES = ["198.51.100.7", "198.51.100.8"]
PREFIX, INSIDE = "2001:db8:0:7::/64", "2001:db8:0:7::5"
LAST = 20_000

type Line = tuple[int, str]
"""Seconds, and what is written then."""


def accounting(rng: random.Random) -> list[Line]:
    """Sessions, some of which have a prefix too, lose their Stops or are ended by their server's restart."""
    lines: list[Line] = []
    free = dict.fromkeys([*ADDRESSES, PREFIX], 0)
    restarts, number, now = [rng.randrange(5000, 15_000)], 0, rng.randrange(50)

    def write(status: str, seconds: int, user: str, name: str, began: int, *addresses: str) -> None:
        fields = {"Acct_Session_Id": name, "Framed_IP_Address": addresses[0] if addresses else ""}
        fields |= {"Framed_IPv6_Prefix": addresses[1]} if addresses[1:] else {}
        took = seconds - began if status != "Start" else None
        lines.append((seconds, record(status, seconds, user, took, **fields)))
        if rng.random() < 0.1:  # told again, by a server that says how late
            lines.append((seconds + 7, record(status, seconds, user, took, **fields)))

    while now < LAST:
        if there := [one for one in ADDRESSES if free[one] <= now]:
            number += 1
            user, name, begun = rng.choice(["anna", "berta", "carla"]), f"s{number}", now
            ended = begun + rng.choice([20, 900, 4000])
            restart = next((one for one in restarts if begun < one <= ended), None)
            has = [rng.choice(there)]
            has += [PREFIX] if free[PREFIX] <= now and rng.random() < 0.6 else []
            free |= dict.fromkeys(has, (restart or ended) + rng.choice([0, 5]))
            write("Start", begun, user, name, begun, *has)
            for seconds in range(begun + 300, restart or ended, 300):
                write("Interim-Update", seconds, user, name, begun, *has)
            if restart is None and rng.random() < 0.9:
                write("Stop", ended, user, name, begun, *(has if rng.random() < 0.7 else ()))
        now += rng.choice([1, 5, 400])
    lines += [(one, record("Accounting-On", one, "", Acct_Session_Id="")) for one in restarts]
    return sorted(lines, key=lambda line: line[0])


def blocks(rng: random.Random) -> list[Line]:
    """Blocks of ports of a translator."""
    lines: list[Line] = []
    for address in ADDRESSES:
        now = rng.randrange(50)
        while now < LAST:
            user, ended = rng.choice(["anna", "berta", "carla"]), now + rng.choice([5, 900, 4000])
            lines.append((now, block(now, user, "alloc", address)))
            if rng.random() < 0.9:
                lines.append((ended, block(ended, user, "release", address)))
            now = ended + rng.choice([1, 5, 400])
    return sorted(lines, key=lambda line: line[0])


def answers(store: AssignmentStore, moments: list[tuple[str, int]]) -> list[tuple[str, list[str]]]:
    found = []
    for address, seconds in moments:
        answer = who(store, WhoQuestion(address, 1500, at(seconds)))
        found.append((answer.verdict, sorted({one.interval.subscriber for one in answer.candidates})))
    return found


@pytest.mark.parametrize("format_", ["detail", "ports"])
@pytest.mark.parametrize("seed", in_turns(*range(8)))
def test_any_order_of_imports_gives_the_same_answers(
    made_in_file: Path, tmp_path: Path, seed: int, format_: str
) -> None:
    rng = random.Random(seed)
    lines = (accounting if format_ == "detail" else blocks)(rng)
    header = "" if format_ == "detail" else "address,ports,from,subscriber,event\n"
    cuts = [0, *sorted(rng.sample(range(1, len(lines)), 3)), len(lines)]
    files = [lines[since:until] for since, until in itertools.pairwise(cuts)]
    moments = [(rng.choice([*ADDRESSES, INSIDE]), rng.randrange(LAST)) for _ in range(60)]
    orders = [list(range(4)), *map(list, rng.sample([*itertools.permutations(range(4))][1:], 4))]
    given = []
    for order in orders:
        folder = tmp_path / "".join(map(str, order))
        folder.mkdir()
        with AssignmentStore(Path(shutil.copy(made_in_file, folder / "a.db"))) as store:
            # Those that are not read yet are there: what is missing is known.
            for one, some in enumerate(files):
                path = folder / f"log-2026111{one}"
                path.write_text(header + "".join(text for _, text in some))
                os.utime(path, (at(some[-1][0]) / 1000,) * 2)
            for one in order:
                path = folder / f"log-2026111{one}"
                source = store.source(format_, format_, str(path))
                import_file(store, source, path, ReadOptions(), lambda: at(LAST + 9000) / 1000)
            assert store.gaps() == []
            store.looked(source, at(LAST + 9000))
            given.append(answers(store, moments))
    for order, one in zip(orders, given, strict=True):
        different = [each for each in zip(moments, given[0], one, strict=True) if each[1] != each[2]]
        assert (order, different) == (order, [])
