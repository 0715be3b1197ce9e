"""What `who` answers, against true histories at random."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assignments.histories import History, accounting, answers, blocks, leases, readings

type Making = Callable[[random.Random], History]

CASES: dict[str, tuple[Making, str]] = {
    "sessions that grow": (accounting("multi", "late"), "grow"),
    "sessions that move": (accounting("multi", "move"), "grow"),
    "sessions in files": (accounting("multi", "late"), "files"),
    "sessions by two collectors": (accounting("multi", "late"), "two"),
    "restarts that grow": (accounting("restart", "reuse", "nas", "multi"), "grow"),
    "restarts in files": (accounting("restart", "reuse", "nas"), "files"),
    "restarts by two collectors": (accounting("restart", "multi"), "two"),
    "blocks in files": (blocks, "files"),
    "blocks that grow": (blocks, "grow"),
    "leases that grow": (leases, "grow"),
}


def seeds(count: int) -> list[str]:
    """Anew in each run."""
    seed = os.environ.get("URLWARD_SEED") or str(random.randrange(1 << 32))
    print(f"URLWARD_SEED={seed}")
    return [f"{seed} {number}" for number in range(count)]


def judged(name: str, count: int, made: Path, folder: Path) -> None:
    making, mode = CASES[name]
    asked = certain = 0
    for seed in seeds(count):
        rng = random.Random(f"{name} {seed}")
        history = making(rng)
        questions = history.questions(rng)
        given = []
        for number, steps in enumerate(readings(mode, rng, history)):
            found = answers(history, steps, questions, made, folder / f"{seed} {number}")
            pairs = [*zip(questions, found, strict=True)]
            wrong = [(history.wrong(*one), *one) for one in pairs if history.wrong(*one)]
            assert not wrong, (seed, number)
            given.append(found)
            asked += len(found)
            certain += sum(verdict != "ambiguous" for verdict, _ in found)
        for question, *some in zip(questions, *given, strict=True):
            told = {(verdict, *users) for verdict, users in some if verdict != "ambiguous"}
            assert len(told) < 2, (seed, question, some)
    assert certain > asked / 4, "who is in doubt of all is never wrong"


def held(name: str, count: int, made: Path, folder: Path) -> None:
    """What is held is answered as if nothing were ever deleted, or in doubt."""
    making, mode = CASES[name]
    for seed in seeds(count):
        rng = random.Random(f"{name} {seed}")
        history = making(rng)
        questions = history.questions(rng, 6)
        (steps, *_) = readings(mode, rng, history)
        purges = [replace(one, purged=one.at - rng.choice([0, 600, 3000])) for one in steps]
        before = answers(history, steps, questions, made, folder / f"{seed} before")
        behind = answers(history, purges, questions, made, folder / f"{seed} behind", held=questions)
        for question, one, other in zip(questions, before, behind, strict=True):
            assert one == other or (other[0] == "ambiguous" and {*one[1]} <= {*other[1]}), (seed, question)


@pytest.mark.parametrize("name", CASES)
def test_nobody_is_named_wrongly(name: str, made_in_file: Path, tmp_path: Path) -> None:
    judged(name, 4, made_in_file, tmp_path)


@pytest.mark.parametrize("name", ["sessions that grow", "restarts in files", "blocks that grow"])
def test_what_is_held_is_answered_as_before(name: str, made_in_file: Path, tmp_path: Path) -> None:
    held(name, 2, made_in_file, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_nobody_is_named_wrongly_in_many_histories(name: str, made_in_file: Path, tmp_path: Path) -> None:
    judged(name, 30, made_in_file, tmp_path)
    held(name, 10, made_in_file, tmp_path)
